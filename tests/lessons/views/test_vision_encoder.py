"""The picture shows the attention weights of the encoder."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from moved_widgets import ends, figure_of
from pictures import faults, styled
from vision_twin import SMALL, images, loud_vision

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.widgets import Explorer

ONE_TILE = dataclasses.replace(SMALL, max_tiles=1, aspect_ratios=((1, 1),), tile_px=16)


@pytest.fixture
def encoder():
    return loud_vision(ONE_TILE).encoder


def shown(encoder, n_images=2):
    return views.image_attention(encoder, *images(ONE_TILE, (1,) * n_images),
                                 names=["first", "second"][:n_images])


def test_weights_give_the_outputs_of_every_attention_in_the_encoder():
    model = loud_vision()
    seen = []
    for block in (*model.encoder.local_layers, *model.encoder.global_layers):
        block.attention.register_forward_hook(
            lambda module, args, out: seen.append((module, args[0], out)))
    weights_ILHTT = views.image_attention_weights(model.encoder, *images())
    assert weights_ILHTT.shape == (10, 7, 3, 64, 64)
    for layer, (module, x, out) in enumerate(seen):
        v = module.wv(x).unflatten(-1, module.heads)
        found = torch.einsum("ihts,ishk->ithk", weights_ILHTT[:, layer], v).flatten(-2)
        torch.testing.assert_close(module.wo(found), out, rtol=0, atol=1e-5)


def test_the_encoder_has_no_hooks_afterwards(encoder):
    views.image_attention_weights(encoder, *images(ONE_TILE, (1,)))
    assert not any(part._forward_pre_hooks for part in encoder.modules())


def test_the_picture_shows_the_chosen_image_layer_head_and_token(encoder):
    explorer = shown(encoder)
    for name, value in (("image", "second"), ("layer", "local 3"), ("head", 2), ("token", 5)):
        explorer.controls[name].value = value
    figure = figure_of(explorer)
    weights_S = views.image_attention_weights(encoder, *images(ONE_TILE, (1, 1)))[1, 3, 2, 5]
    drawn = torch.tensor(figure.axes[1].images[0].get_array())
    torch.testing.assert_close(drawn, weights_S[1:17].view(4, 4))
    widths = [bar.get_width() for bar in figure.axes[2].patches]
    parts = [weights_S[1:17], weights_S[:1], weights_S[17:]]
    assert widths == pytest.approx([part.sum().item() for part in parts])
    assert sum(widths) == pytest.approx(1)
    assert "Local 3, head 2: patch 5 looks most at" in explorer.words.value
    (outline,) = figure.axes[1].patches
    assert (outline.get_x(), outline.get_y()) == (-0.5, 0.5), "patch 5 begins the second row"


def test_global_layers_follow_the_local_ones(encoder):
    explorer = shown(encoder)
    assert explorer.controls["layer"].value == "global 1"
    explorer.controls["token"].value = 3
    drawn = torch.tensor(figure_of(explorer).axes[1].images[0].get_array())
    weights = views.image_attention_weights(encoder, *images(ONE_TILE, (1, 1)))
    torch.testing.assert_close(drawn, weights[0, 6, 0, 3, 1:17].view(4, 4))


def test_hovering_names_the_patch_in_both_pictures(encoder):
    figure = figure_of(shown(encoder))
    weight = float(figure.axes[1].images[0].get_array()[2, 1])
    words = f"patch 10 (row 2, column 1): weight {weight:.1%}"
    assert figure.axes[1].format_coord(1, 2) == words
    assert figure.axes[0].format_coord(7, 11) == words, "the patches are 4 pixels wide"


def test_no_words_are_small_cut_or_covered(encoder, monkeypatch):
    styled(monkeypatch)
    explorer = shown(encoder)
    assert isinstance(explorer, Explorer) and explorer._repr_mimebundle_()["image/png"]
    values = explorer._values()
    for name, control in explorer.controls.items():
        for value in ends(control):
            figure = explorer.draw(**values | {name: value})
            assert faults(figure) == [], (name, value)
            plt.close(figure)


def test_several_tiles_and_wrong_names_are_refused(encoder):
    with pytest.raises(ValueError, match="must have max_tiles=1; got 4"):
        views.image_attention(loud_vision().encoder, *images(SMALL, (6,)), names=["a"])
    for names in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="each of the 2 images needs a name of its own"):
            views.image_attention(encoder, *images(ONE_TILE, (1, 1)), names=names)

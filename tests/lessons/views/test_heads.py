"""Attention weights in the picture are those of the model."""

import numpy as np
import pytest
import torch
from moved_widgets import TEXT, figure_of, ids_of

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views.inspect_model import trace


def test_attention_shows_the_chosen_layer_and_head_and_nothing_above_the_diagonal(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT, head=1)
    explorer.controls["layer"].value = 2
    shown = figure_of(explorer).axes[0].images[0].get_array()
    weights_TS = trace(model, ids_of(tokenizer)).weights[2, 1]
    torch.testing.assert_close(torch.tensor(shown.filled(0.0)), weights_TS)
    assert (shown.mask == torch.ones_like(weights_TS).triu(1).bool().numpy()).all()


def test_attention_tells_what_the_chosen_token_looks_at_most(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT, head=3)
    explorer.controls["token"].value = 2
    figure = figure_of(explorer)
    row_S = trace(model, ids_of(tokenizer)).weights[0, 3, 2]
    assert ([bar.get_width() for bar in figure.axes[1].patches]
            == pytest.approx(sorted(row_S[:3].tolist(), reverse=True)))
    first = explorer.words.value.split("looks at")[1].split(",")[0]
    assert f"({int(row_S.argmax())}) {row_S.max():.0%}" in first


def test_overview_has_every_head_and_one_color_per_group(model, tokenizer):
    figure = figure_of(views.attention(model, tokenizer, text=TEXT))
    weights_HTS = trace(model, ids_of(tokenizer)).weights[0]
    assert len(figure.axes) == 4
    for ax, weights_TS in zip(figure.axes, weights_HTS, strict=True):
        torch.testing.assert_close(torch.tensor(ax.images[0].get_array().filled(0.0)), weights_TS)
    colors = [ax.spines["left"].get_edgecolor() for ax in figure.axes]
    assert colors[0] == colors[1] != colors[2] == colors[3]


@pytest.mark.parametrize("head", ["all", 1])
def test_hidden_cells_are_hatched_and_numbers_are_not(model, tokenizer, head):
    fig = figure_of(views.attention(model, tokenizer, text=TEXT, head=head))
    for ax in (ax for ax in fig.axes if ax.images):
        (image,) = ax.images
        opacity = image.to_rgba(image.get_array())[..., 3]
        assert (opacity == np.tri(len(opacity))).all()
        assert ax.patch.get_hatch() == "////"

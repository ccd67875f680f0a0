"""The widget and the pictures show what a model that sees answers, and where it looks."""

import dataclasses
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from moved_widgets import figure_of
from pictures import faults, styled
from seeing_twin import TEXT, batch, loud

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import vision_adapter
from llama_from_scratch.lessons.widgets import Explorer
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.train.picture_batches import tiles_of
from llama_from_scratch.train.questions import QUARTERS
from llama_from_scratch.train.rates import SeeingStep
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.train.seeing import small_vision_config
from llama_from_scratch.vision.cross_attention import CrossAttention


@pytest.fixture(scope="module")
def seeing(tokenizer):
    text = dataclasses.replace(TEXT, vocab_size=tokenizer.vocab_size, max_seq_len=128)
    return loud(text, small_vision_config(text.dim), cross_layers=(1, 3))


def test_weights_give_the_outputs_of_every_cross_attention():
    model = loud()
    found = []
    for part in model.modules():
        if isinstance(part, CrossAttention):
            part.register_forward_hook(
                lambda module, args, out: found.append((module, args[1], out)))
    ids, tiles = batch()
    weights_BLHTS = views.cross_attention_weights(model, ids, model.encode(tiles))
    assert weights_BLHTS.shape[:4] == (4, 2, 4, 14)
    for layer, (module, images, out) in enumerate(found):
        _, v_BSGK = module.keys_and_values(images.states)
        v_BSHK = v_BSGK.repeat_interleave(2, dim=2)
        mixed = torch.einsum("bhts,bshk->bthk", weights_BLHTS[:, layer], v_BSHK).flatten(-2)
        expected = module.wo(mixed * images.sees_image[..., None])
        torch.testing.assert_close(expected, out, rtol=0, atol=1e-5)


def test_the_model_has_no_hooks_afterwards():
    model = loud()
    ids, tiles = batch()
    views.cross_attention_weights(model, ids, model.encode(tiles))
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_a_hidden_image_token_has_no_weight():
    model = loud()
    ids, tiles = batch()
    seen = []
    model.layers[1].cross.attention.register_forward_pre_hook(
        lambda module, args: seen.append(args[1].visible))
    weights = views.cross_attention_weights(model, ids, model.encode(tiles))
    (visible,) = seen
    assert isinstance(visible, GivenMask) and not visible.mask.all()
    assert (weights[:, 0] * ~visible.mask).abs().max() == 0


def test_the_answer_is_the_likeliest_token_again_and_again(seeing, tokenizer):
    picture = Scenes().draw(random.Random(0), split="test")
    asked, answer = views.read_picture(seeing, tokenizer, "How many shapes?", picture=picture)
    assert asked[:2] == [tokenizer.bos_id, seeing.config.image_id]
    images = tiles_of([picture], seeing.config.vision)
    said = seeing(torch.tensor([[*asked, *answer]]), images=images)[0].argmax(-1).tolist()
    assert said[len(asked) - 1 : -1] == answer
    assert len(answer) == vision_adapter._MAX_WORDS or said[-1] == tokenizer.eos_id


def test_an_answer_ends_before_end_of_text(seeing, tokenizer, monkeypatch):
    picture = Scenes().draw(random.Random(0), split="test")
    _, whole = views.read_picture(seeing, tokenizer, "How many shapes?", picture=picture)
    last = max(map(whole.index, whole))
    monkeypatch.setattr(type(tokenizer), "eos_id", whole[last])
    _, cut = views.read_picture(seeing, tokenizer, "How many shapes?", picture=picture)
    assert cut == whole[:last] and last > 0


def test_without_a_picture_the_model_is_blind(seeing, tokenizer):
    asked, _ = views.read_picture(seeing, tokenizer, "How many shapes?", picture=None)
    assert asked == tokenizer.encode("How many shapes?", bos=True)


def test_a_scene_has_the_things_that_are_chosen():
    scene = views.scene_of(["red circle", "nothing", "nothing", "blue square"], seed=3)
    assert scene.caption == "top left red circle, bottom right blue square."
    assert scene.pixels.shape == (28, 28, 3)
    quarter = scene.pixels[:14, :14].astype(int)
    assert quarter[..., 0].max() > 150 > quarter[..., 2].max(), "the top left is red"
    assert (scene.pixels[:14, 14:] == scene.pixels[0, 27]).all(), "the top right is empty"
    other = views.scene_of(["red circle", "nothing", "nothing", "blue square"], seed=4)
    assert (other.pixels != scene.pixels).any()


def test_the_widget_shows_the_scene_the_answer_and_where_it_looks(seeing, tokenizer):
    explorer = views.ask_about_scene(seeing, tokenizer)
    assert isinstance(explorer, Explorer)
    for name, value in (("top_left", "green cross"), ("top_right", "nothing"),
                        ("bottom_left", "nothing"), ("bottom_right", "white circle"),
                        ("drawing", 5), ("question", "How many shapes?"), ("word", 2)):
        explorer.controls[name].value = value
    assert explorer.problem.value == ""
    scene = views.scene_of(["green cross", "nothing", "nothing", "white circle"], seed=5)
    asked, answer = views.read_picture(seeing, tokenizer, "How many shapes?", picture=scene)
    _, blind = views.read_picture(seeing, tokenizer, "How many shapes?", picture=None)
    assert explorer.controls["word"].max == len(answer)
    figure = figure_of(explorer)
    assert (np.asarray(figure.axes[0].images[0].get_array()) == scene.pixels).all()
    weights = views.cross_attention_weights(
        seeing, torch.tensor([[*asked, *answer]]),
        seeing.encode(tiles_of([scene], seeing.config.vision)))[0, :, :, len(asked)].mean(1)
    for ax, weights_S, layer in zip(figure.axes[1:], weights, (1, 3), strict=True):
        drawn = torch.tensor(ax.images[0].get_array())
        torch.testing.assert_close(drawn, weights_S[1:].view(4, 4))
        assert ax.get_title(loc="left") + ax.get_title() == f"before layer {layer}"
        assert ax.get_xlabel() == f"class token {weights_S[0]:.0%}"
    words = [tokenizer.decode([token]) for token in answer]
    assert f"With the picture: “{''.join(words).strip()}”" in figure.get_label()
    assert f"Without it: “{tokenizer.decode(blind).strip()}”" in figure.get_label()
    assert f"the word “{words[1].strip()}”" in figure.get_label()


def test_an_own_question_takes_the_place_of_the_menu(seeing, tokenizer):
    explorer = views.ask_about_scene(seeing, tokenizer)
    explorer.controls["own_question"].value = "  What is green? "
    assert "“What is green?” With the picture:" in explorer.words.value
    explorer.controls["own_question"].value = ""
    assert "“What is top left?”" in explorer.words.value


def test_the_widget_names_its_quarters(seeing, tokenizer):
    controls = views.ask_about_scene(seeing, tokenizer).controls
    assert [controls[quarter.replace(" ", "_")].description for quarter in QUARTERS] == list(
        QUARTERS)


def test_no_words_are_small_cut_or_covered(seeing, tokenizer, monkeypatch):
    styled(monkeypatch)
    explorer = views.ask_about_scene(seeing, tokenizer)
    assert explorer._repr_mimebundle_()["image/png"]
    scene = views.scene_of(["yellow triangle"] * 4, seed=0)
    words = [" yellow", " triangle", " bottom", " right", ",", " purple", " triangle", " bottom",
             " left", ":", " yes"]
    for layers in ((1, 2, 3, 4), (3,)):
        for n_words in (0, 1, len(words)):
            figure = views.look_frame(
                scene.pixels, torch.full((len(layers), 17), 1 / 17), layers=layers, blind="yes",
                question="Is the yellow triangle left of the purple triangle?",
                words=words[:n_words], word=max(0, n_words - 1))
            assert faults(figure) == [], (layers, n_words)
            plt.close(figure)


STEPS = [*(SeeingStep(step=i, loss=3.0 - i, gates={}) for i in range(2)),
         *(SeeingStep(step=i, loss=1.0 - 0.1 * i, gates={
             "layers.1.cross.attention_gate.weight": 0.1 * i,
             "layers.1.cross.ffn_gate.weight": -0.2 * i}) for i in range(4))]


def test_the_picture_of_a_run_shows_both_losses_and_every_gate(monkeypatch):
    styled(monkeypatch)
    figure = views.seeing_frame(STEPS)
    left, right = figure.axes
    encoder, adapter = left.lines
    assert encoder.get_xdata().tolist() == [0, 1] and adapter.get_xdata().tolist() == [2, 3, 4, 5]
    assert encoder.get_ydata()[-1] == 2.5, "the mean so far"
    gates = [line.get_ydata() for line in right.lines[:2]]
    np.testing.assert_allclose(gates, [[0, 0.1, 0.2, 0.3], [0, -0.2, -0.4, -0.6]])
    assert [line.get_linestyle() for line in right.lines[:2]] == ["-", "--"]
    assert figure.get_label() == ("After 6 steps the loss is 0.70; the gate that is farthest from "
                                  "0 is at a distance of 0.60.")
    assert faults(figure) == []
    plt.close(figure)


def test_before_the_adapter_there_are_no_gates_to_draw(monkeypatch):
    styled(monkeypatch)
    figure = views.seeing_frame(STEPS[:2])
    assert len(figure.axes[1].lines) == 1, "the line at 0"
    assert faults(figure) == []
    plt.close(figure)


def test_the_plot_draws_a_run_while_it_runs():
    plot = views.SeeingPlot(n_steps=len(STEPS))
    shown = []
    for step in STEPS:
        plot(step)
        shown.append(plot.picture.value)
    assert plot.steps == STEPS and plot.bar.value == len(STEPS)
    assert shown[0] and shown[-1] != shown[0], "the last step is always drawn"
    assert plt.get_fignums() == []
    assert "text/plain" in plot._repr_mimebundle_()

"""What each layer adds and would predict, computed a second time."""

import math

import pytest
import torch
from moved_widgets import TEXT, figure_of, ids_of

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views.inspect_model import Activations, trace


def test_residual_bars_are_the_sizes_of_what_was_added(model, tokenizer):
    explorer = views.residual_stream(model, tokenizer, text=TEXT)
    explorer.controls["token"].value = 1
    left, _ = figure_of(explorer).axes
    passed = trace(model, ids_of(tokenizer))
    size = lambda x_LD: [math.sqrt(sum(value**2 for value in row) / len(row))
                         for row in x_LD.tolist()]
    assert [bar.get_width() for bar in left.patches] == pytest.approx(
        size(passed.attention[:, 1]) + size(passed.feed_forward[:, 1]), rel=1e-4)
    assert list(left.lines[0].get_xdata()) == pytest.approx(size(passed.stream[:, 1]), rel=1e-4)


def test_last_guess_is_what_the_model_itself_says_next(model, tokenizer):
    _, right = figure_of(views.residual_stream(model, tokenizer, text=TEXT)).axes
    probs_V = model(ids_of(tokenizer)[None])[0, -1].softmax(-1)
    assert right.patches[-1].get_width() == pytest.approx(probs_V.max().item(), abs=1e-5)
    assert len(right.patches) == model.config.n_layers + 1
    assert right.texts[-1].get_text().endswith(f"{probs_V.max():.0%}")


def test_deep_models_are_shown_every_few_layers_first_and_last_included():
    passed = Activations(weights=torch.zeros(80, 1, 2, 2), attention=torch.ones(80, 2, 4),
                   feed_forward=torch.ones(80, 2, 4),
                         stream=torch.ones(81, 2, 4))
    left, _ = views.residual_frame(passed, [("x", 0.5)] * 81, token=1, name="y").axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert len(names) == 17 and names[0] == "embedding" and names[-1] == "layer 79"

"""Hands at position times frequency, with and without scaling."""

import math

import pytest
import torch
from moved_widgets import figure_of

from llama_from_scratch import family
from llama_from_scratch.lessons import views
from llama_from_scratch.model.rope import rope_frequencies


def test_rope_hands_stand_at_position_times_frequency():
    config = family.tiny("llama-2")
    explorer = views.rope(config)
    explorer.controls["position"].value = 8
    left = figure_of(explorer).axes[0]
    hands = left.lines[2::4]  # gray hand, its end, colored hand, its end
    frequencies = rope_frequencies(config.head_dim, theta=1e4).tolist()
    for hand, freq in zip(hands, frequencies, strict=True):
        x, y = hand.get_xdata()[1], hand.get_ydata()[1]
        assert (x, y) == pytest.approx((math.hypot(x, y) * math.cos(8 * freq),
                                        math.hypot(x, y) * math.sin(8 * freq)), abs=1e-5)


@pytest.mark.parametrize(("scaling", "factor"), [("×8 (Llama 3.1)", 8), ("×32 (Llama 3.2)", 32)])
def test_rope_scaling_slows_the_last_pairs_by_its_factor_and_keeps_the_first(scaling, factor):
    explorer = views.rope(family.config("llama-3.1-8b"))
    explorer.controls["scaling"].value = scaling
    right = figure_of(explorer).axes[1]
    plain, scaled = (torch.tensor(line.get_ydata()) for line in right.lines[:2])
    assert scaled[0] == plain[0] and (scaled / plain)[-1] == pytest.approx(factor)
    assert scaled.shape == (64,)


def test_rope_theta_of_the_config_comes_first_and_another_changes_the_picture():
    explorer = views.rope(family.config("llama-3-8b"))
    assert explorer.controls["theta"].value == "500,000"
    before = explorer.picture.value
    explorer.controls["theta"].value = "100"
    assert explorer.picture.value != before and explorer.problem.value == ""


def test_rope_starts_where_the_chapter_wants_it():
    explorer = views.rope(family.config("llama-3-8b"),
                          start={"position": 64, "scaling": "×8 (Llama 3.1)"})
    assert "At position 64 " in explorer.words.value
    assert explorer.controls["scaling"].value == "×8 (Llama 3.1)"
    assert views.rope(family.config("llama-3-8b")).controls["position"].value == 3
    with pytest.raises(ValueError,
                       match="name the controls position, theta, scaling; got 'pos'"):
        views.rope(family.config("llama-3-8b"), start={"pos": 3})

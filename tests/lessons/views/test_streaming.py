"""The widget reads a row tile by tile, in every order, and its sum is the softmax's."""

import math

import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views.streaming import ORDERS, order_of

SCORES = [0.4, 1.2, -0.6, 0.9, 2.1, 0.3, -1.0, 1.6, 3.0, 0.2]
EXACT = sum(math.exp(score - 3.0) for score in SCORES)


def terms(figure):
    return [bar.get_height() for bar in figure.axes[1].patches]


@pytest.mark.parametrize("order", ORDERS)
def test_after_the_last_tile_the_terms_are_those_of_the_softmax(order):
    explorer = views.online_softmax(SCORES)
    explorer.controls["order"].value = order
    explorer.controls["n_read"].value = explorer.controls["n_read"].max
    assert terms(figure_of(explorer)) == pytest.approx([math.exp(s - 3.0) for s in SCORES])
    assert f"is {EXACT:.3f}: equal to the sum in one step" in explorer.words.value
    assert explorer.problem.value == ""


def test_a_larger_score_shrinks_the_old_terms_unless_they_are_not_rescaled():
    explorer = views.online_softmax(SCORES)
    explorer.controls["n_read"].value = 2
    assert "multiplied by 0.41" in explorer.words.value
    assert terms(figure_of(explorer))[1] == pytest.approx(math.exp(1.2 - 2.1))
    explorer.controls["is_rescaled"].value = False
    assert "not rescaled" in explorer.words.value
    assert "in one step it is" in explorer.words.value
    assert terms(figure_of(explorer))[1] == 1.0


def test_larger_tiles_are_fewer():
    explorer = views.online_softmax(SCORES)
    explorer.controls["n_read"].value = 4
    explorer.controls["size"].value = 5
    assert (explorer.controls["n_read"].max, explorer.controls["n_read"].value) == (2, 2)
    assert explorer.problem.value == ""


def test_orders_are_orders():
    for order in ORDERS:
        assert sorted(order_of(SCORES, order)) == list(range(10))
    assert order_of(SCORES, "largest first")[0] == order_of(SCORES, "smallest first")[-1] == 8
    with pytest.raises(ValueError, match="must be one of from left to right.*got 'upwards'"):
        order_of(SCORES, "upwards")


@pytest.mark.parametrize("choice", [{"n_read": 1, "size": 3}, {"n_read": 10, "size": 1},
                                    {"n_read": 2, "size": 3, "is_rescaled": False}])
def test_nothing_is_cut_or_covered(monkeypatch, choice):
    styled(monkeypatch)
    assert faults(views.online_softmax_frame(SCORES, **choice)) == []


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="at least 2 scores; got 1"):
        views.online_softmax([1.0])
    with pytest.raises(ValueError, match="1 to 4 tiles can be read; got 5"):
        views.online_softmax_frame(SCORES, n_read=5, size=3)

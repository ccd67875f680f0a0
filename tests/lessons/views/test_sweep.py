"""Finished runs by learning rate, and a diverged one."""

import math

import pytest
from moved_widgets import figure_of

from llama_from_scratch.lessons import figures, views
from llama_from_scratch.train import History, Step


def history(rate, end=2.0, n=150):
    steps = (Step(step=i, loss=end + 5 * math.exp(-i / 5), lr=rate, grad_norm=1.0, n_tokens=100,
                  time_s=0.1) for i in range(n))
    return History(steps=tuple(steps), is_complete=True)


RUNS = {1e-2: history(1e-2, 1.5), 1e-4: history(1e-4, 4.0), 1e-3: history(1e-3, 2.5)}


def test_learning_rates_are_in_order_and_the_slider_colors_its_run():
    explorer = views.learning_rates(RUNS)
    assert [value for _, value in explorer.controls["peak_lr"].options] == [1e-4, 1e-3, 1e-2]
    explorer.controls["peak_lr"].value = 1e-3
    left, right = figure_of(explorer).axes
    colored = [k for k, line in enumerate(left.lines) if line.get_color() == figures.BLUE]
    assert colored == [1]
    assert list(right.lines[0].get_xdata()) == [1e-4, 1e-3, 1e-2]
    assert list(right.lines[0].get_ydata()) == pytest.approx([4.0, 2.5, 1.5], abs=0.02)
    assert "the lowest, 1.50, has 0.01" in explorer.words.value


def test_a_diverged_run_is_marked_and_never_the_best():
    bad = history(1.0)
    bad = History(steps=(*bad.steps, Step(step=150, loss=math.nan, lr=1.0, grad_norm=1.0,
                                          n_tokens=1, time_s=0.1)),
                  is_complete=False)
    assert views.final_loss(bad) == math.inf
    explorer = views.learning_rates({**RUNS, 1.0: bad})
    explorer.controls["peak_lr"].value = 1.0
    assert "1 diverges; the lowest, 1.50, has 0.01" in explorer.words.value
    assert explorer.problem.value == ""


def test_a_sweep_of_one_run_is_refused():
    with pytest.raises(ValueError, match="at least two runs.*got 1"):
        views.learning_rates({1e-3: RUNS[1e-3]})

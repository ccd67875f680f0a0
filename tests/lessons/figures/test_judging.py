import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import judging
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.tune.evals import Mean
from llama_from_scratch.tune.reward import bradley_terry
from llama_from_scratch.tune.rows import TokenExample, padded


def test_the_loss_of_a_pair_is_that_of_the_library(monkeypatch):
    styled(monkeypatch)
    figure = judging.pair_loss((0.0, 1.5), widest=3.0)
    assert faults(figure) == []
    [wins], (plain, larger, _) = (ax.lines for ax in figure.axes)
    for line, margin in ((plain, 0.0), (larger, 1.5)):
        x = torch.tensor(line.get_xdata())
        expected = bradley_terry(x, torch.zeros_like(x), torch.full_like(x, margin))
        assert line.get_ydata() == pytest.approx(expected.numpy())
    assert wins.get_ydata() == pytest.approx(np.exp(-plain.get_ydata()))
    assert f"{math.log(1 + math.exp(1.5)):.2f} with the margin 1.5" in figure.get_label()
    plt.close("all")


def test_each_row_is_read_at_its_target_and_padded_after_it(monkeypatch):
    styled(monkeypatch)
    rows = padded([[TokenExample(ids=(1,) * n, is_learned=(*[False] * (n - 1), True))]
                   for n in (5, 9, 7)])
    assert (rows.targets != IGNORE).sum(1).tolist() == [1, 1, 1]
    figure = judging.places(rows)
    assert faults(figure) == []
    cells = figure.axes[0].collections[0].get_array().reshape(3, 8).tolist()
    assert cells == [[1] * (n - 2) + [2] + [0] * (9 - n) for n in (5, 9, 7)]
    assert "positions 3, 7, 5." in figure.get_label()
    assert len(judging.places(rows, n_shown=2).axes[0].collections[0].get_array().ravel()) == 16
    plt.close("all")


def test_each_judge_has_a_curve_of_both_scores(monkeypatch):
    styled(monkeypatch)
    rising, falling = ([Mean(value=value, error=0.1, n=9) for value in values]
                       for values in ((0.0, 1.0, 2.0), (0.0, -1.0, -3.0)))
    figure = judging.best_of_n([1, 2, 4], {"good": (rising, rising), "bad": (falling, rising)})
    assert faults(figure) == []
    true, own = figure.axes
    assert [list(line.get_ydata()) for line in true.lines] == [[0, 1, 2], [0, -1, -3]]
    assert [list(line.get_ydata()) for line in own.lines] == [[0, 1, 2], [0, 1, 2]]
    assert [tick.get_text() for tick in true.get_xticklabels()] == ["1", "2", "4"]
    assert "bad: true score 0.00 to -3.00, own score 0.00 to 2.00" in figure.get_label()
    plt.close("all")

import math

import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import margins
from llama_from_scratch.tune.dpo import Shift
from llama_from_scratch.tune.evals import share


def test_the_loss_is_log_2_at_0_and_the_pull_is_its_slope(monkeypatch):
    styled(monkeypatch)
    figure = margins.losses((0.1, 0.5), widest=10.0)
    assert faults(figure) == []
    for line, pull, beta in zip(figure.axes[0].lines, figure.axes[1].lines, (0.1, 0.5),
                                strict=False):
        x, y, slope = line.get_xdata(), line.get_ydata(), pull.get_ydata()
        assert y[100] == pytest.approx(math.log(2)) and slope[100] == pytest.approx(beta / 2)
        assert -(y[151] - y[149]) / (x[151] - x[149]) == pytest.approx(slope[150], rel=1e-3)
    plt.close("all")


def test_each_run_begins_at_0_and_shows_both_answers(monkeypatch):
    styled(monkeypatch)
    shifts = [Shift(chosen=-1.0, rejected=-2.5, accuracy=share([True, False])),
              Shift(chosen=-3.0, rejected=-8.0, accuracy=share([True, True]))]
    figure = margins.course([10, 20], {"one": shifts, "two": shifts[::-1]})
    assert faults(figure) == []
    chosen, rejected = figure.axes[0].lines[:2]
    assert list(chosen.get_xdata()) == [0, 10, 20] and list(chosen.get_ydata()) == [0, -1, -3]
    assert list(rejected.get_ydata()) == [0, -2.5, -8]
    assert "two: chosen -1.0, rejected -2.5" in figure.get_label()
    plt.close("all")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import refusals
from llama_from_scratch.tune.safeguards import margins
from llama_from_scratch.tune.world.requests import (
    KINDS_OF_DEEDS,
    OBJECTS,
    VERBS,
    is_held_out_deed,
    kind_of_deed,
)


def test_deeds_have_their_kind_and_a_dot_if_held_out(monkeypatch):
    styled(monkeypatch)
    figure = refusals.deeds()
    assert faults(figure) == []
    ax = figure.axes[0]
    cells = np.asarray(ax.images[0].get_array())
    dots = {(int(x), int(y)) for x, y in ax.collections[0].get_offsets()}
    for y, verb in enumerate(VERBS):
        for x, object in enumerate(OBJECTS):
            assert KINDS_OF_DEEDS[cells[y, x]] == kind_of_deed(verb, object)
            assert ((x, y) in dots) == is_held_out_deed(verb, object)
    plt.close("all")


def test_curves_have_a_dot_at_threshold_zero(monkeypatch):
    styled(monkeypatch)
    found = margins.curve(harmful=torch.tensor([3.0, 1.0, -1.0, 2.0]),
                          harmless=torch.tensor([-3.0, -2.0, 1.0, -1.0]))
    figure = refusals.curves({"3 %": found})
    assert faults(figure) == []
    line, dot = figure.axes[0].lines
    assert line.get_ydata()[0] == 0 and line.get_ydata()[-1] == 100
    assert line.get_xdata()[0] == 100 and line.get_xdata()[-1] == 0
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((25, 25))
    assert "3 %: violations 25 %, false refusals 25 %" in figure.get_label()
    plt.close("all")

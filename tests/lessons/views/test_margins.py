import math

import matplotlib.pyplot as plt
import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views


@pytest.mark.parametrize(("chosen", "rejected", "beta"), [(0, 0, 0.1), (-4, -9, 0.3), (5, 20, 1.0)])
def test_the_point_is_the_loss_of_the_margin(monkeypatch, chosen, rejected, beta):
    styled(monkeypatch)
    figure = views.preference_pull_frame(chosen, rejected, beta=beta)
    assert faults(figure) == []
    point = figure.axes[1].lines[1]
    loss = math.log(1 + math.exp(-beta * (chosen - rejected)))
    assert point.get_xdata()[0] == chosen - rejected
    assert point.get_ydata()[0] == pytest.approx(loss) and f"{loss:.2f}" in figure.get_label()
    assert f"pulls with {beta * (1 - math.exp(-loss)):.3f}" in figure.get_label()
    plt.close("all")


def test_the_widget_draws_the_chosen_pair():
    widget = views.preference_pull()
    assert "margin +5" in widget.words.value
    widget.controls["chosen"].value = 3
    assert "margin +12" in widget.words.value and figure_of(widget) is not None
    widget.controls["beta"].value = 1.0
    assert "With beta 1 the loss is 0.00" in widget.words.value
    plt.close("all")

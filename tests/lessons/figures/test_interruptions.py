import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import interruptions as figures
from llama_from_scratch.parallel.interruptions import UNEXPECTED, between_s, useful_share


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def test_the_bars_are_the_counts_and_together_they_are_all():
    figure = figures.causes()
    assert faults(figure) == []
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert sum(widths) == sum(UNEXPECTED.values()) == 419
    assert widths[:-1] == list(UNEXPECTED.values())[: figures.N_SHOWN]
    assert "faulty GPU: 148 times" in figure.get_label()


def test_the_curves_are_those_of_the_formula_and_the_dot_is_the_top():
    figure = figures.useful_time([1024, 16_384], save_s=30, restart_s=600)
    assert faults(figure) == []
    for n, curve, dot in zip((1024, 16_384), figure.axes[0].lines[::2],
                             figure.axes[0].lines[1::2], strict=True):
        for minutes, percent in list(zip(*curve.get_data(), strict=True))[::40]:
            assert percent == pytest.approx(100 * useful_share(
                interval_s=60 * minutes, save_s=30, restart_s=600, between_s=between_s(n)))
        assert dot.get_ydata()[0] == pytest.approx(max(curve.get_ydata()), abs=0.01)
    assert "16,384 GPUs: at most 87.3 %, with a checkpoint every 14 minutes" in figure.get_label()

import matplotlib.pyplot as plt
import pytest
from pictures import faults as plot_faults
from pictures import styled

from llama_from_scratch.lessons.figures import all_kernels
from llama_from_scratch.lessons.figures.all_kernels import works


def by_words():
    return {work.words: work.intensity for work in works()}


def test_operations_per_byte_are_those_of_the_formulas():
    found = by_words()
    assert found["RMSNorm"] == 4 / 4 and found["SwiGLU"] == pytest.approx(5 / 6)
    assert found["AdamW"] == pytest.approx(13 / 28)
    # One number of a key is read once and multiplied for each of the 4 query heads of its group.
    assert found["attention, one new token"] == pytest.approx(4, rel=0.01)
    assert found["8-bit product, one row"] == pytest.approx(2, rel=0.01)
    assert found["4-bit product, one row"] == pytest.approx(4, rel=0.05)
    # Causal: 2 B T S H K operations, for q, out (H heads) and k, v (G heads).
    assert found["attention"] == pytest.approx(2 * 8192 * 32 / (2 * (2 * 32 + 2 * 8)), rel=0.01)
    assert list(found.values()) == sorted(found.values()) and len(found) == 10


def test_every_kernel_is_on_the_roof_and_named(monkeypatch):
    styled(monkeypatch)
    figure = all_kernels.roofline()
    ax = figure.axes[0]
    roof, *points = ax.lines[:11]
    assert max(roof.get_ydata()) == 989
    for point, work in zip(points, works(), strict=True):
        (x,), (y,) = point.get_xdata(), point.get_ydata()
        assert x == work.intensity and y == pytest.approx(min(4.8 * x, 989))
        assert work.words in point.get_label()
    assert figure.get_label() == ("Memory bounds 8 of 10 kernels; arithmetic bounds attention and "
                                  "linear and loss.")
    assert plot_faults(figure) == []
    plt.close(figure)

import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import low_rank


@pytest.mark.parametrize(("n_in", "n_out", "rank"), [(96, 96, 4), (96, 256, 1), (256, 96, 8)])
def test_areas_are_numbers_of_weights(monkeypatch, n_in, n_out, rank):
    styled(monkeypatch)
    figure = low_rank.layer(n_in=n_in, n_out=n_out, rank=rank)
    assert faults(figure) == []
    w, b, a = figure.axes[0].patches
    unit = 1 / max(n_in, n_out)
    assert w.get_width() == pytest.approx(n_in * unit)
    assert w.get_height() == b.get_height() == pytest.approx(n_out * unit)
    assert a.get_width() == pytest.approx(n_in * unit) and a.get_height() == b.get_width()
    assert b.get_width() == pytest.approx(max(rank * unit, 0.012))
    assert f"{rank * (n_in + n_out):,} weights" in figure.get_label()
    plt.close("all")


def test_shares_are_those_of_the_singular_values(monkeypatch):
    styled(monkeypatch)
    torch.manual_seed(0)
    changes = {name: torch.randn(12, 3) @ torch.randn(3, 9) for name in ("wq", "wk")}
    figure = low_rank.spectra(changes, ranks=(1, 3))
    assert faults(figure) == []
    squares = [torch.linalg.svdvals(change.double()).square() for change in changes.values()]
    expected = [100 * sum(float(s[:rank].sum()) for s in squares) / sum(
        float(s.sum()) for s in squares) for rank in (1, 3)]
    left, right = figure.axes
    assert [bar.get_height() for bar in right.patches] == pytest.approx(expected)
    assert expected[1] == pytest.approx(100), "a product of rank 3 has three directions"
    assert [line.get_ydata()[0] for line in left.lines] == [1, 1]
    assert left.lines[0].get_ydata()[3] == pytest.approx(0, abs=1e-6)
    plt.close("all")

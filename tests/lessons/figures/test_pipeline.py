import pytest
from pictures import faults, styled

from llama_from_scratch.kernels.emulator.tape import Line
from llama_from_scratch.kernels.emulator.timeline import (
    COPY,
    PRODUCT,
    TILE,
    WAIT,
    Pipeline,
    PipelineBar,
)
from llama_from_scratch.lessons.figures import pipeline

LINE = Line(file="example.cu", number=1, text="")


def made(*bars):
    """A pipeline of bars (row, kind, begin, end, n)."""
    bars = tuple(PipelineBar(row=row, kind=kind, begin=begin, end=end, n=n, line=LINE)
                 for row, kind, begin, end, n in bars)
    return Pipeline(bars=bars, n_steps=max(bar.end for bar in bars))


HOPPER = made(("TMA", TILE, 0, 4, 1), ("TMA", TILE, 1, 8, 1), ("TMA", TILE, 5, 9, 1),
              ("warpgroup 1", PRODUCT, 4, 6, 12), ("warp 0", WAIT, 2, 5, 1),
              ("warp 5", WAIT, 6, 8, 1))


def test_bars_are_drawn_in_their_rows_and_overlapping_tiles_above_each_other(monkeypatch):
    styled(monkeypatch)
    figure = pipeline.draw(HOPPER)
    assert faults(figure) == []
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["TMA", "warpgroup 1", "warp 0"]
    spans = [(bar.get_x(), bar.get_width(), bar.get_y()) for bar in ax.patches]
    assert [(x, width) for x, width, _ in spans] == [(0, 4), (1, 7), (5, 4), (4, 2), (2, 3)]
    assert spans[0][2] == spans[2][2] < spans[1][2], "the third tile has room next to the first"
    assert [text.get_text() for text in ax.texts] == ["#0", "#1", "#2", "12"]
    assert "no time" in ax.get_xlabel() and "Up to 2 tiles" in figure.get_label()


def test_rows_and_steps_can_be_chosen(monkeypatch):
    styled(monkeypatch)
    figure = pipeline.draw(HOPPER, rows=["warp 5", "TMA"], first=4, last=8)
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["warp 5", "TMA"]
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(6, 2), (4, 4), (5, 3)]
    with pytest.raises(ValueError, match="a row must be one of TMA, .*; got 'warp 9'"):
        pipeline.draw(HOPPER, rows=["warp 9"])
    with pytest.raises(ValueError, match="within 0 to 9; got 3 to 12"):
        pipeline.draw(HOPPER, first=3, last=12)


def test_a_kernel_without_warpgroups_shows_all_its_warps():
    cores = made(("warp 0", COPY, 0, 3, 40), ("warp 1", PRODUCT, 2, 3, 16))
    assert pipeline.shown_rows(cores) == ("warp 0", "warp 1")
    assert "tiles" not in pipeline.draw(cores).get_label()


def test_products_are_drawn_below_the_copies_of_their_warp():
    cores = made(("warp 0", COPY, 0, 2, 8), ("warp 0", PRODUCT, 3, 4, 16),
                 ("warp 0", COPY, 3, 6, 8))
    tops = [bar.get_y() for bar in pipeline.draw(cores).axes[0].patches]
    assert tops[0] == tops[1] and tops[2] == tops[0] + 1

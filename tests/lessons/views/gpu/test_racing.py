"""Barriers taken away: the races and the results that follow."""

import pytest
import torch
from traced_kernels import words_in

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import gpu


@pytest.mark.parametrize(("first", "second", "verdict", "results"), [
    (True, True, "No race", "forward: 2016   reverse: 2016   random: 2016"),
    (False, True, "1 pair of lines races", "forward: nan   reverse: 2016"),
    (True, False, "1 pair of lines races", "forward: 63   reverse: 63"),
    (False, False, "2 pairs of lines race", "forward: nan   reverse: 2016"),
])
def test_each_choice_of_barriers_tells_its_races_and_results(
    barriers, first, second, verdict, results
):
    barriers.controls["line_7"].value, barriers.controls["line_10"].value = first, second
    assert f">{verdict}." in barriers.words.value and results in barriers.words.value
    assert ("No __syncthreads() orders the two" in barriers.words.value) == (not first and second)


def test_picture_strikes_out_the_missing_barrier_and_marks_the_racing_lines(barriers):
    figure = barriers.draw(line_7=False, line_10=True)
    (ax,) = figure.axes
    assert [patch.get_y() + 0.5 for patch in ax.patches] == [6, 9]
    assert words_in(figure).count("races") == 2
    figure.canvas.draw()
    (line,) = ax.lines
    (gone,) = (text for text in ax.texts if text.get_text().startswith(" 7"))
    letter = gone.get_window_extent().width / len(gone.get_text())
    start, end = line.get_transform().transform(line.get_xydata())
    n_before = gone.get_text().index("_")
    assert start[0] == pytest.approx(gone.get_window_extent().x0 + letter * n_before, abs=1)
    assert end[0] == pytest.approx(gone.get_window_extent().x1, abs=1)
    assert start[1] == end[1] == pytest.approx(ax.transData.transform((0, 7))[1], abs=1)
    assert not barriers.draw(line_7=True, line_10=True).axes[0].patches


def test_source_without_a_barrier_of_its_own_line_is_refused():
    with pytest.raises(ValueError,
                       match="1 to 3 lines that contain only a barrier; it has 0"):
        plain = gpu.program('extern "C" __global__ void k(float* x) { x[0] = 1; }')
        gpu.barriers(plain, "k", lambda: [torch.zeros(1)], grid=1, block=1)


def test_source_frame_marks_the_line_that_leaves_an_array(program):
    found = trace(program, "copy", [torch.zeros(40), torch.zeros(32), 1, 20], grid=1, block=32)
    figure = gpu.source_frame(found)
    assert "out of bounds" in words_in(figure)
    assert figure.get_label().startswith("Out of bounds: thread 20 reads x[40]")

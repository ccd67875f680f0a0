"""Sectors and banks of one warp access, worked out a second time."""

import numpy as np
import pytest
import torch
from pictures import faults, styled
from traced_kernels import copied, turned

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import gpu


@pytest.mark.parametrize(("stride", "offset", "n_sectors"),
                         [(1, 0, 4), (1, 3, 5), (2, 0, 8), (3, 0, 12), (32, 0, 32)])
def test_sectors_are_colored_whole_and_lanes_written_where_they_ask(
    program, stride, offset, n_sectors, monkeypatch
):
    styled(monkeypatch)
    figure = gpu.sectors_frame(copied(program, stride, offset), "y[threadIdx.x] =", "x")
    assert faults(figure) == []
    state = np.asarray(figure.axes[0].images[0].get_array()).flatten()
    assert (state == 2).sum() == 32 and (state > 0).sum() == 8 * n_sectors
    assert np.flatnonzero(state == 2).tolist() == [lane * stride + offset for lane in range(32)]
    lanes = {int(text.get_text()): text.get_position() for text in figure.axes[0].texts}
    assert lanes == {lane: ((lane * stride + offset) % 32, (lane * stride + offset) // 32)
                     for lane in range(32)}
    assert (f"ask for 128 bytes of x, which are in {n_sectors} sectors "
            f"of 32 bytes. {4 / n_sectors:.0%} of" in figure.get_label())


def test_pointer_tells_who_asked(program):
    ax = gpu.sectors_frame(copied(program, 2, 0), "y[threadIdx.x] =", "x").axes[0]
    assert ax.format_coord(2, 0) == "x[2]: lane 1 asked for it"
    assert ax.format_coord(3, 0) == "x[3]: moves, but no lane asked for it"
    assert ax.format_coord(0, 3) == "x[96]: does not move"


@pytest.mark.parametrize(("width", "most"), [(32, 32), (33, 1), (34, 2), (36, 4), (40, 8)])
def test_banks_show_how_many_words_each_serves(program, width, most, monkeypatch):
    styled(monkeypatch)
    figure = gpu.banks_frame(turned(program, width), "y[row * 32", "tile")
    assert faults(figure) == []
    n_banks = int((np.bincount([lane * width % 32 for lane in range(32)]) > 0).sum())
    assert f"32 words in {n_banks} bank{'s' * (n_banks > 1)}. The" in figure.get_label()
    top, ax = figure.axes
    assert max(bar.get_height() for bar in top.patches) == most
    assert sum(bar.get_height() for bar in top.patches) == 32
    state = np.asarray(ax.images[0].get_array())
    assert np.flatnonzero(state).tolist() == [lane * width for lane in range(32)]
    assert (state.max() == 2) == (most > 1)
    assert ax.format_coord(0, 0) == "word 0, bank 0: lane 0"


def test_frames_refuse_the_other_kind_of_memory_and_a_line_that_is_not_there(program, summed):
    with pytest.raises(ValueError, match="Use banks_frame"):
        gpu.sectors_frame(summed, "part[t] = x", "part")
    with pytest.raises(ValueError, match="Use sectors_frame"):
        gpu.banks_frame(summed, "part[t] = x", "x")
    with pytest.raises(ValueError, match=r"one line that contains 'nowhere' must touch x; 0 do\. "
                                         r"The lines are\n  6: writes part"):
        gpu.sectors_frame(summed, "nowhere", "x")
    with pytest.raises(ValueError, match="there are 2 warp accesses, from 0; got 2"):
        gpu.sectors_frame(summed, "part[t] = x", "x", number=2)
    with pytest.raises(ValueError, match="this picture has room for 40 rows"):
        gpu.sectors_frame(trace(program, "copy", [torch.zeros(4000), torch.zeros(32), 64, 0],
                                grid=1, block=32), "y[", "x")

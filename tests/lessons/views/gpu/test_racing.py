"""Pictures of the emulated machine: each is drawn from a trace, and what it says is worked out a second time."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import figures, gpu

SUM = """
constexpr int THREADS = 64;

extern "C" __global__ void block_sum(const float* x, float* sums) {
    __shared__ float part[THREADS];
    int t = threadIdx.x;
    part[t] = x[blockIdx.x * THREADS + t];
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}
extern "C" __global__ void copy(const float* x, float* y, int stride, int offset) {
    y[threadIdx.x] = x[threadIdx.x * stride + offset];
}
extern "C" __global__ void turn(const float* x, float* y, int width) {
    __shared__ float tile[32 * 40];
    int t = threadIdx.x;
    for (int row = 0; row < 32; row++) tile[row * width + t] = x[row * 32 + t];
    __syncthreads();
    for (int row = 0; row < 32; row++) y[row * 32 + t] = tile[t * width + row];
}
extern "C" __global__ void few(float* y) {
    __shared__ int grid[2][3];
    if (threadIdx.x < 2) grid[1][threadIdx.x] = 7 + threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = grid[1][threadIdx.x % 2];
}
"""


@pytest.fixture(scope="module")
def program():
    return gpu.program(SUM)


@pytest.fixture
def summed(program):
    return trace(program, "block_sum", [torch.arange(64.0), torch.zeros(1)], grid=1, block=64)


def copied(program, stride, offset):
    return trace(program, "copy", [torch.zeros(1100), torch.zeros(32), stride, offset], grid=1, block=32)


def turned(program, width):
    return trace(program, "turn", [torch.zeros(1024), torch.zeros(1024), width], grid=1, block=32)


def words_in(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


# --- steps -------------------------------------------------------------------------------------------------------------


def test_slider_moves_through_all_steps_and_tells_each_in_words(summed):
    explorer = gpu.steps(summed)
    assert (explorer.controls["step"].min, explorer.controls["step"].max) == (0, 7)
    for number in range(1, 7):
        before = explorer.picture.value
        explorer.controls["step"].value = number
        assert explorer.picture.value != before and explorer.problem.value == ""
        n = 64 >> number
        assert f"{n} element{'s' * (n > 1)} written, {2 * n} elements read, 0 elements never written" in explorer.words.value


def test_cells_show_the_values_and_what_was_done_to_them(summed):
    figure = gpu.step_frame(summed.steps[1], "part")
    ax = figure.axes[1]
    assert [float(word) for word in words_in(figure)[1:]] == summed.steps[1].arrays["part"].tolist()
    state = np.asarray(ax.images[0].get_array())
    assert (state[:2] == 3).all() and (state[2:] == 2).all()
    assert ax.format_coord(1, 0) == "part[1] = 34, written in this step"
    assert ax.format_coord(0, 2) == "part[32] = 32, read in this step"


def test_what_was_never_written_is_a_dash_and_rows_of_two_dimensions_stay_rows(program):
    text = SUM.replace("__shared__ int grid", "__shared__ float grid")
    step = trace(gpu.program(text), "few", [torch.zeros(32)], grid=1, block=32).steps[0]
    figure = gpu.step_frame(step, "grid")
    assert words_in(figure)[1:] == ["–", "–", "–", "7", "8", "–"]
    assert figure.axes[1].format_coord(1, 1) == "grid[1][1] = 8, written in this step"
    step = trace(program, "few", [torch.zeros(32)], grid=1, block=32).steps[0]
    assert words_in(gpu.step_frame(step, "grid"))[1:] == ["-1", "-1", "-1", "7", "8", "-1"]


def test_steps_refuse_an_array_that_is_not_there_and_one_too_large_for_a_picture(program, summed):
    with pytest.raises(ValueError, match="there are part; got tile"):
        gpu.steps(summed, array="tile")
    with pytest.raises(ValueError, match="there are none"):
        gpu.steps(copied(program, 1, 0))
    with pytest.raises(ValueError, match="a picture holds 256 elements; tile has 1280"):
        gpu.step_frame(turned(program, 32).steps[0], "tile")


# --- barriers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def barriers():
    text = SUM[:SUM.index('extern "C" __global__ void copy')]
    return gpu.barriers(gpu.program(text), "block_sum", lambda: [torch.arange(64.0), torch.zeros(1)], grid=1, block=64)


@pytest.mark.parametrize(("first", "second", "verdict", "results"), [
    (True, True, "No race", "forward: 2016   reverse: 2016   random: 2016"),
    (False, True, "1 pair of lines races", "forward: nan   reverse: 2016"),
    (True, False, "1 pair of lines races", "forward: 63   reverse: 63"),
    (False, False, "2 pairs of lines race", "forward: nan   reverse: 2016"),
])
def test_each_choice_of_barriers_tells_its_races_and_results(barriers, first, second, verdict, results):
    barriers.controls["line_7"].value, barriers.controls["line_10"].value = first, second
    assert f">{verdict}." in barriers.words.value and results in barriers.words.value
    assert ("No __syncthreads() orders the two" in barriers.words.value) == (not first and second)


def test_picture_strikes_out_the_missing_barrier_and_marks_the_racing_lines(barriers):
    figure = barriers.draw(line_7=False, line_10=True)
    (ax,) = figure.axes
    assert [patch.get_y() + 0.5 for patch in ax.patches] == [6, 9] and words_in(figure).count("races") == 2
    assert [line.get_ydata()[0] for line in ax.lines] == [7]
    assert not barriers.draw(line_7=True, line_10=True).axes[0].patches


def test_source_without_a_barrier_of_its_own_line_is_refused():
    with pytest.raises(ValueError, match="1 to 3 lines with nothing but a barrier in them; it has 0"):
        plain = gpu.program('extern "C" __global__ void k(float* x) { x[0] = 1; }')
        gpu.barriers(plain, "k", lambda: [torch.zeros(1)], grid=1, block=1)


def test_source_frame_marks_the_line_that_leaves_an_array(program):
    found = trace(program, "copy", [torch.zeros(40), torch.zeros(32), 1, 20], grid=1, block=32)
    figure = gpu.source_frame(found)
    assert "out of bounds" in words_in(figure)
    assert figure.get_label().startswith("Out of bounds: thread 20 reads x[40]")


# --- one warp access ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "offset", "n_sectors"), [(1, 0, 4), (1, 3, 5), (2, 0, 8), (3, 0, 12), (32, 0, 32)])
def test_sectors_are_coloured_whole_and_lanes_written_where_they_ask(program, stride, offset, n_sectors):
    figure = gpu.sectors_frame(copied(program, stride, offset), "y[threadIdx.x] =", "x")
    state = np.asarray(figure.axes[0].images[0].get_array()).flatten()
    assert (state == 2).sum() == 32 and (state > 0).sum() == 8 * n_sectors
    assert np.flatnonzero(state == 2).tolist() == [lane * stride + offset for lane in range(32)]
    lanes = {int(text.get_text()): text.get_position() for text in figure.axes[0].texts}
    assert lanes == {lane: ((lane * stride + offset) % 32, (lane * stride + offset) // 32) for lane in range(32)}
    assert f"ask for 128 bytes of x, which lie in {n_sectors} sectors of 32 bytes. {4 / n_sectors:.0%} of" in figure.get_label()


def test_pointer_tells_who_asked(program):
    ax = gpu.sectors_frame(copied(program, 2, 0), "y[threadIdx.x] =", "x").axes[0]
    assert ax.format_coord(2, 0) == "x[2]: lane 1 asked for it"
    assert ax.format_coord(3, 0) == "x[3]: moves, and nobody asked for it"
    assert ax.format_coord(0, 3) == "x[96]: does not move"


@pytest.mark.parametrize(("width", "most"), [(32, 32), (33, 1), (34, 2), (36, 4), (40, 8)])
def test_banks_show_how_many_words_each_serves(program, width, most):
    figure = gpu.banks_frame(turned(program, width), "y[row * 32", "tile")
    top, ax = figure.axes
    assert max(bar.get_height() for bar in top.patches) == most
    assert sum(bar.get_height() for bar in top.patches) == 32
    state = np.asarray(ax.images[0].get_array())
    assert np.flatnonzero(state).tolist() == [lane * width for lane in range(32)]
    assert (state.max() == 2) == (most > 1)
    assert ax.format_coord(0, 0) == "word 0, bank 0: lane 0"


def test_frames_refuse_the_other_kind_of_memory_and_a_line_that_is_not_there(program, summed):
    with pytest.raises(ValueError, match="use banks_frame"):
        gpu.sectors_frame(summed, "part[t] = x", "part")
    with pytest.raises(ValueError, match="use sectors_frame"):
        gpu.banks_frame(summed, "part[t] = x", "x")
    with pytest.raises(ValueError, match=r"one line that contains 'nowhere' must touch x; 0 do\. There are\n  6: writes part"):
        gpu.sectors_frame(summed, "nowhere", "x")
    with pytest.raises(ValueError, match="there are 2 warp accesses, from 0; got 2"):
        gpu.sectors_frame(summed, "part[t] = x", "x", number=2)
    with pytest.raises(ValueError, match="a picture holds 40 rows"):
        gpu.sectors_frame(trace(program, "copy", [torch.zeros(4000), torch.zeros(32), 64, 0], grid=1, block=32), "y[", "x")


# --- all ---------------------------------------------------------------------------------------------------------------


def test_every_picture_is_told_in_words_and_no_figure_stays_open(program, summed, barriers):
    for figure in (gpu.step_frame(summed.steps[0], "part"), gpu.source_frame(summed), barriers.draw(line_7=False, line_10=True),
                   gpu.sectors_frame(copied(program, 2, 0), "y[", "x"), gpu.banks_frame(turned(program, 33), "y[row", "tile")):
        assert len(figure.get_label()) > 6
        assert len(figures.png(figure)) < 100_000
    assert plt.get_fignums() == []


def test_colours_differ_in_brightness():
    def brightness(colour):
        return np.dot(to_rgb(colour), (0.3, 0.59, 0.11))

    for palette in ((gpu.WRITTEN, gpu.READ, gpu.IDLE), (gpu.ASKED, gpu.MOVED, gpu.UNTOUCHED)):
        values = sorted(map(brightness, palette))
        assert min(np.diff(values)) > 0.08


def test_listing_numbers_lines_as_traces_do(program, summed):
    line = summed.traffic[0].line
    assert gpu.listing(program).split("\n")[line.number - 1] == f"{line.number:3}     {line.text}"

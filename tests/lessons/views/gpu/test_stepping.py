"""Shared memory, step by step: the numbers and what was done to them."""

import numpy as np
import pytest
import torch
from traced_kernels import SUM, copied, turned, words_in

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import gpu


def test_slider_moves_through_all_steps_and_tells_each_in_words(summed):
    explorer = gpu.steps(summed)
    assert (explorer.controls["step"].min, explorer.controls["step"].max) == (0, 7)
    for number in range(1, 7):
        before = explorer.picture.value
        explorer.controls["step"].value = number
        assert explorer.picture.value != before and explorer.problem.value == ""
        n = 64 >> number
        assert (f"{n} element{'s' * (n > 1)} written, {2 * n} elements "
                "read, 0 elements never written" in explorer.words.value)


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
    with pytest.raises(ValueError, match="which has part; got tile"):
        gpu.steps(summed, array="tile")
    with pytest.raises(ValueError, match="which has none"):
        gpu.steps(copied(program, 1, 0))
    with pytest.raises(ValueError, match="this picture has room for 256 elements; tile has 1280"):
        gpu.step_frame(turned(program, 32).steps[0], "tile")

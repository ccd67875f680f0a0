"""A lane's numbers, for the instruction that is chosen."""

import numpy as np
from moved_widgets import figure_of

from llama_from_scratch.kernels.emulator.fragments import fragment
from llama_from_scratch.lessons import views


def highlighted(explorer):
    return np.asarray(figure_of(explorer).axes[0].images[0].get_array()) == 4


def test_moving_the_lane_highlights_what_it_holds():
    explorer = views.fragments(start="mma C", lane=3)
    assert np.array_equal(highlighted(explorer), fragment("mma C").lane == 3)
    explorer.controls["lane"].value = 31
    assert np.array_equal(highlighted(explorer), fragment("mma C").lane == 31)
    assert "Lane 31 of mma C holds 4 numbers" in explorer.words.value


def test_a_warp_has_32_lanes_and_a_warpgroup_128_threads():
    explorer = views.fragments()
    assert explorer.controls["lane"].max == 31
    explorer.controls["name"].value = "wgmma D"
    assert explorer.controls["lane"].max == 127
    explorer.controls["lane"].value = 100
    assert "Thread 100 of wgmma D holds 32 numbers" in explorer.words.value
    explorer.controls["name"].value = "mma A"
    assert explorer.controls["lane"].value == 31 and explorer.problem.value == ""

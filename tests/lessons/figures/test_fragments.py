import numpy as np
import pytest
from pictures import faults, styled

from llama_from_scratch.kernels.emulator.fragments import FRAGMENTS, fragment
from llama_from_scratch.lessons.figures import fragments


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_fragment_has_a_readable_picture_with_the_lane_highlighted(name, monkeypatch):
    styled(monkeypatch)
    figure = fragments.owners(name, lane=9)
    assert faults(figure) == []
    state = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal(state == 4, fragment(name).lane == 9)
    assert len(set(state.flat)) == 5, "four colors and the highlight"


def test_each_cell_has_the_lane_and_the_register(monkeypatch):
    styled(monkeypatch)
    figure = fragments.owners("mma C")
    words = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert len(words) == 16 * 8
    assert (words[0, 0], words[1, 0], words[7, 9]) == ("0·r0", "0·r1", "7·r3")
    assert "Each lane holds 4 of them" in figure.get_label()
    assert "lane 5 of" in fragments.owners("mma A", lane=5).get_label().lower()


def test_the_pointer_tells_who_holds_a_number():
    ax = fragments.owners("mma A").axes[0]
    assert ax.format_coord(3, 9) == "row 9, column 3: lane 5, register 1, upper half"
    ax = fragments.owners("wgmma D", lane=0).axes[0]
    assert ax.format_coord(10, 17) == "row 17, column 10: thread 37, register 4"

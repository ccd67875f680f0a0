import numpy as np
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import banks


@pytest.mark.parametrize(("pattern", "passes"), [
    ("no swizzle", 32), ("chunk ^ (row % 4)", 8), ("chunk ^ (row % 8)", 4),
    ("16 bytes of padding", 4)])
def test_each_pattern_is_drawn_with_its_passes(pattern, passes, monkeypatch):
    styled(monkeypatch)
    for chunk in (0, 6):
        figure = banks.tile(pattern, chunk=chunk)
        assert faults(figure) == []
        assert banks.passes(banks.PATTERNS[pattern], chunk) == passes
        assert f"takes {passes} passes" in figure.get_label()
        state = np.asarray(figure.axes[1].images[0].get_array())
        assert (state > 0).sum() == 8 and (state.max() == 2) == (passes > 4)
        assert sum(bar.get_height() for bar in figure.axes[0].patches) == 8


@pytest.mark.parametrize("pattern", banks.PATTERNS)
def test_no_two_chunks_of_a_tile_have_one_place(pattern):
    place = banks.PATTERNS[pattern]
    places = {place(row, chunk) for row in range(banks.ROWS) for chunk in range(banks.CHUNKS)}
    assert len(places) == banks.ROWS * banks.CHUNKS


def test_unknown_patterns_and_odd_chunks_are_refused():
    with pytest.raises(ValueError, match="one of no swizzle, .* got 'xor'"):
        banks.tile("xor")
    with pytest.raises(ValueError, match="0, 2, 4 or 6, .* got 3"):
        banks.tile("no swizzle", chunk=3)


def test_both_chunks_of_a_pair_are_read():
    odd_chunks_queue = lambda row, chunk: 8 * row + (chunk if chunk % 2 else chunk ^ row % 8)
    assert banks.passes(odd_chunks_queue, 0) == 2 * 1 + 2 * 8

"""Pictures of tokens: what is written in the boxes, and in which color."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from llama_from_scratch.lessons import figures
from llama_from_scratch.lessons.figures.boxes import ID_PT


def labels(pieces):
    return [box.label for box in figures.token_boxes(pieces)]


def dark(figure):
    """Which pixels of a token picture are ink, below its title, from the top; inks differ from all
    tints.
    """
    pixels = plt.imread(io.BytesIO(figures.png(figure)))[..., :3]
    return (pixels.max(-1) < 0.45)[36:]


def test_tokens_have_a_box_for_every_piece_and_every_id_in_order():
    boxes = figures.token_boxes([b" the", b"\n", b"x"], ids=[262, 10, 120])
    assert [(box.label, box.number) for box in boxes] == [("·the", "262"), ("↵", "10"),
                                                          ("x", "120")]
    assert [box.left for box in boxes] == sorted(box.left for box in boxes)


def test_tokens_are_written_in_hexadecimal_where_no_letter_can_show_them():
    assert labels([b"\xc3", "é".encode(), "日".encode(), b"\x00"]) == ["C3", "é", "E6 97 A5", "00"]


def test_tokens_take_a_dollar_for_a_letter(recwarn):
    assert labels([b"$\\frac$", b"$x$"]) == ["$\\frac$", "$x$"]
    assert dark(figures.tokens([b"$\\frac$", b"$x$"], title="$x")).any() and not recwarn


def test_tokens_keep_their_color_whatever_stands_around_them_and_single_bytes_are_grey():
    def colors(pieces):
        (ax,) = figures.tokens(pieces, title="").axes
        return [to_hex(color) for color in ax.collections[0].get_facecolor()]

    there = colors([b"ab", b"cd", b"ab", b"e"])
    assert there[0] == there[2] != there[1] and there[3] == to_hex("0.9")
    assert colors([b"xy", b"cd", b"e", b"ab"])[1::2] == [there[1], there[0]]
    assert (len(set(colors([bytes((a, a)) for a in b"abcdefghijklmnopqrstuvwxyz"])))
            == len(figures.TINTS))


def test_tokens_are_written_as_matplotlib_writes_them():
    """The same word by matplotlib's own text, at the same place: as large, and nearly the same
    pixels.
    """
    pieces = [b"garden_Wg|"]
    (box,) = figures.token_boxes(pieces)
    mine = figures.tokens(pieces, title="")
    theirs = figures.tokens(pieces, title="")
    theirs.axes[0].patches[0].remove()
    theirs.axes[0].text(box.left + box.width / 2, 0.184, "garden_Wg|", fontsize=13,
                        family="DejaVu Sans Mono", ha="center",
                        va="baseline")
    ours, wanted = (np.argwhere(dark(figure)) for figure in (mine, theirs))
    assert np.abs(ours.min(0) - wanted.min(0)).max() <= 2 and np.abs(ours.max(0)
                                                                     - wanted.max(0)).max() <= 2
    assert len(ours) > 200


def test_tokens_have_ids_of_at_least_ten_points_that_stay_in_their_own_column():
    boxes = figures.token_boxes([b"a", b"b"], ids=[1_234_567, 89])
    assert ID_PT >= 10
    ink = dark(figures.tokens([b"a", b"b"], title="", ids=[1_234_567, 89]))[30:]
    columns = np.flatnonzero(ink.any(0)) / 100
    assert boxes[0].left < columns.min() and columns.max() < boxes[1].left + boxes[1].width
    assert not ((columns > boxes[0].left + boxes[0].width - 0.01) & (columns < boxes[1].left
                                                                     + 0.01)).any()
    assert len(columns) > 30, "the digits are there"


def test_tokens_keep_every_box_inside_the_picture():
    pieces, ids = [b"token"] * 100, [123_456] * 100
    boxes = figures.token_boxes(pieces, ids=ids)
    width, height = figures.tokens(pieces, ids=ids, title="").get_size_inches()
    assert max(box.left + box.width for box in boxes) <= width
    assert max(box.top for box in boxes) + 0.5 <= height
    assert len({box.top for box in boxes}) > 5
    for one, other in itertools.pairwise(boxes):
        assert (other.left >= one.left + one.width if one.top == other.top
                else other.top - one.top > 0.45)


def test_tokens_cut_one_short_that_is_longer_than_a_line(recwarn):
    (box,) = figures.token_boxes([b"x" * 200], ids=[5])
    assert box.label == "x" * 62 + "…"
    assert figures.tokens([b"x" * 200], title="").get_size_inches()[0] == 8 and not recwarn


def test_tokens_of_nothing_are_an_empty_picture():
    assert not dark(figures.tokens([], title="")).any()


def test_tokens_refuses_ids_that_are_not_one_per_piece():
    with pytest.raises(ValueError):
        figures.tokens([b"a", b"b"], title="", ids=[1])

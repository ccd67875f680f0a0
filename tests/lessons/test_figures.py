"""Pictures of tokens and of matrices: what stands in the boxes, and in which colour."""

import math

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from matplotlib.colors import to_hex

from llama_from_scratch.lessons import figures


def draw(pieces, **settings):
    figure = figures.tokens(pieces, title="", **settings)
    (ax,) = figure.axes
    figures.png(figure)
    return ax


def words(ax):
    return [text.get_text() for text in ax.texts if text.get_fontsize() == 13]


def test_tokens_draws_every_piece_and_every_id():
    ax = draw([b" the", b"\n", b"x"], ids=[262, 10, 120])
    assert words(ax) == ["·the", "⏎", "x"]
    assert [text.get_text() for text in ax.texts[1::2]] == ["262", "10", "120"]


def test_tokens_writes_in_hexadecimal_what_no_letter_can_show():
    assert words(draw([b"\xc3", "é".encode(), "日".encode(), b"\x00"])) == ["C3", "é", "E6 97 A5", "00"]


def test_tokens_takes_a_dollar_for_a_letter(recwarn):
    assert words(draw([b"$\\frac$", b"$x$"])) == ["$\\frac$", "$x$"]
    assert not recwarn


def test_tokens_gives_equal_tokens_one_colour_and_a_single_byte_grey():
    colours = [to_hex(box.get_facecolor()) for box in draw([b"ab", b"cd", b"ab", b"e"]).patches]
    assert colours[0] == colours[2] != colours[1]
    assert colours[3] == to_hex("0.9")


def test_tokens_keeps_every_box_inside_the_picture():
    ax = draw([b"token"] * 100, ids=[123_456] * 100)
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    assert all(box.get_x() + box.get_width() <= right and box.get_y() + box.get_height() <= bottom for box in ax.patches)
    assert len({box.get_y() for box in ax.patches}) > 5


def test_tokens_cuts_a_token_short_that_is_longer_than_a_line(recwarn):
    ax = draw([b"x" * 200], ids=[5])
    assert words(ax) == ["x" * 62 + "…"]
    assert ax.patches[0].get_width() <= 64 and not recwarn


def test_tokens_refuses_ids_that_are_not_one_per_piece():
    with pytest.raises(ValueError):
        draw([b"a", b"b"], ids=[1])


def cells(fig):
    return [[text.get_text() for text in ax.texts] for ax in fig.axes]


def test_grid_writes_every_value_into_its_cell_row_by_row():
    fig = figures.grid(torch.tensor([[1.0, 2.5], [-3.0, 0.0]]), title="", x="", y="", labels=".1f")
    assert cells(fig) == [["1.0", "2.5", "-3.0", "0.0"]]


def test_grids_draws_one_matrix_per_title_in_order():
    fig = figures.grids({"before": torch.zeros(2, 3), "after": torch.ones(2, 3)}, x="s", y="t", labels=".0f")
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == ["before", "after"]
    assert cells(fig) == [["0"] * 6, ["1"] * 6]


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_masked_score_is_grey_and_does_not_spoil_the_colour_scale(is_signed):
    scores = torch.tensor([[1.0, -math.inf], [2.0, 3.0]])
    (image,) = figures.grids({"masked": scores}, x="", y="", labels=".0f", signed=is_signed).axes[0].images
    assert image.norm.vmax == 3 and image.norm.vmin == (-3 if is_signed else 1)
    assert image.to_rgba(image.get_array())[0, 1, :3].tolist() == pytest.approx([0.9] * 3)

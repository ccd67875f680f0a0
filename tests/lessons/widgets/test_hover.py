"""What the grid over a picture says of each cell, and where it is, without a browser;
tests/browser moves a real pointer.
"""

import html
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.figures import png
from llama_from_scratch.lessons.views.inspect_model import trace
from llama_from_scratch.lessons.widgets import explore, hover

TEXT = "the garden and the girl"


def cells_of(markup):
    """[grid][row][column] of words; a cell as wide as several counts as several."""
    def row(part):
        found = re.findall(r'data-words="(.*?)"(?: style=flex-grow:(\d+))?', part)
        return [html.unescape(words) for words, width in found for _ in range(int(width or 1))]

    return [[row(part) for part in grid.split('class="row')[1:]]
            for grid in markup.split('class="grid')[1:]]


def matrix(n_rows, n_columns, tell=lambda x, y: f"{x}, {y}"):
    figure, ax = plt.subplots(figsize=(5, 4))
    ax.imshow(np.zeros((n_rows, n_columns)), aspect="auto")
    ax.format_coord = tell
    return figure


def test_every_cell_has_the_words_that_the_axes_give_it_row_by_row():
    figure = matrix(2, 3)
    assert cells_of(hover.cells(figure)) == [[["0, 0", "1, 0", "2, 0"], ["0, 1", "1, 1", "2, 1"]]]


def test_equal_neighbours_become_one_wide_cell():
    markup = hover.cells(matrix(1, 9, lambda x, y: "left" if x < 2 else "right"))
    assert markup.count("<i ") == 2 and cells_of(markup) == [[["left"] * 2 + ["right"] * 7]]


def test_words_are_text_and_never_markup():
    markup = hover.cells(matrix(1, 1, lambda x, y: '"><script>&'))
    assert "<script" not in markup and cells_of(markup) == [[['"><script>&']]]


def test_grid_lies_where_the_image_is_in_the_png():
    figure = matrix(1, 1)
    pixels = plt.imread(io.BytesIO(png(figure)))
    rows, columns = np.nonzero((pixels[..., :3] == pixels[200, 250, :3]).all(-1))
    place = hover.cells(figure).split('style="')[1].split('"')[0]
    # the frame's line covers the outermost pixels of the image
    left, top, width, height = (float(part) / 100 for part in re.findall(r"([\d.]+)%", place))
    assert (left * 500, (left + width) * 500) == pytest.approx((columns.min(), columns.max() + 1),
                                                               abs=3)
    assert (top * 400, (top + height) * 400) == pytest.approx((rows.min(), rows.max() + 1), abs=3)


def test_words_open_towards_the_middle_so_that_no_edge_cuts_them():
    figure, axes = plt.subplots(1, 2)
    for ax in axes:
        ax.imshow(np.zeros((9, 2)), aspect="auto")
        ax.format_coord = lambda x, y: "x"
    markup = hover.cells(figure)
    assert re.findall(r'class="grid (\w+)"', markup) == ["rightwards", "leftwards"]
    sides = re.findall(r'class="row (\w+)"', markup)
    assert sides[0] == sides[9] == "below" and sides[8] == sides[17] == "above"


def test_too_many_cells_are_refused_in_words_and_at_once():
    def tell(x, y):
        raise AssertionError("no cell is asked")

    [[[words]]] = cells_of(hover.cells(matrix(4001, 4, tell)))
    assert (words == "16,004 cells are too many to describe one "
                     "by one. Show only a part, or use a shorter text")


def test_only_a_widget_that_asks_for_it_has_words_under_the_pointer():
    for has_hover in (True, False):
        explorer = explore(lambda n: matrix(1, n), title="t", controls={"n": (1, 5)},
                           has_hover=has_hover)
        explorer.controls["n"].value = 3
        assert explorer.picture.value
        assert (explorer.under_pointer is not None) == has_hover
    explorer = explore(lambda n: matrix(1, n), title="t", controls={"n": (1, 5)}, has_hover=True)
    explorer.controls["n"].value = 3
    assert cells_of(explorer.under_pointer.value) == [[["0, 0", "1, 0", "2, 0"]]]


@pytest.mark.parametrize("head", ["all", 2])
def test_attention_tells_query_key_head_and_weight_and_what_the_mask_hides(model, tokenizer, head):
    explorer = views.attention(model, tokenizer, text=TEXT, layer=1, head=head)
    ids = tokenizer.encode(TEXT, bos=True)
    weights_HTS = trace(model, torch.tensor(ids)).weights[1]
    grids = cells_of(explorer.under_pointer.value)
    heads = range(4) if head == "all" else [head]
    assert len(grids) == len(heads)
    for grid, h in zip(grids, heads, strict=True):
        for t in range(len(ids)):
            for s in range(len(ids)):
                name = lambda i: tokenizer.decode([ids[i]]).replace(" ", "·")
                head_name = f"layer 1, head {h}, key/value {h // 2}"
                query = f"query “{name(t)}” ({t})"
                seen = (f"{head_name}: {query} looks at key “{name(s)}” ({s}) with weight "
                        f"{weights_HTS[h, t, s]:.1%}")
                hidden = (f"{head_name}: hidden. Q{query[1:]} cannot see later tokens "
                          "(causal mask)")
                assert grid[t][s] == (seen if s <= t else hidden)

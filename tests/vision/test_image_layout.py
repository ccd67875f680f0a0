"""How an image is written in a text, against transformers' processor and by hand."""

import re

import pytest
from fusion_twin import IDS
from transformers.models.llama4.processing_llama4 import Llama4Processor

from llama_from_scratch.tokenizer.released import LLAMA_4 as RELEASED
from llama_from_scratch.vision.image_layout import layout, n_tiles, written_out

NAMES = {f"<|{name}|>": getattr(IDS, name) for name in (
    "image_start", "image_end", "image", "patch", "tile_x_separator", "tile_y_separator")}
S, E, I, P, X, Y = NAMES.values()


def released(grid, n_tokens):
    """The ids of the string that the released processor writes for an image."""
    text = Llama4Processor._prompt_split_image(None, grid, n_tokens)
    return [NAMES[name] for name in re.findall(r"<\|\w+\|>", text)]


def test_an_image_of_one_tile_by_hand():
    assert layout((1, 1), ids=IDS, n_tokens=3) == [S, I, P, P, P, E]


def test_an_image_of_several_tiles_by_hand():
    assert layout((2, 2), ids=IDS, n_tokens=1) == [S, P, X, P, Y, P, X, P, Y, I, P, E]
    assert layout((2, 1), ids=IDS, n_tokens=2) == [S, P, P, Y, P, P, Y, I, P, P, E]
    assert layout((1, 3), ids=IDS, n_tokens=1) == [S, P, X, P, X, P, Y, I, P, E]


@pytest.mark.parametrize("rows", range(1, 5))
@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_every_grid_is_written_as_the_released_processor_writes_it(rows, columns):
    found = layout((rows, columns), ids=IDS, n_tokens=4)
    assert found == released((rows, columns), 4)
    assert found.count(P) == 4 * n_tiles((rows, columns))


def separators_exchanged(layout):
    swap = {X: Y, Y: X}
    return lambda grid, **k: [swap.get(token, token) for token in layout(grid, **k)]


def no_separator_after_the_last_row(layout):
    def found(grid, **k):
        ids = layout(grid, **k)
        last = max((i for i, token in enumerate(ids) if token == Y), default=0)
        return ids[:last] + ids[last + 1 :] if last else ids

    return found


def image_before_the_grid(layout):
    def found(grid, **k):
        ids = layout(grid, **k)
        ids.remove(I)
        return [ids[0], I, *ids[1:]]

    return found


@pytest.mark.parametrize("mistake", [separators_exchanged, no_separator_after_the_last_row,
                                     image_before_the_grid])
def test_the_comparison_with_the_released_processor_sees_a_planted_mistake(mistake):
    assert layout((2, 2), ids=IDS, n_tokens=4) == released((2, 2), 4)
    assert mistake(layout)((2, 2), ids=IDS, n_tokens=4) != released((2, 2), 4)


def test_a_tile_of_llama_4_has_144_ids_and_the_largest_image_2448():
    assert layout((1, 1), ids=IDS, n_tokens=144) == [S, I, *[P] * 144, E]
    assert layout((4, 4), ids=IDS, n_tokens=144).count(P) == 2448


def test_lone_ids_of_images_are_written_out_and_others_stay():
    grids = [(1, 1), (1, 2)]
    short = [5, I, 6, I]
    long = written_out(short, grids, ids=IDS, n_tokens=2)
    assert long == [5, *layout((1, 1), ids=IDS, n_tokens=2), 6,
                    *layout((1, 2), ids=IDS, n_tokens=2)]
    assert written_out(long, grids, ids=IDS, n_tokens=2) == long
    half = [5, *layout((1, 1), ids=IDS, n_tokens=2), 6, I]
    assert written_out(half, grids, ids=IDS, n_tokens=2) == long
    assert written_out([1, 2], [], ids=IDS, n_tokens=2) == [1, 2]


@pytest.mark.parametrize("grids", [[], [(1, 1)], [(1, 1)] * 3])
def test_other_numbers_of_images_are_refused_with_both_numbers(grids):
    message = f"prompt 4 has 2 of these ids and {len(grids)} images"
    with pytest.raises(ValueError, match=message):
        written_out([I, 5, I], grids, ids=IDS, n_tokens=2, number=4)


def test_the_released_vocabulary_has_the_known_ids():
    first, names = 200_000, list(RELEASED)
    assert [first + names.index(name) for name in NAMES] == [
        200080, 200081, 200090, 200092, 200084, 200085]

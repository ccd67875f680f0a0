"""Tables of places: rows for each canvas, and the one grid of Meta's layout, by slow loops."""

import dataclasses

import pytest
import torch
from seeing_twin import loud, pictures
from vision_twin import RATIOS

from llama_from_scratch.vision.adapter import share_places
from llama_from_scratch.vision.tables import (
    Grid,
    can_be_resized,
    compacted,
    expanded,
    resized,
    resized_in_tile,
    shared,
)

GRID = Grid(aspect_ratios=RATIOS, max_tiles=4, n_entries=5, width=3)


def drawn(shape, *, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def used():
    """A grid with 0 where no canvas has a tile."""
    table = drawn(GRID.shape)
    for row in range(4):
        for column in range(4):
            if not any(row < rows and column < columns for rows, columns in RATIOS):
                table[row, column] = 0
    return table


def test_rows_have_the_entries_of_their_canvas_tile_by_tile():
    table = drawn(GRID.shape)
    rows = expanded(table, GRID).view(9, 4, 5, 3)
    assert not rows[0].any(), "padding has no place"
    for number, (height, width) in enumerate(RATIOS, start=1):
        for tile in range(4):
            row, column = divmod(tile, width)
            wanted = table[row, column] if row < height else torch.zeros(5, 3)
            assert torch.equal(rows[number, tile], wanted)


def test_a_grid_is_the_same_after_a_round_trip():
    assert torch.equal(compacted(expanded(used(), GRID), GRID), used())


def changed(row, tile):
    """Rows of which one number is another."""
    rows = expanded(used(), GRID)
    rows.view(9, 4, 5, 3)[row, tile, 1, 2] += 1e-3
    return rows


def test_a_place_that_only_one_canvas_has_may_be_anything():
    rows = changed(6, 3)
    assert torch.equal(expanded(compacted(rows, GRID), GRID), rows)


@pytest.mark.parametrize(("row", "tile"), [(8, 0), (1, 2), (0, 0)],
                         ids=["canvases differ", "an unused tile", "padding"])
def test_rows_that_disagree_are_refused(row, tile):
    rows = changed(row, tile)
    with pytest.raises(ValueError, match=r"tile \d of aspect ratio id \d has other values"):
        compacted(rows, GRID)


def test_what_is_shared_is_the_mean_over_the_canvases_that_have_a_place():
    rows = drawn((9, 4 * 5 * 3))
    table, by_tile = shared(rows, GRID), rows.view(9, 4, 5, 3)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (3, 0), (0, 3)):
        having = [by_tile[number, row * width + column]
                  for number, (height, width) in enumerate(RATIOS, start=1)
                  if row < height and column < width]
        torch.testing.assert_close(table[row, column], torch.stack(having).mean(0))
    assert not table[3, 3].any()


def test_sharing_what_is_shared_changes_no_bit_in_any_dtype():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        rows = expanded((used().double() / 3).to(dtype), GRID)
        assert torch.equal(expanded(shared(rows, GRID), GRID), rows)


def test_sharing_the_places_of_a_model_makes_its_canvases_agree():
    model, images = loud(), pictures([[6, 2]])
    for rows, grid in model.vision.encoder.tables():
        with pytest.raises(ValueError, match="one grid of places serves all canvases"):
            compacted(rows, grid)
    before = model.encode(images).states
    share_places(model)
    assert not torch.equal(model.encode(images).states, before)
    for rows, grid in model.vision.encoder.tables():
        assert torch.equal(expanded(compacted(rows, grid), grid), rows)


# --- another grid ---------------------------------------------------------------------------------


def between(values, place):
    """The value at a place between the entries of a list, by linear interpolation."""
    low = min(int(place), len(values) - 2)
    return values[low] + (place - low) * (values[low + 1] - values[low])


def by_loops(image, edge):
    """An image fitted to another edge, its corners unchanged, one pixel at a time."""
    steps = [i * (len(image) - 1) / (edge - 1) for i in range(edge)]
    return torch.stack([torch.stack([between([between(line, x) for line in image], y)
                                     for x in steps]) for y in steps])


def test_a_grid_with_more_patches_is_interpolated_over_the_whole_canvas():
    table = drawn((4, 4, 1 + 9, 3))
    grid = dataclasses.replace(GRID, n_entries=1 + 16)
    found = resized(table, grid)
    assert found.shape == grid.shape
    assert torch.equal(found[:, :, 0], table[:, :, 0]), "the class tokens stay"
    canvas = torch.zeros(12, 12, 3)
    for row in range(12):
        for column in range(12):
            patch = 1 + (row % 3) * 3 + column % 3
            canvas[row, column] = table[row // 3, column // 3, patch]
    wanted = by_loops(canvas, 16)
    for row in range(16):
        for column in range(16):
            patch = 1 + (row % 4) * 4 + column % 4
            torch.testing.assert_close(found[row // 4, column // 4, patch], wanted[row, column])


def test_a_grid_with_more_tiles_is_interpolated_among_tiles():
    table = drawn((2, 2, 1, 3))
    found = resized(table, dataclasses.replace(GRID, n_entries=1))
    torch.testing.assert_close(found[:, :, 0], by_loops(table[:, :, 0], 4))
    assert torch.equal(found[3, 3], table[1, 1])


def test_the_places_in_a_tile_keep_their_class_token():
    table = drawn((1 + 9, 3))
    found = resized_in_tile(table, 1 + 25)
    assert torch.equal(found[0], table[0])
    torch.testing.assert_close(found[1:].view(5, 5, 3), by_loops(table[1:].view(3, 3, 3), 5))


def test_a_grid_of_its_own_size_is_unchanged():
    table = drawn(GRID.shape)
    torch.testing.assert_close(resized(table, GRID), table)


@pytest.mark.parametrize(("shape", "can_be"), [
    ((4, 4, 10, 3), True), ((2, 2, 5, 3), True), ((4, 4, 11, 3), False), ((4, 4, 10, 2), False),
    ((4, 3, 10, 3), False), ((4, 4, 1, 3), False), ((9, 60), False), ((0, 0, 10, 3), False)])
def test_only_squares_of_the_same_width_can_be_resized(shape, can_be):
    assert can_be_resized(shape, GRID) == can_be


def test_a_tile_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match="a tile is a square of patches, .* got 7 patches"):
        resized_in_tile(drawn((8, 3)), 5)

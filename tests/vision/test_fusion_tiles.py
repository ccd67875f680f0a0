"""Grids, sizes and the order of tiles are the released processor's; so are pixels, up to its bf16.

The processor of transformers needs torchvision, so its own functions are executed with PyTorch's
resizing (`grid_reference`). The comparison sees each of the planted mistakes below.
"""

import dataclasses
import math

import grid_reference
import numpy as np
import pytest
import torch
from fusion_twin import IDS
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from llama_from_scratch.vision import fusion_tiles, tiles
from llama_from_scratch.vision.fusion_tiles import (
    EncodedGridImages,
    GridImages,
    grid_of,
    split_grids,
    tiles_of,
)
from llama_from_scratch.vision.image_layout import layout, n_tiles
from llama_from_scratch.vision.tiles import GridTiling

LLAMA_4 = GridTiling(size_px=336)
SMALL = GridTiling(size_px=12)
ONE_VALUE = 2 / 255 + 1e-6
"""Two ways to resize may round a value of a pixel differently."""
IN_BF16 = ONE_VALUE + 2**-7
"""The processor also rounds to bf16: to 2^-8 of values up to 1, and again after the mean."""


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height, width):
    row, column = np.mgrid[:height, :width]
    shade = [row * 255 // max(height - 1, 1), column * 255 // max(width - 1, 1),
             (row + column) * 255 // max(height + width - 2, 1)]
    return np.stack(shade, 2).astype(np.uint8)


def random_sizes(n, *, size_px, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        edges = np.exp(rng.uniform(0, math.log(12 * size_px), 2)).astype(int)
        yield int(edges[0]), int(edges[1])


def differs(height, width, tiling, *, in_bf16=True):
    """In what an image of this size differs from the released processor's; "" if in nothing."""
    array = noise(height, width)
    grid, expected = grid_reference.tiles(
        array, size_px=tiling.size_px, max_tiles=tiling.max_tiles,
        fills_canvas=tiling.fills_canvas, in_bf16=in_bf16)
    ours = split_grids([[array]], tiling)
    if ours.grids != ((grid,),):
        return f"grids {ours.grids} and {grid}"
    if ours.pixels.shape != expected.shape:
        return f"shapes {ours.pixels.shape} and {expected.shape}"
    error = (ours.pixels - expected).abs().max().item()
    return "" if error < (IN_BF16 if in_bf16 else ONE_VALUE) else f"pixels by {error}"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(300, 200, (336, 336)), (500, 1000, (672, 1008)), (1120, 1120, (1344, 1344)),
     (800, 600, (1008, 672)), (1920, 1080, (1680, 1008)), (4000, 3000, (1344, 1008)),
     (337, 336, (672, 336))])
def test_canvases_of_llama_4(width, height, expected):
    rows, columns = grid_of(Image.new("RGB", (width, height)), LLAMA_4)
    assert (columns * 336, rows * 336) == expected


@pytest.mark.parametrize("fills_canvas", [False, True])
def test_random_sizes_equal_the_released_processor(fills_canvas):
    for number, size in enumerate(random_sizes(150, size_px=12)):
        tiling = dataclasses.replace(SMALL, fills_canvas=fills_canvas,
                                     max_tiles=16 if number % 3 else 1 + number % 9)
        assert differs(*size, tiling, in_bf16=bool(number % 2)) == "", size


@pytest.mark.parametrize("fills_canvas", [False, True])
def test_the_canvas_of_two_thousand_sizes_is_the_released_one(fills_canvas):
    tiling = dataclasses.replace(LLAMA_4, fills_canvas=fills_canvas)
    reached = set()
    for height, width in random_sizes(2000, size_px=336, seed=1):
        at = tiles.place(height, width, tiling=tiling, fills_canvas=fills_canvas)
        expected = grid_reference.canvas(height, width, size_px=336, max_tiles=16,
                                         fills_canvas=fills_canvas)
        assert (at.rows, at.columns) == expected, (height, width)
        reached.add(expected)
    assert len(reached) > 20


def test_an_image_of_the_released_size_equals_the_released_processor():
    array = smooth(700, 400)
    grid, expected = grid_reference.tiles(array, size_px=336, max_tiles=16, in_bf16=False)
    ours = split_grids([[array]], LLAMA_4)
    assert ours.grids == ((grid,),) and len(expected) == n_tiles(grid) > 2
    assert (ours.pixels - expected).abs().max() < ONE_VALUE


def test_an_image_that_is_not_resized_equals_the_released_processor_exactly():
    array = noise(24, 36)
    grid, expected = grid_reference.tiles(array, size_px=12, max_tiles=16, in_bf16=False)
    assert grid == (2, 3)
    torch.testing.assert_close(split_grids([[array]], SMALL).pixels[:6], expected[:6], rtol=0,
                               atol=1e-6)


def test_both_canvas_modes_run_and_differ():  # V28
    image = Image.fromarray(noise(20, 30))
    as_it_is, filled = (tiles_of(image, dataclasses.replace(SMALL, fills_canvas=fills))
                        for fills in (False, True))
    assert as_it_is[0] == (2, 3) and filled[0] == (3, 5)
    assert (filled[1][0] != 0).any()


# --- mistakes, each of which the comparison finds -------------------------------------------------


def whole_image_first(patch):
    original = fusion_tiles.tiles_of
    patch.setattr(fusion_tiles, "tiles_of", lambda image, tiling: (
        lambda grid, found: (grid, np.roll(found, 1, axis=0)))(*original(image, tiling)))


def whole_image_keeps_its_ratio(patch):
    original = fusion_tiles.images.resized

    def resized(image, *, height_px, width_px):
        if height_px == width_px == 12 and image.height != image.width:
            small = original(image, height_px=6, width_px=12)
            return np.pad(small, ((0, 6), (0, 0), (0, 0)))
        return original(image, height_px=height_px, width_px=width_px)

    patch.setattr(fusion_tiles.images, "resized", resized)


def tiles_column_by_column(patch):
    original = fusion_tiles.cut

    def cut(pixels, *, rows, columns, size_px):
        found = original(pixels, rows=rows, columns=columns, size_px=size_px)
        return found.reshape(rows, columns, *found.shape[1:]).swapaxes(0, 1).reshape(found.shape)

    patch.setattr(fusion_tiles, "cut", cut)


def colors_of_llama_3_2(patch):
    original = fusion_tiles.normalized_values
    patch.setattr(fusion_tiles, "normalized_values", lambda tiling: original(
        dataclasses.replace(tiling, mean=tiles.MEAN, std=tiles.STD)))


def no_limit_to_enlarging(patch):
    original = fusion_tiles.place
    patch.setattr(fusion_tiles, "place", lambda *size, tiling, fills_canvas: original(
        *size, tiling=tiling, fills_canvas=True))


@pytest.mark.parametrize("mistake", [whole_image_first, whole_image_keeps_its_ratio,
                                     tiles_column_by_column, colors_of_llama_3_2,
                                     no_limit_to_enlarging])
def test_the_comparison_sees_a_planted_mistake(mistake, monkeypatch):
    assert differs(20, 30, SMALL) == ""
    mistake(monkeypatch)
    assert differs(20, 30, SMALL) != ""


# --- one record says how many tiles there are -----------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 16), st.booleans())
@example(1, 10_000, 16, False)
@example(10_000, 1, 16, True)
@example(1, 1, 1, False)
def test_the_places_in_the_text_are_as_many_as_the_tiles_give_tokens(  # V26
        height, width, max_tiles, fills_canvas):
    tiling = GridTiling(size_px=12, max_tiles=max_tiles, fills_canvas=fills_canvas)
    image = Image.new("RGB", (width, height))
    found = split_grids([[image]], tiling)
    (grid,), = found.grids
    assert grid == grid_of(image, tiling) and grid[0] * grid[1] <= max_tiles
    for n_tokens in (1, 4):
        ids = layout(grid, ids=IDS, n_tokens=n_tokens)
        assert ids.count(IDS.patch) == len(found.pixels) * n_tokens
        assert ids.count(IDS.image) == 1


def test_rows_keep_their_order_and_have_no_padding():  # V27
    small, wide, high = noise(10, 12, 1), noise(12, 30, 2), noise(40, 12, 3)
    batch = split_grids([[wide, small], [], [high]], SMALL)
    assert batch.grids == (((1, 3), (1, 1)), (), ((4, 1),))
    assert batch.n_images.tolist() == [2, 0, 1]
    alone = [split_grids([[image]], SMALL).pixels for image in (wide, small, high)]
    assert torch.equal(batch.pixels, torch.cat(alone)) and len(batch.pixels) == 4 + 1 + 5


def test_images_after_the_first_ones_are_those_of_each_row():
    images = [noise(12, 12 * n, n) for n in (1, 2, 3)]
    batch = split_grids([images, images[:1], images[1:]], SMALL)
    rest = split_grids([images[1:], [], images[2:]], SMALL)
    found = batch.after(1)
    assert found.grids == rest.grids and torch.equal(found.pixels, rest.pixels)
    encoded = EncodedGridImages(states=batch.pixels.flatten(2), grids=batch.grids).after(1)
    assert torch.equal(encoded.states, rest.pixels.flatten(2)) and encoded.grids == rest.grids


def test_rows_of_encoded_images_may_come_several_times():
    grids = (((1, 1),), ((1, 2), (1, 1)), ())
    images = EncodedGridImages(states=torch.arange(5.0)[:, None, None], grids=grids)
    found = images.rows([1, 0, 2, 1])
    assert found.states.flatten().tolist() == [1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert found.grids == (grids[1], grids[0], (), grids[1])
    assert found.n_images.tolist() == [2, 1, 0, 2]


def test_a_digest_depends_on_the_pixels_and_the_grid_and_nothing_else():
    first, second = noise(12, 30, 2), noise(10, 12, 1)
    a = split_grids([[first, second], [second]], SMALL).digests()
    b = split_grids([[second, first]], SMALL).digests()
    assert a == b[::-1] and len(set(a)) == 2
    pixels = torch.zeros(7, 3, 12, 12)
    wide, high = (GridImages(pixels=pixels, grids=((grid,),)) for grid in ((2, 3), (3, 2)))
    assert wide.digests() != high.digests()


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: split_grids([[], []], SMALL), "needs at least one; got 2 rows without any"),
     (lambda: split_grids(["a.png"], SMALL), "as a list of rows, and each row as a list"),
     (lambda: split_grids([[noise(4, 4), b"words"]], SMALL), "image 2 of row 1"),
     (lambda: GridImages(pixels=torch.zeros(2, 3, 4, 4), grids=(((1, 2),),)),
      r"have 3 tiles, of which each needs its own; got 2 tiles"),
     (lambda: GridImages(pixels=torch.zeros(2, 3, 4, 4), grids=((1, 2),)),
      r"a tuple with \(rows, columns\) of each image; got \(\(1, 2\),\)"),
     (lambda: GridTiling(size_px=0), "GridTiling.size_px must be an int above 0; got 0"),
     (lambda: GridTiling(size_px=4, std=(1.0, 0.0, 1.0)), "must be above 0"),
     (lambda: GridTiling(size_px=4, fills_canvas=1), "fills_canvas must be True or False; got 1")])
def test_what_cannot_be_cut_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

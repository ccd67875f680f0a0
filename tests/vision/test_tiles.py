"""Tiles, aspect ratio ids and masks are those of the released processor, bit for bit.

It is compared with the processor of transformers that uses Pillow as well; the one that uses
torchvision resizes differently. The comparison sees each of the planted mistakes below.
"""

import dataclasses
import functools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from llama_from_scratch.vision import images, tiles
from llama_from_scratch.vision.tiles import (
    MEAN,
    STD,
    Placement,
    TiledImages,
    Tiling,
    canvases,
    cut,
    normalized_values,
    place,
    split,
)

try:
    from transformers.models.mllama.image_processing_pil_mllama import (
        MllamaImageProcessorPil as Released,
    )
except ImportError:  # before transformers 5
    from transformers.models.mllama.image_processing_mllama import MllamaImageProcessor as Released

N_RANDOM = 520
SIZES = st.integers(1, 5000)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@functools.cache
def released(tiling):
    """The released processor with the settings of a tiling."""
    return Released(size={"height": tiling.size_px, "width": tiling.size_px},
                    max_image_tiles=tiling.max_tiles, image_mean=list(tiling.mean),
                    image_std=list(tiling.std))


def reference(rows, tiling):
    """What the released processor makes of rows of arrays: pixels, ids, mask."""
    rows = [[Image.fromarray(array) for array in row] for row in rows]
    found = released(tiling)(rows, return_tensors="pt")
    return (found["pixel_values"], found["aspect_ratio_ids"], found["aspect_ratio_mask"].bool(),
            found["num_tiles"])


def differs(rows, tiling):
    """In what the library differs from the released processor; "" if in nothing."""
    pixels, ids, mask, n_tiles = reference(rows, tiling)
    ours = split(rows, tiling)
    if not torch.equal(ours.aspect_ids, ids):
        return f"ids {ours.aspect_ids.tolist()} and {ids.tolist()}"
    if not torch.equal(ours.tile_mask, mask):
        return f"mask {ours.tile_mask.tolist()} and {mask.tolist()}"
    if [row[:len(numbers)] for row, numbers in zip(ours.n_tiles.tolist(), n_tiles, strict=True)
            ] != n_tiles:
        return f"tiles {ours.n_tiles.tolist()} and {n_tiles}"
    if ours.pixels.dtype != pixels.dtype or not torch.equal(ours.pixels, pixels):
        return f"pixels of {rows[0][0].shape}"
    return ""


def random_cases(n, seed=0):
    """(rows, tiling) of one image of a random size, long and thin ones among them."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        size_px = int(rng.integers(4, 33))
        edges = np.exp(rng.uniform(0, math.log(9 * size_px), 2)).astype(int)
        tiling = Tiling(size_px=size_px, max_tiles=4 if number % 4 else int(rng.integers(1, 9)))
        yield [[noise(*map(int, edges), seed=number)]], tiling


def test_random_sizes_with_random_tiles_equal_the_released_processor():
    reached = set()
    for rows, tiling in random_cases(N_RANDOM):
        assert differs(rows, tiling) == ""
        if tiling.max_tiles == 4:
            height, width, _ = rows[0][0].shape
            reached.add(place(height, width, tiling=tiling).aspect_id)
    assert reached == set(range(1, 9))


@pytest.mark.parametrize("size_px", [448, 560])
def test_released_tile_sizes_equal_the_released_processor(size_px):
    row, column = np.mgrid[:630, :1000]
    photo = np.stack([row * 255 // 629, column * 255 // 999, (row * column) % 256], 2)
    rows = [[photo.astype(np.uint8), noise(37, 90)], [noise(1300, 200)]]
    assert differs(rows, Tiling(size_px=size_px)) == ""


@pytest.mark.parametrize("size_px", [448, 560])
def test_photos_of_scikit_learn_and_scikit_image_equal_the_released_processor(size_px):
    datasets, data = (pytest.importorskip(name) for name in ("sklearn.datasets", "skimage.data"))
    photos = [*datasets.load_sample_images().images, data.astronaut(), data.chelsea(),
              data.coffee()]
    for photo in photos:
        assert differs([[photo]], Tiling(size_px=size_px)) == ""


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (1, 1), (1, 2), (2, 1)])
def test_the_thinnest_images_equal_the_released_processor(shape):
    assert differs([[noise(*shape)]], Tiling(size_px=448)) == ""


def test_ragged_batches_equal_the_released_processor():
    a, b, c, d = noise(9, 9), noise(40, 13), noise(8, 90), noise(33, 34)
    for rows in ([[a, b, c], [d]], [[a], [b, c], [d]], [[d], [a, b, c, d]], [[c, a]]):
        assert differs(rows, Tiling(size_px=12)) == ""
    assert differs([[a, b], []], Tiling(size_px=12)) == "", "a row without images"


def test_files_of_every_color_mode_equal_the_released_processor(tmp_path):
    tiling = Tiling(size_px=20)
    for mode in ("L", "P", "RGB", "CMYK"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        path = tmp_path / f"{mode}.{kind.lower()}"
        Image.fromarray(noise(50, 31)).convert(mode).save(path)
        expected = released(tiling)([[str(path)]], return_tensors="pt")["pixel_values"]
        assert torch.equal(split([[path]], tiling).pixels, expected)


def test_other_means_and_deviations_equal_the_released_processor():
    tiling = Tiling(size_px=10, mean=(0.5, 0.25, 0.0), std=(0.5, 0.1, 1.0))
    assert differs([[noise(23, 14)]], tiling) == ""


def test_values_of_all_pixels_equal_the_released_processor():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert differs([[every]], Tiling(size_px=16)) == ""


# --- planted mistakes: the comparison above sees each of them -------------------------------------


def canvas_by_area(height_px, width_px, *, tiling):
    """The smallest canvas that holds the image, before any look at scales."""
    grids = canvases(tiling.max_tiles)
    holds = [grid for grid in grids if grid[0] * tiling.size_px >= height_px
             and grid[1] * tiling.size_px >= width_px] or grids
    return placed(*min(holds, key=math.prod), height_px, width_px, tiling)


def canvas_of_last_tie(height_px, width_px, *, tiling):
    """The largest of the canvases with the best scale."""
    at = place(height_px, width_px, tiling=tiling)

    def scale(grid):
        return min(grid[0] * tiling.size_px / height_px, grid[1] * tiling.size_px / width_px)

    best = [grid for grid in canvases(tiling.max_tiles) if scale(grid) == scale(
        (at.rows, at.columns))]
    return placed(*max(best, key=math.prod), height_px, width_px, tiling)


def canvas_of_largest_scale(height_px, width_px, *, tiling):
    """The canvas on which an image could be enlarged most."""
    grids = canvases(tiling.max_tiles)
    rows, columns = max(grids, key=lambda grid: min(grid[0] / height_px, grid[1] / width_px))
    return placed(rows, columns, height_px, width_px, tiling)


def width_first(height_px, width_px, *, tiling):
    """(width, height) where (height, width) is meant."""
    at = place(width_px, height_px, tiling=tiling)
    return placed(at.rows, at.columns, height_px, width_px, tiling)


def enlarged(height_px, width_px, *, tiling):
    """The image fills its canvas, also when it is smaller."""
    at = place(height_px, width_px, tiling=tiling)
    scale = min(at.rows * tiling.size_px / height_px, at.columns * tiling.size_px / width_px)
    return dataclasses.replace(at, height_px=max(1, int(height_px * scale)),
                               width_px=max(1, int(width_px * scale)))


def rounded(height_px, width_px, *, tiling):
    """Sizes rounded to the nearest pixel instead of down."""
    at = place(height_px, width_px, tiling=tiling)
    scale = max(at.height_px / height_px, at.width_px / width_px)
    return dataclasses.replace(
        at, height_px=max(1, min(round(height_px * scale), at.rows * tiling.size_px)),
        width_px=max(1, min(round(width_px * scale), at.columns * tiling.size_px)))


def id_from_zero(height_px, width_px, *, tiling):
    """Aspect ratio ids that begin with 0."""
    at = place(height_px, width_px, tiling=tiling)
    return dataclasses.replace(at, aspect_id=at.aspect_id - 1)


def id_too_high(height_px, width_px, *, tiling):
    """The next aspect ratio id, where there is one."""
    at = place(height_px, width_px, tiling=tiling)
    return dataclasses.replace(at, aspect_id=min(at.aspect_id + 1,
                                                 len(canvases(tiling.max_tiles))))


def placed(rows, columns, height_px, width_px, tiling):
    height, width = tiles._fitted(height_px, width_px, rows=rows, columns=columns,
                                  size_px=tiling.size_px)
    return Placement(rows=rows, columns=columns, height_px=height, width_px=width,
                     aspect_id=canvases(tiling.max_tiles).index((rows, columns)) + 1)


def bicubic(image, *, height_px, width_px):
    """Another filter."""
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BICUBIC))


def without_antialias(image, *, height_px, width_px):
    """Bilinear between the nearest four pixels, however much an image shrinks."""
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(whole, (height_px, width_px), mode="bilinear")
    return small[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def in_floats(image, *, height_px, width_px):
    """The same filter in floats, rounded once at the end; Pillow rounds after each direction."""
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(whole, (height_px, width_px), mode="bilinear",
                                            antialias=True)
    return small[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def reduced_first(image, *, height_px, width_px):
    """A fast first step by whole factors, as in thumbnails."""
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BILINEAR,
                                   reducing_gap=1.0))


def white_padding(pixels, *, rows, columns, size_px):
    """White where the image does not reach."""
    return 255 - cut(255 - pixels, rows=rows, columns=columns, size_px=size_px)


def centered(pixels, *, rows, columns, size_px):
    """The image in the middle of its canvas."""
    top = (rows * size_px - pixels.shape[0]) // 2
    left = (columns * size_px - pixels.shape[1]) // 2
    return cut(np.pad(pixels, ((top, 0), (left, 0), (0, 0))), rows=rows, columns=columns,
               size_px=size_px)


def by_columns(pixels, *, rows, columns, size_px):
    """The tiles column by column."""
    found = cut(pixels, rows=rows, columns=columns, size_px=size_px)
    return found.reshape(rows, columns, *found.shape[1:]).swapaxes(0, 1).reshape(found.shape)


def blue_first(pixels, *, rows, columns, size_px):
    """Colors in the order of OpenCV."""
    return cut(pixels, rows=rows, columns=columns, size_px=size_px)[:, ::-1]


def transposed(pixels, *, rows, columns, size_px):
    """Rows and columns of each tile exchanged."""
    return cut(pixels, rows=rows, columns=columns, size_px=size_px).swapaxes(2, 3)


def in_one_step(tiling):
    """(value - 255 mean) / (255 std): the same number, rounded elsewhere."""
    mean, std = (np.array(each, np.float32)[:, None] * np.float32(255)
                 for each in (tiling.mean, tiling.std))
    return (np.arange(256, dtype=np.float32) - mean) / std


def divided_by_255(tiling):
    """value / 255 in fp32, where the released processor multiplies by 1/255 in float64."""
    mean, std = (np.array(each, np.float32)[:, None] for each in (tiling.mean, tiling.std))
    return (np.arange(256, dtype=np.float32) * np.float32(1 / 255) - mean) / std


def deviation_first(tiling):
    """value / std - mean."""
    mean, std = (np.array(each, np.float32)[:, None] for each in (tiling.mean, tiling.std))
    return ((np.arange(256) / 255).astype(np.float32) / std - mean).astype(np.float32)


def in_float64(tiling):
    """Rounded to fp32 only at the end."""
    mean, std = (np.array(each)[:, None] for each in (tiling.mean, tiling.std))
    return ((np.arange(256) / 255 - mean) / std).astype(np.float32)


def defaults(tiling):
    """0.5 and 0.5, the defaults of the released class, which no released model uses."""
    return normalized_values(dataclasses.replace(tiling, mean=(0.5,) * 3, std=(0.5,) * 3))


def padded_after(values):
    """Padding that is 0 after normalization, not black: a black pixel shows it."""
    return functools.partial(np.where, np.arange(256) == 0, 0.0)(values).astype(np.float32)


def black_is_zero(tiling):
    """Padding of 0 after normalization instead of black before it."""
    return padded_after(normalized_values(tiling))


@functools.cache
def cases_for_mistakes():
    return [*random_cases(40, seed=1), ([[noise(24, 24)]], Tiling(size_px=12)),
            ([[noise(8, 70)]], Tiling(size_px=16))]


def is_seen():
    def fails(rows, tiling):
        try:
            return differs(rows, tiling) != ""
        except ValueError:
            return True

    return any(fails(*case) for case in cases_for_mistakes())


def test_without_a_planted_mistake_nothing_is_seen():
    assert not is_seen()


@pytest.mark.parametrize(("module", "name", "mistake"), [
    (tiles, "place", canvas_by_area), (tiles, "place", canvas_of_last_tie),
    (tiles, "place", canvas_of_largest_scale), (tiles, "place", width_first),
    (tiles, "place", enlarged), (tiles, "place", rounded), (tiles, "place", id_from_zero),
    (tiles, "place", id_too_high),
    (images, "resized", bicubic), (images, "resized", without_antialias),
    (images, "resized", in_floats), (images, "resized", reduced_first),
    (tiles, "cut", white_padding), (tiles, "cut", centered), (tiles, "cut", by_columns),
    (tiles, "cut", blue_first), (tiles, "cut", transposed),
    (tiles, "normalized_values", in_one_step), (tiles, "normalized_values", divided_by_255),
    (tiles, "normalized_values", deviation_first), (tiles, "normalized_values", in_float64),
    (tiles, "normalized_values", defaults), (tiles, "normalized_values", black_is_zero),
], ids=lambda value: value.__name__.rpartition(".")[2] if callable(value) else "")
def test_a_planted_mistake_is_seen(module, name, mistake, monkeypatch):
    cases_for_mistakes()
    monkeypatch.setattr(module, name, mistake)
    assert is_seen()


@pytest.mark.parametrize("rule", ["padding is masked", "mask is full"])
def test_a_mask_by_another_rule_is_seen(rule, monkeypatch):
    tile = torch.arange(4)
    monkeypatch.setattr(TiledImages, "tile_mask", property(
        lambda self: tile < self.n_tiles[..., None] if rule == "padding is masked"
        else torch.ones(*self.aspect_ids.shape, 4, dtype=torch.bool)))
    assert differs([[noise(9, 9), noise(9, 9)], [noise(9, 9)]], Tiling(size_px=12)) != ""


# --- canvas and size ------------------------------------------------------------------------------


def test_canvases_are_the_eight_of_the_released_models():
    assert canvases(4) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    assert canvases(1) == [(1, 1)]


@pytest.mark.parametrize(("size", "canvas", "new"), [
    ((200, 300), (1, 1), (373, 560)), ((1000, 500), (2, 1), (1000, 500)),
    ((1120, 1120), (2, 2), (1120, 1120)), ((3000, 500), (4, 1), (2240, 373)),
    ((500, 3000), (1, 4), (373, 2240)), ((600, 800), (2, 2), (600, 800)),
    ((1080, 1920), (2, 2), (630, 1120)), ((560, 561), (1, 2), (560, 561)),
    ((3000, 4000), (2, 2), (840, 1120)), ((1, 10_000), (1, 4), (1, 2240)),
    ((10_000, 1), (4, 1), (2240, 1)),
])
def test_known_sizes_get_their_known_canvas(size, canvas, new):
    at = place(*size, tiling=Tiling(size_px=560))
    assert ((at.rows, at.columns), (at.height_px, at.width_px)) == (canvas, new)
    assert canvases(4)[at.aspect_id - 1] == canvas


@given(height=SIZES, width=SIZES, size_px=st.integers(1, 600), max_tiles=st.integers(1, 9))
@example(height=1, width=5000, size_px=1, max_tiles=1)
def test_an_image_fits_its_canvas_and_keeps_its_shape(height, width, size_px, max_tiles):
    at = place(height, width, tiling=Tiling(size_px=size_px, max_tiles=max_tiles))
    assert at.rows * at.columns <= max_tiles
    assert 1 <= at.height_px <= at.rows * size_px
    assert 1 <= at.width_px <= at.columns * size_px
    scale = max(at.height_px / height, at.width_px / width)
    if 1 not in (at.height_px, at.width_px):  # an edge of less than a pixel becomes one
        assert abs(at.height_px - height * scale) < 1 + 1e-6
        assert abs(at.width_px - width * scale) < 1 + 1e-6
    # Enlarging stops where the image is one tile high or wide.
    assert scale <= 1 or at.height_px == size_px or at.width_px == size_px


@given(height=SIZES, width=SIZES, size_px=st.integers(1, 600))
def test_no_canvas_changes_an_image_less(height, width, size_px):
    at = place(height, width, tiling=Tiling(size_px=size_px))

    def scale(rows, columns):
        return min(rows * size_px / height, columns * size_px / width)

    chosen, others = scale(at.rows, at.columns), [scale(*grid) for grid in canvases(4)]
    assert not any(1 <= other < chosen for other in others)
    assert chosen >= 1 or chosen == max(others)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_image_without_pixels_has_no_place(size):
    with pytest.raises(ValueError, match=f"at least one pixel; got {size[0]} x {size[1]}"):
        place(*size, tiling=Tiling(size_px=8))


# --- tiles and batches ----------------------------------------------------------------------------


def test_tiles_put_together_again_are_the_image_on_black():
    image = noise(15, 27)
    found = cut(image, rows=2, columns=3, size_px=10)
    assert found.shape == (6, 3, 10, 10) and found.flags.c_contiguous
    lines = [np.concatenate(list(found[3 * row : 3 * row + 3]), axis=2) for row in range(2)]
    canvas = np.concatenate(lines, axis=1).transpose(1, 2, 0)
    assert np.array_equal(canvas[:15, :27], image)
    assert not canvas[15:].any() and not canvas[:, 27:].any()


def test_an_image_that_does_not_fit_its_canvas_is_refused():
    with pytest.raises(ValueError, match="1 x 2 tiles of 10 pixels .* at most 10 x 20; got 11 x 5"):
        cut(noise(11, 5), rows=1, columns=2, size_px=10)


def test_normalized_values_have_the_mean_and_deviation_that_are_given():
    values = normalized_values(Tiling(size_px=8))
    shares = values * np.array(STD)[:, None] + np.array(MEAN)[:, None]
    assert np.allclose(shares, np.arange(256) / 255, atol=1e-6)


def batch_of_tests():
    return [[noise(9, 40, 1), noise(50, 8, 2)], [], [noise(30, 30, 3)]], Tiling(size_px=12)


def test_rows_of_a_batch_equal_each_row_alone():
    rows, tiling = batch_of_tests()
    together = split(rows, tiling)
    assert together.pixels.shape == (3, 2, 4, 3, 12, 12)
    assert together.n_images.tolist() == [2, 0, 1]
    for b in (0, 2):
        alone = split([rows[b]], tiling)
        n = len(rows[b])
        assert torch.equal(together.pixels[b, :n], alone.pixels[0])
        assert torch.equal(together.aspect_ids[b, :n], alone.aspect_ids[0])
        assert torch.equal(together.tile_mask[b, :n], alone.tile_mask[0])
        assert not together.pixels[b, n:].any() and not together.aspect_ids[b, n:].any()


def test_rows_in_another_order_give_the_same_in_that_order():
    rows, tiling = batch_of_tests()
    order = [2, 0, 1]
    one, other = split(rows, tiling), split([rows[b] for b in order], tiling)
    assert torch.equal(one.pixels[order], other.pixels)
    assert torch.equal(one.aspect_ids[order], other.aspect_ids)


def test_a_padding_image_has_no_tiles_and_the_mask_of_one():
    rows, tiling = batch_of_tests()
    batch = split(rows, tiling)
    assert batch.aspect_ids[1].tolist() == [0, 0] and batch.n_tiles[1].tolist() == [0, 0]
    assert batch.tile_mask[1].tolist() == [[True, False, False, False]] * 2


def test_unused_tiles_are_zero_and_padding_inside_of_a_canvas_is_normalized_black():
    batch = split([[np.full((6, 20, 3), 255, np.uint8)]], Tiling(size_px=16))
    assert batch.n_tiles.tolist() == [[2]]
    assert not batch.pixels[0, 0, 2:].any()
    black = torch.from_numpy(normalized_values(Tiling(size_px=16))[:, 0])
    assert torch.equal(batch.pixels[0, 0, 1, :, -1, -1], black)


def test_transparency_is_what_the_caller_asks_for():
    clear = np.zeros((4, 4, 4), np.uint8)
    white, dropped = (split([[clear]], Tiling(size_px=4), transparency=rule).pixels[0, 0, 0]
                      for rule in ("white", "dropped"))
    values = torch.from_numpy(normalized_values(Tiling(size_px=4)))
    assert torch.equal(white[:, 0, 0], values[:, 255])
    assert torch.equal(dropped[:, 0, 0], values[:, 0])


def test_a_bad_image_is_named_by_row_and_number():
    with pytest.raises(ValueError, match="^image 2 of row 3 cannot be read: .*nothing .0 bytes"):
        split([[], [noise(2, 2)], [noise(2, 2), b""]], Tiling(size_px=4))


def test_a_bad_path_is_named_by_row_and_number(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="^image 1 of row 1 cannot be read: .*a.png cannot be"):
        split([[tmp_path / "a.png"]], Tiling(size_px=4))


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_a_batch_without_any_image_is_refused(rows):
    with pytest.raises(ValueError, match=f"needs at least one; got {len(rows)} rows without any"):
        split(rows, Tiling(size_px=4))


# In a process of its own: pytest would refuse wrong shapes and types before the library does.
SETUP = """
import contextlib, json, sys
import torch
from math import inf, nan
from llama_from_scratch.vision import TiledImages, Tiling, split
tiling = Tiling(size_px=4)
def tiled(shape=(1, 2, 4, 3, 8, 8), ids=((1, 0),), **more):
    return TiledImages(pixels=torch.zeros(shape), aspect_ids=torch.tensor(ids), **more)
"""
REFUSED = {
    "a size of zero": ("Tiling(size_px=0)", "size_px must be an int above 0; got 0"),
    "a size in floats": ("Tiling(size_px=56.0)", "size_px must be an int above 0; got 56.0"),
    "a claim as a number": ("Tiling(size_px=4, max_tiles=True)", "max_tiles must .* got True"),
    "two means": ("Tiling(size_px=4, mean=(0.5, 0.5))", r"mean must be three .* got \(0.5, 0.5\)"),
    "a mean of nan": ("Tiling(size_px=4, mean=(0.5, 0.5, nan))", "mean must be three finite"),
    "a list": ("Tiling(size_px=4, std=[0.5] * 3)", r"std must .* got \[0.5, 0.5, 0.5\]"),
    "a deviation of zero": ("Tiling(size_px=4, std=(0.5, 0.0, 0.5))", "above 0; got .0.5, 0.0, 0"),
    "an unknown field": ("Tiling(tile_size=4)", "Tiling has no field 'tile_size'"),
    "no field": ("Tiling()", "Tiling needs size_px"),
    "an image without a list": ("split(['a.png'], tiling)", "each row as a list of images; got"),
    "a path": ("split('a.png', tiling)", r"got 'a.png'. For one image: \[\[image\]\]"),
    "nothing": ("split(None, tiling)", "each row as a list of images; got None"),
    "an unknown key": ("tiled(masks=3)", "TiledImages has no field 'masks'"),
    "a missing key": ("TiledImages(pixels=torch.zeros(1, 1, 4, 3, 8, 8))", "needs aspect_ids"),
    "lists": ("TiledImages(pixels=[1.0], aspect_ids=[1])", "two tensors; got list and list"),
    "one axis less": ("tiled((2, 4, 3, 8, 8))", r"got \(2, 4, 3, 8, 8\) and \(1, 2\)"),
    "colors last": ("tiled((1, 2, 4, 8, 8, 3))", r"must be \(B, I, J, 3, px, px\)"),
    "tiles that are not square": ("tiled((1, 2, 4, 3, 8, 9))", "must be .B, I, J, 3, px, px"),
    "ids of another batch": ("tiled(ids=((1, 0), (1, 0)))", r"and \(2, 2\)"),
    "an empty axis": ("tiled((1, 2, 4, 3, 0, 0))", "no axis empty"),
    "ids in floats": ("tiled(ids=((1.0, 0.0),))", "aspect ids int64; got float32 and float32"),
    "pixels in bytes": ("TiledImages(pixels=torch.zeros(1, 1, 4, 3, 8, 8).byte(), "
                        "aspect_ids=torch.ones(1, 1).long())", "floats .* got uint8 and int64"),
    "an id above": ("tiled(ids=((9, 0),))", r"run from 0 \(padding\) to 8; got \[\[9, 0\]\]"),
    "an id of more tiles": ("tiled((1, 2, 2, 3, 8, 8), ids=((4, 0),))", "with 2 tiles.* to 3; got"),
    "an id below": ("tiled(ids=((-1, 0),))", r"got \[\[-1, 0\]\]"),
    "padding first": ("tiled(ids=((0, 1),))", r"images first and then padding.*got \[\[0, 1\]\]"),
}
RUN = """
said = {}
for name, code in json.load(sys.stdin).items():
    said[name] = "nothing was refused"
    try:
        exec(code)
    except ValueError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    done = subprocess.run([sys.executable, "-c", SETUP + RUN], capture_output=True, text=True,
                          input=json.dumps({name: code for name, (code, _) in REFUSED.items()}))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name, said):
    assert re.search(REFUSED[name][1], said[name]), said[name]

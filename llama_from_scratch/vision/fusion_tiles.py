"""Cuts images for Llama 4: a grid of up to 16 tiles, and a last tile that shows the whole image.

The grid is chosen by the rule of Llama 3.2 Vision (`tiles`). An image with more than one tile also
gets a tile to which the whole image is resized, without regard to its aspect ratio. Tiles of all
images follow each other, and there is no tile of padding: how many an image has is part of the same
record as its pixels, so that its places in the text cannot disagree with them.

Letters: B batch, C colors, D text width. px is the edge of a tile in pixels, and a tile has n
tokens. Notebook 24. Llama 4. Source: llama-models, models/llama4/preprocess.py.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from llama_from_scratch import foreign
from llama_from_scratch.config import record
from llama_from_scratch.vision import images
from llama_from_scratch.vision.image_layout import Grid, n_tiles
from llama_from_scratch.vision.shown_images import ShownImages, digest
from llama_from_scratch.vision.tiles import (
    GridTiling,
    check_rows,
    cut,
    normalized_values,
    place,
)

GridRows = tuple[tuple[Grid, ...], ...]
"""For each row of a batch the grids of its images."""


@record
class GridImages(ShownImages):
    """The images of a batch as Llama 4's encoder reads them.

    `pixels`: normalized; the tiles of row 0, image by image, then the tiles of row 1, and so on.
    `grids`: of each image of each row, in the same order.
    """

    pixels: Float32[Tensor, "tiles 3 px px"]
    grids: GridRows

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
            raise ValueError("GridImages needs pixels as a tensor of floats; got "
                             f"{foreign.shown(pixels)}")
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
            raise ValueError("pixels must be (tiles, 3, px, px), the tiles of all images; got "
                             f"{tuple(pixels.shape)}")
        _check_grids(self.grids, n_given=len(pixels))

    @property
    def n_images(self) -> Int64[Tensor, "B"]:
        """Returns how many images each row has."""
        return torch.tensor([len(row) for row in self.grids])

    def after(self, n_images: int) -> "GridImages":
        """Returns the images of each row without its first `n_images`."""
        kept = _tiles_after(self.grids, n_images)
        return GridImages(pixels=self.pixels[kept],
                          grids=tuple(row[n_images:] for row in self.grids))

    def digests(self) -> list[bytes]:
        """Returns a digest of each image of the first row, from its pixels."""
        return _digests(self.pixels, self.grids[0], kind="tiles")


@record
class EncodedGridImages(ShownImages):
    """The images of a batch as vectors for the text. `grids`: as in `GridImages`.

    `states`: of each token of each tile, in the order of their places in the text.
    """

    states: Float[Tensor, "tiles n D"]
    grids: GridRows

    def __post_init__(self) -> None:
        _check_grids(self.grids, n_given=len(self.states))

    @property
    def n_images(self) -> Int64[Tensor, "B"]:
        """Returns how many images each row has."""
        return torch.tensor([len(row) for row in self.grids])

    def after(self, n_images: int) -> "EncodedGridImages":
        """Returns the images of each row without its first `n_images`."""
        kept = _tiles_after(self.grids, n_images)
        return EncodedGridImages(states=self.states[kept],
                                 grids=tuple(row[n_images:] for row in self.grids))

    def digests(self) -> list[bytes]:
        """Returns a digest of each image of the first row, from its states."""
        return _digests(self.states, self.grids[0], kind="states")

    def rows(self, rows: Sequence[int]) -> "EncodedGridImages":
        """Returns these rows; a row may come several times, such as for several questions."""
        ends = torch.tensor([0, *(sum(map(n_tiles, row)) for row in self.grids)]).cumsum(0).tolist()
        kept = [tile for row in rows for tile in range(ends[row], ends[row + 1])]
        return EncodedGridImages(states=self.states[kept],
                                 grids=tuple(self.grids[row] for row in rows))


def split_grids(
    rows: Sequence[Sequence[object]], tiling: GridTiling, *, transparency: str = "white"
) -> GridImages:
    """Returns the images of each row of a batch as tiles.

    `rows`: for each row a list of images, also an empty one. An image is anything that
    `images.decoded` accepts, which also explains `transparency`. One image is decoded at a time.
    Raises ValueError if there is no image at all, and names row and image of one that is bad.
    """
    if not any(map(len, check_rows(rows))):
        raise ValueError(f"a batch of images needs at least one; got {len(rows)} rows without "
                         "any. Leave the images out for a batch of text")
    pixels, grids = [], []
    for b, row in enumerate(rows):
        grids.append([])
        for i, source in enumerate(row):
            with foreign.naming(f"image {i + 1} of row {b + 1}"):
                image = images.decoded(source, transparency=transparency)
            grid, tiles = tiles_of(image, tiling)
            pixels.append(_normalized(tiles, tiling))
            grids[-1].append(grid)
    return GridImages(pixels=torch.cat(pixels), grids=tuple(map(tuple, grids)))


def grid_of(image: object, tiling: GridTiling) -> Grid:
    """Returns the rows and columns of tiles that a Pillow image gets."""
    at = place(image.height, image.width, tiling=tiling, fills_canvas=tiling.fills_canvas)
    return at.rows, at.columns


def tiles_of(
    image: object, tiling: GridTiling
) -> tuple[Grid, UInt8[np.ndarray, "tiles 3 px px"]]:
    """Returns the grid of a Pillow image in RGB, and its tiles row by row, the whole image last."""
    at = place(image.height, image.width, tiling=tiling, fills_canvas=tiling.fills_canvas)
    fitted = images.resized(image, height_px=at.height_px, width_px=at.width_px)
    tiles = cut(fitted, rows=at.rows, columns=at.columns, size_px=tiling.size_px)
    if len(tiles) > 1:
        whole = images.resized(image, height_px=tiling.size_px, width_px=tiling.size_px)
        tiles = np.concatenate([tiles, whole.transpose(2, 0, 1)[None]])
    return (at.rows, at.columns), tiles


def _normalized(
    tiles: UInt8[np.ndarray, "tiles 3 px px"], tiling: GridTiling
) -> Float32[Tensor, "tiles 3 px px"]:
    values = normalized_values(tiling)
    return torch.from_numpy(np.stack(
        [values[color][tiles[:, color]] for color in range(len(values))], axis=1))


def _check_grids(grids: object, *, n_given: int) -> None:
    if not isinstance(grids, tuple) or not all(
            isinstance(row, tuple) and all(map(_is_grid, row)) for row in grids):
        raise ValueError("the grids of images must be a tuple of rows, and each row a tuple with "
                         f"(rows, columns) of each image; got {foreign.shown(grids)}")
    if (n := sum(n_tiles(grid) for row in grids for grid in row)) != n_given:
        raise ValueError(f"images with the grids {foreign.shown(grids)} have {n} tiles, of which "
                         f"each needs its own; got {n_given} tiles")


def _is_grid(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2
            and all(type(edge) is int and edge > 0 for edge in value))


def _tiles_after(grids: GridRows, n_images: int) -> list[int]:
    """Returns the numbers of the tiles of all images but the first `n_images` of each row."""
    kept, first = [], 0
    for row in grids:
        for i, grid in enumerate(row):
            kept += range(first, first + n_tiles(grid)) if i >= n_images else []
            first += n_tiles(grid)
    return kept


def _digests(
    values: Float[Tensor, "tiles ..."], grids: Sequence[Grid], *, kind: str
) -> list[bytes]:
    pieces = values[: sum(map(n_tiles, grids))].split(list(map(n_tiles, grids)))
    return [digest(f"{kind} of {rows} x {columns}", piece)
            for (rows, columns), piece in zip(grids, pieces, strict=True)]

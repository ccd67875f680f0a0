"""The encoder's tables of places: one entry for each tile of each canvas, or one grid for all.

Our tables and Hugging Face's have a row for each aspect ratio id, with an entry for each of J
tiles. Meta's have one grid of J x J entries: a tile in row r and column c of any canvas gets entry
[r, c]. A grid can be expanded to rows. Rows can be compacted to a grid only if all canvases agree,
as in every released model; training the rows apart changes that.

J tiles of an image, n entries of a tile (1, or its tokens), W vision width. Notebook 21.
Source: llama-models, models/llama3/multimodal/utils.py.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import record


@record
class Grid:
    """The shape of a table of places: `n_entries` of `width` for each tile of each canvas.

    `aspect_ratios`, `max_tiles`: as in `VisionConfig`.
    """

    aspect_ratios: tuple[tuple[int, int], ...]
    max_tiles: int
    n_entries: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the one grid, (J, J, n, W)."""
        return self.max_tiles, self.max_tiles, self.n_entries, self.width


def expanded(table: Float[Tensor, "J J n W"], grid: Grid) -> Float[Tensor, "ids entries"]:
    """Returns the rows of a grid: row i has the entries of canvas i, tile by tile, in row order.

    Entries of unused tiles, and row 0, of padding, are 0.
    """
    J, _, n, W = grid.shape
    rows = table.new_zeros(len(grid.aspect_ratios) + 1, J, n, W)
    for i, (height, width) in enumerate(grid.aspect_ratios, start=1):
        rows[i, : height * width] = table[:height, :width].flatten(0, 1)
    return rows.flatten(1)


def compacted(rows: Float[Tensor, "ids entries"], grid: Grid) -> Float[Tensor, "J J n W"]:
    """Returns the grid that `expanded` turns into these rows; entries of no canvas are 0.

    Raises ValueError if there is none, because two canvases have different entries for a place, or
    an entry of an unused tile is not 0.
    """
    table = shared(rows, grid)
    if torch.equal(expanded(table, grid), rows):
        return table
    wrong = (expanded(table, grid) != rows).unflatten(1, (grid.max_tiles, -1)).any(-1)
    row, tile = (int(place) for place in wrong.nonzero()[0])
    raise ValueError("one grid of places serves all canvases in Meta's layout, with 0 for tiles "
                     f"that a canvas does not use; here tile {tile} of aspect ratio id {row} has "
                     "other values. Write another format, or make the tables alike with "
                     "vision.share_places(model), which changes what the model computes")


def shared(rows: Float[Tensor, "ids entries"], grid: Grid) -> Float[Tensor, "J J n W"]:
    """Returns the grid closest to the rows: each entry is the mean over the canvases that have it.

    Where all of them agree, it is exactly their value.
    """
    J, _, n, W = grid.shape
    rows = rows.unflatten(1, (J, n, W))
    first, total = rows.new_zeros(grid.shape), rows.new_zeros(grid.shape, dtype=torch.float64)
    count = rows.new_zeros(J, J, 1, 1)
    for i, (height, width) in reversed(list(enumerate(grid.aspect_ratios, start=1))):
        own = rows[i, : height * width].unflatten(0, (height, width))
        first[:height, :width] = own
        total[:height, :width] += own
        count[:height, :width] += 1
    mean = (total / count.clamp(min=1)).to(rows.dtype)
    is_equal = torch.ones(grid.shape, dtype=torch.bool, device=rows.device)
    for i, (height, width) in enumerate(grid.aspect_ratios, start=1):
        own = rows[i, : height * width].unflatten(0, (height, width))
        is_equal[:height, :width] &= own == first[:height, :width]
    return torch.where(is_equal, first, mean)


def resized(table: Float[Tensor, "rows columns old W"], grid: Grid) -> Float[Tensor, "J J n W"]:
    """Returns a grid of another size, fitted to this one by bilinear interpolation.

    The corners keep their values, as in Meta's code, which does this when it loads a model for
    tiles of another size. The first of a tile's several entries is its class token's: these are
    interpolated among tiles, and the entries of patches among all patches of the canvas.
    """
    J, _, n, W = grid.shape
    if n == 1:
        return _interpolated(table.flatten(2), J).unflatten(2, (1, W))
    old, new = _edge(table.shape[2] - 1), _edge(n - 1)
    classes = _interpolated(table[:, :, 0], J)
    patches = table[:, :, 1:].unflatten(2, (old, old)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    patches = _interpolated(patches, J * new).unflatten(1, (J, new)).unflatten(0, (J, new))
    return torch.cat([classes[:, :, None], patches.transpose(1, 2).flatten(2, 3)], dim=2)


def resized_in_tile(table: Float[Tensor, "old W"], n_tokens: int) -> Float[Tensor, "n W"]:
    """Returns the places in one tile, class token first, fitted to another number of patches."""
    old, new = _edge(len(table) - 1), _edge(n_tokens - 1)
    patches = _interpolated(table[1:].unflatten(0, (old, old)), new)
    return torch.cat([table[:1], patches.flatten(0, 1)])


def _interpolated(image: Float[Tensor, "old old W"], edge: int) -> Float[Tensor, "new new W"]:
    moved = image.float().permute(2, 0, 1)[None]
    fitted = F.interpolate(moved, size=(edge, edge), mode="bilinear", align_corners=True)
    return fitted[0].permute(1, 2, 0).to(image.dtype)


def _edge(n_patches: int) -> int:
    """Returns the patches along the edge of a tile. Raises ValueError if a tile is no square."""
    edge = math.isqrt(max(n_patches, 0))
    if edge < 1 or edge * edge != n_patches:
        raise ValueError("a tile is a square of patches, after the entry of its class token; got "
                         f"{n_patches} patches")
    return edge


def can_be_resized(shape: Sequence[int], grid: Grid) -> bool:
    """Returns whether a table of this shape is a grid of the same kind and of another size."""
    if len(shape) != 4 or shape[0] != shape[1] or not shape[0] or shape[3] != grid.width:
        return False
    is_square = math.isqrt(max(shape[2] - 1, 0)) ** 2 == shape[2] - 1
    return shape[2] == 1 if grid.n_entries == 1 else shape[2] > 1 and is_square

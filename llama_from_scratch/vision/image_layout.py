"""How an image is written in the text of Llama 4: the ids that stand for its tiles, in order.

A tile is a run of patch ids, one for each of its n tokens. An image of one tile is written

    image_start image PATCHES image_end

and an image of several tiles has them row by row, and the tile of the whole image at the end:

    image_start
        PATCHES tile_x_separator PATCHES tile_y_separator      a row of two tiles
        PATCHES tile_x_separator PATCHES tile_y_separator      and the next one
        image PATCHES
    image_end

In a prompt, one id `image` stands for all this. `written_out` puts it in its place.

Notebook 24. Llama 4. Source: llama-models, models/llama4/chat_format.py.
"""

from collections.abc import Sequence

from llama_from_scratch.config import ImageIds

Grid = tuple[int, int]
"""The rows and columns of tiles of one image."""


def n_tiles(grid: Grid) -> int:
    """Returns how many tiles an image has: its grid, and the whole image if that is more than one.
    """
    n = grid[0] * grid[1]
    return n + 1 if n > 1 else 1


def layout(grid: Grid, *, ids: ImageIds, n_tokens: int) -> list[int]:
    """Returns the ids of an image with `n_tokens` tokens in each tile."""
    rows, columns = grid
    tile = [ids.patch] * n_tokens
    row = [*tile, *(columns - 1) * [ids.tile_x_separator, *tile], ids.tile_y_separator]
    grid_of_tiles = rows * row if rows * columns > 1 else []
    return [ids.image_start, *grid_of_tiles, ids.image, *tile, ids.image_end]


def written_out(
    prompt: Sequence[int], grids: Sequence[Grid], *, ids: ImageIds, n_tokens: int, number: int = 0
) -> list[int]:
    """Returns a prompt in which each lone id `image` is replaced by the ids of its image.

    An `image` before a patch belongs to an image that is written out already, and stays.
    `number`: of the prompt, for an error message.
    Raises ValueError if the prompt has more images than `grids`, or fewer.
    """
    places = [i for i, token in enumerate(prompt) if token == ids.image]
    if len(places) != len(grids):
        raise ValueError(f"a prompt has one id {ids.image} in place of each of its images; prompt "
                         f"{number} has {len(places)} of these ids and {len(grids)} images. Give "
                         "as many images as ids")
    out, last = [], 0
    for place, grid in zip(places, grids, strict=True):
        if list(prompt[place + 1 : place + 2]) != [ids.patch]:
            out += [*prompt[last:place], *layout(grid, ids=ids, n_tokens=n_tokens)]
            last = place + 1
    return [*out, *prompt[last:]]

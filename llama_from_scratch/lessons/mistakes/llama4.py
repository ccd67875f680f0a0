"""Common mistakes of readers in chapter 24."""

import math

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: bytes of a forgetful cache ----------------------------------------------------------------


@listed("24.1", of="cache_bytes")
def always_a_whole_chunk(
    n_tokens: int, n_layers: int, every: int, chunk_size: int, n_bytes: int
) -> int:
    """a layer with chunks counts a whole chunk, also if the text is shorter"""
    n_far = n_layers // every
    return n_bytes * (n_far * n_tokens + (n_layers - n_far) * chunk_size)


@listed("24.1", of="cache_bytes")
def nothing_forgotten(
    n_tokens: int, n_layers: int, every: int, chunk_size: int, n_bytes: int
) -> int:
    """all layers keep all tokens: those with chunks may forget"""
    return n_bytes * n_layers * n_tokens


@listed("24.1", of="cache_bytes")
def kinds_exchanged(
    n_tokens: int, n_layers: int, every: int, chunk_size: int, n_bytes: int
) -> int:
    """every few layers one has chunks: it is the other way round, and one keeps everything"""
    n_near = n_layers // every
    return n_bytes * ((n_layers - n_near) * n_tokens + n_near * min(n_tokens, chunk_size))


@listed("24.1", of="cache_bytes")
def all_in_chunks(
    n_tokens: int, n_layers: int, every: int, chunk_size: int, n_bytes: int
) -> int:
    """no layer keeps more than a chunk: every few layers one keeps everything"""
    return n_bytes * n_layers * min(n_tokens, chunk_size)


# --- 2: what a layer with chunks still needs ------------------------------------------------------


@listed("24.2", of="still_needed")
def as_a_window(n_read: int, chunk_size: int) -> int:
    """the last tokens up to the size of a chunk: that is a sliding window, without borders"""
    return min(n_read, chunk_size)


@listed("24.2", of="still_needed")
def left_in_the_chunk(n_read: int, chunk_size: int) -> int:
    """the tokens that are missing until the next border, and not those since the last one"""
    return -n_read % chunk_size


@listed("24.2", of="still_needed")
def chunk_of_the_last_token(n_read: int, chunk_size: int) -> int:
    """the chunk of the last token that was read: the next token may begin another one"""
    return (n_read - 1) % chunk_size + 1


@listed("24.2", of="still_needed")
def with_the_next_token(n_read: int, chunk_size: int) -> int:
    """the next token itself is counted, which has not been read"""
    return n_read % chunk_size + 1


# --- 3: pixel shuffle -----------------------------------------------------------------------------


def _squares(x_IPW: Tensor, edge: int) -> Tensor:
    tiles, n_patches, width = x_IPW.shape
    n = math.isqrt(n_patches) // edge
    return x_IPW.reshape(tiles, n, edge, n, edge, width)


@listed("24.3", of="pixel_shuffle")
def neighbors_in_the_list(x_IPW: Tensor, edge: int) -> Tensor:
    """patches that follow each other in the list are joined: neighbors are also in the next row"""
    tiles, n_patches, width = x_IPW.shape
    return x_IPW.reshape(tiles, n_patches // edge**2, edge**2 * width)


@listed("24.3", of="pixel_shuffle")
def column_by_column(x_IPW: Tensor, edge: int) -> Tensor:
    """the patches of a square are joined column by column"""
    squares = _squares(x_IPW, edge)
    return squares.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)


@listed("24.3", of="pixel_shuffle")
def averaged(x_IPW: Tensor, edge: int) -> Tensor:
    """the patches of a square are averaged: they must stay side by side"""
    return _squares(x_IPW, edge).mean((2, 4)).flatten(1, 2)


@listed("24.3", of="pixel_shuffle")
def squares_column_by_column(x_IPW: Tensor, edge: int) -> Tensor:
    """the squares follow each other column by column"""
    return _squares(x_IPW, edge).permute(0, 3, 1, 2, 4, 5).flatten(3).flatten(1, 2)


@listed("24.3", of="pixel_shuffle")
def channels_interleaved(x_IPW: Tensor, edge: int) -> Tensor:
    """the numbers of the patches take turns: each patch must stay in one piece"""
    squares = _squares(x_IPW, edge).transpose(2, 3).flatten(3, 4)
    return squares.transpose(-1, -2).flatten(3).flatten(1, 2)


# --- 4: the words of an image ---------------------------------------------------------------------


def _words(
    rows: int, columns: int, n_tokens: int, *, last_x: bool = False, last_y: bool = True,
    has_whole: bool = True, grid_of_one: bool = False, whole_first: bool = False,
) -> list[str]:
    tile, grid = ["patch"] * n_tokens, []
    for row in range(rows if grid_of_one or rows * columns > 1 else 0):
        for column in range(columns):
            grid += tile
            if column < columns - 1 or last_x:
                grid.append("tile_x_separator")
        if row < rows - 1 or last_y:
            grid.append("tile_y_separator")
    whole = ["image", *tile] if has_whole or not grid else ["image"]
    parts = (whole, grid) if whole_first else (grid, whole)
    return ["image_start", *parts[0], *parts[1], "image_end"]


@listed("24.4", of="image_words")
def separator_after_each_tile(rows: int, columns: int, n_tokens: int) -> list[str]:
    """a tile_x_separator also comes after the last tile of a row: it is only between tiles"""
    return _words(rows, columns, n_tokens, last_x=True)


@listed("24.4", of="image_words")
def no_end_of_the_last_row(rows: int, columns: int, n_tokens: int) -> list[str]:
    """the last row has no tile_y_separator: it comes after each row"""
    return _words(rows, columns, n_tokens, last_y=False)


@listed("24.4", of="image_words")
def without_the_whole_image(rows: int, columns: int, n_tokens: int) -> list[str]:
    """the tile that shows the whole image is left out"""
    return _words(rows, columns, n_tokens, has_whole=False)


@listed("24.4", of="image_words")
def one_tile_twice(rows: int, columns: int, n_tokens: int) -> list[str]:
    """an image of one tile gets a grid as well, so its tile comes twice"""
    return _words(rows, columns, n_tokens, grid_of_one=True)


@listed("24.4", of="image_words")
def whole_image_first(rows: int, columns: int, n_tokens: int) -> list[str]:
    """the whole image comes before the grid: it comes last"""
    return _words(rows, columns, n_tokens, whole_first=True)


# --- 5: how queries grow --------------------------------------------------------------------------


@listed("24.5", of="growth")
def counted_from_0(position: int, floor: int, strength: float) -> float:
    """the position is counted from 0 in the quotient: the formula adds 1"""
    return 1 + strength * math.log(1 + position // floor)


@listed("24.5", of="growth")
def not_rounded_down(position: int, floor: int, strength: float) -> float:
    """the quotient is not rounded down"""
    return 1 + strength * math.log(1 + (position + 1) / floor)


@listed("24.5", of="growth")
def other_logarithm(position: int, floor: int, strength: float) -> float:
    """the logarithm has base 10: it must be the natural one"""
    return 1 + strength * math.log10(1 + (position + 1) // floor)


@listed("24.5", of="growth")
def without_the_one(position: int, floor: int, strength: float) -> float:
    """the 1 before the sum is left out, so that early queries become 0"""
    return strength * math.log(1 + (position + 1) // floor)


@listed("24.5", of="growth")
def never_below_the_floor(position: int, floor: int, strength: float) -> float:
    """the 1 in the logarithm is left out, and the quotient is at least 1 instead"""
    return 1 + strength * math.log(max(1, (position + 1) // floor))

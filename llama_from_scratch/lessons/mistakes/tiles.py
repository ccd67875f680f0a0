"""Mistakes that readers make in chapter 20."""

import math
from collections.abc import Sequence

import numpy as np

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.vision.tiles import MEAN, STD, Tiling, canvases, place

listed = Listed()

_TOKENS_OF_TILE = 40 * 40 + 1


# --- 1: the tokens of a batch ---------------------------------------------------------------------


def _tile_counts(aspect_ids: Sequence[Sequence[int]]) -> list[int]:
    return [math.prod(canvases(4)[each - 1]) for row in aspect_ids for each in row if each]


@listed("20.1", of="n_tokens")
def without_class_tokens(aspect_ids: Sequence[Sequence[int]]) -> int:
    """the class tokens are not counted: each tile has one in addition to its patches"""
    return sum(_tile_counts(aspect_ids)) * 40 * 40


@listed("20.1", of="n_tokens")
def one_class_token_per_image(aspect_ids: Sequence[Sequence[int]]) -> int:
    """one class token is counted for each image: each tile has its own"""
    counts = _tile_counts(aspect_ids)
    return sum(counts) * 40 * 40 + len(counts)


@listed("20.1", of="n_tokens")
def ids_from_zero(aspect_ids: Sequence[Sequence[int]]) -> int:
    """the id itself is the place in the list: ids count from 1, because 0 is padding"""
    return sum(math.prod(canvases(4)[each]) for row in aspect_ids
               for each in row) * _TOKENS_OF_TILE


@listed("20.1", of="n_tokens")
def padding_has_a_tile(aspect_ids: Sequence[Sequence[int]]) -> int:
    """an image of padding is counted with one tile: the mask has a 1 there, but there is no tile"""
    n_padding = sum(not each for row in aspect_ids for each in row)
    return (sum(_tile_counts(aspect_ids)) + n_padding) * _TOKENS_OF_TILE


@listed("20.1", of="n_tokens")
def all_slots(aspect_ids: Sequence[Sequence[int]]) -> int:
    """all four slots of each image are counted: the task asks for the tiles"""
    return sum(4 for row in aspect_ids for _ in row) * _TOKENS_OF_TILE


@listed("20.1", of="n_tokens")
def patches_along_one_edge(aspect_ids: Sequence[Sequence[int]]) -> int:
    """the patches along one edge are counted: a tile has 40 rows of 40 patches"""
    return sum(_tile_counts(aspect_ids)) * (40 + 1)


@listed("20.1", of="n_tokens")
def id_as_tiles(aspect_ids: Sequence[Sequence[int]]) -> int:
    """the id is taken as the number of tiles: it is the place of the canvas in the list"""
    return sum(map(sum, aspect_ids)) * _TOKENS_OF_TILE


# --- 2: the canvas by division --------------------------------------------------------------------


Grid = tuple[int, int] | None


def _if_small(rows: int, columns: int) -> Grid:
    return (rows, columns) if rows * columns <= 4 else None


@listed("20.2", of="canvas_by_division")
def divided_down(height: int, width: int, px: int) -> Grid:
    """the division is rounded down: what is left over needs a tile, too"""
    return _if_small(max(1, height // px), max(1, width // px))


@listed("20.2", of="canvas_by_division")
def divided_to_nearest(height: int, width: int, px: int) -> Grid:
    """the division is rounded to the nearest number: what is left over always needs a tile"""
    return _if_small(max(1, round(height / px)), max(1, round(width / px)))


@listed("20.2", of="canvas_by_division")
def always_one_more(height: int, width: int, px: int) -> Grid:
    """one is added to the division rounded down: an edge of exactly one tile needs only one"""
    return _if_small(height // px + 1, width // px + 1)


@listed("20.2", of="canvas_by_division")
def columns_first(height: int, width: int, px: int) -> Grid:
    """rows and columns are exchanged: the height decides the rows, and rows come first"""
    return _if_small(-(-width // px), -(-height // px))


@listed("20.2", of="canvas_by_division")
def each_edge_up_to_four(height: int, width: int, px: int) -> Grid:
    """each edge may have four tiles: the limit is four tiles in all, rows × columns"""
    rows, columns = -(-height // px), -(-width // px)
    return (rows, columns) if max(rows, columns) <= 4 else None


@listed("20.2", of="canvas_by_division")
def by_number_of_pixels(height: int, width: int, px: int) -> Grid:
    """only the area decides: a canvas must be high and wide enough, not only large enough"""
    n_tiles = -(-height * width // px**2)
    return (1, n_tiles) if n_tiles <= 4 else None


@listed("20.2", of="canvas_by_division")
def never_none(height: int, width: int, px: int) -> Grid:
    """a canvas is returned for every image: the task asks for None if there would be more tiles"""
    return -(-height // px), -(-width // px)


# --- 3: tiles become a picture again --------------------------------------------------------------


def _pixels(tiles: np.ndarray) -> np.ndarray:
    return (_shares(tiles) * 255).round().astype(np.uint8)


def _shares(tiles: np.ndarray) -> np.ndarray:
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    return tiles * std + mean


def _joined(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    px = pixels.shape[-1]
    grid = pixels.reshape(rows, columns, 3, px, px).transpose(0, 3, 1, 4, 2)
    return grid.reshape(rows * px, columns * px, 3)


@listed("20.3", of="picture_again")
def columns_before_rows(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """the tiles are placed column by column: they come row by row"""
    px = tiles.shape[-1]
    grid = _pixels(tiles).reshape(columns, rows, 3, px, px).transpose(1, 3, 0, 4, 2)
    return grid.reshape(rows * px, columns * px, 3)


@listed("20.3", of="picture_again")
def rows_and_columns_exchanged(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """rows and columns are exchanged"""
    return _joined(_pixels(tiles), columns, rows)


@listed("20.3", of="picture_again")
def axes_not_moved(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """the tiles are only reshaped: without moving axes, a row of pixels is not in one line"""
    px = tiles.shape[-1]
    return _pixels(tiles).reshape(rows * px, columns * px, 3)


@listed("20.3", of="picture_again")
def turned_tiles(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """x and y are exchanged in each tile: the last axis is x"""
    return _joined(_pixels(tiles).transpose(0, 1, 3, 2), rows, columns)


@listed("20.3", of="picture_again")
def cut_off(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """the values are cut off instead of rounded, so some are one too small"""
    return _joined((_shares(tiles) * 255).astype(np.uint8), rows, columns)


@listed("20.3", of="picture_again")
def mean_added_first(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """the mean is added before the deviation is multiplied: undo the last step first"""
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    pixels = ((tiles + mean) * std * 255).round().clip(0, 255).astype(np.uint8)
    return _joined(pixels, rows, columns)


@listed("20.3", of="picture_again")
def mean_and_deviation_exchanged(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """mean and standard deviation are exchanged"""
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
    pixels = ((tiles * mean + std) * 255).round().clip(0, 255).astype(np.uint8)
    return _joined(pixels, rows, columns)


@listed("20.3", of="picture_again")
def shares_not_multiplied(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """the values are not multiplied by 255, so all pixels are 0 or 1"""
    return _joined(_shares(tiles).round().astype(np.uint8), rows, columns)


# --- 4: where a pixel is seen ---------------------------------------------------------------------


def _found(
    y: float, x: float, height: int, width: int, px: int, *, first: int = 0,
    is_column_major: bool = False,
) -> tuple[int, int, int]:
    at = place(height, width, tiling=Tiling(size_px=px))
    row, y = divmod(math.floor(y), px)
    column, x = divmod(math.floor(x), px)
    tile = column * at.rows + row if is_column_major else row * at.columns + column
    return tile + first, y, x


def _moved(y: float, x: float, height: int, width: int, px: int) -> tuple[float, float]:
    at = place(height, width, tiling=Tiling(size_px=px))
    return (y + 0.5) * at.height_px / height, (x + 0.5) * at.width_px / width


@listed("20.4", of="place_of")
def not_scaled(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """the place is not scaled: a large image shrinks before it is cut"""
    return _found(y, x, height, width, px)


@listed("20.4", of="place_of")
def tiles_column_by_column(
    y: int, x: int, height: int, width: int, px: int
) -> tuple[int, int, int]:
    """the tiles are counted column by column: they are counted row by row"""
    return _found(*_moved(y, x, height, width, px), height, width, px, is_column_major=True)


@listed("20.4", of="place_of")
def tiles_from_one(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """the tiles are counted from 1"""
    return _found(*_moved(y, x, height, width, px), height, width, px, first=1)


@listed("20.4", of="place_of")
def place_on_the_canvas(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """y and x are places on the canvas: the task asks for the place in the tile"""
    new_y, new_x = _moved(y, x, height, width, px)
    return _found(new_y, new_x, height, width, px)[0], math.floor(new_y), math.floor(new_x)


@listed("20.4", of="place_of")
def y_and_x_exchanged(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """y and x are exchanged in the answer"""
    tile, new_y, new_x = _found(*_moved(y, x, height, width, px), height, width, px)
    return tile, new_x, new_y


@listed("20.4", of="place_of")
def rounded_to_nearest(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """the place is rounded to the nearest number instead of down"""
    new_y, new_x = _moved(y, x, height, width, px)
    return _found(round(new_y), round(new_x), height, width, px)


@listed("20.4", of="place_of")
def scaled_to_the_canvas(y: int, x: int, height: int, width: int, px: int) -> tuple[int, int, int]:
    """the image is scaled to the whole canvas: it keeps its shape, and the rest is black"""
    at = place(height, width, tiling=Tiling(size_px=px))
    return _found((y + 0.5) * at.rows * px / height, (x + 0.5) * at.columns * px / width, height,
                  width, px)

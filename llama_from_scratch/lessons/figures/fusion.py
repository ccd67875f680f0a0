"""Draws how an image gets places in a text: its tiles as tokens, and the patches of a tile.

Notebook 24.
"""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from llama_from_scratch.config import TileEncoderConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE, PINK, TINTS
from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.vision.fusion_encoder import places_in_tile, shuffled
from llama_from_scratch.vision.tiles import GridTiling, place

_EDGE, _STEP = 0.42, 0.62
_MARK, _TILE, _WHOLE, _SEPARATOR = TINTS[1], TINTS[0], TINTS[2], TINTS[4]
_MOST_COLUMNS = 5


def image_text(rows: int, columns: int, *, n_tokens: int) -> Figure:
    """Draws an image of `rows` x `columns` tiles as a list of tokens, a line for each row of tiles.

    `n_tokens`: of each tile. Raises ValueError for more than five columns of tiles.

    Example: `fusion.image_text(2, 3, n_tokens=144)`
    """
    if columns > _MOST_COLUMNS:
        raise ValueError(f"at most {_MOST_COLUMNS} columns of tiles are drawn; got {columns}")
    drawing = Drawing(f"An image of {rows} × {columns} tile{'s' * (rows * columns > 1)}, as tokens "
                      "of the text")
    has_grid = rows * columns > 1
    y, number, n_all = 0.3, 0, 0

    def put(words: str, x: float, color: str) -> float:
        """Adds a box whose left edge is `x`, and returns where the next one begins."""
        nonlocal n_all
        width = Drawing("").cell(words, (0.0, 0.0)).width
        box = drawing.cell(words, (x + width / 2, y), color=color, height=0.46)
        n_all += n_tokens if "×" in words else 1
        return box.right[0] + 0.05

    x = put("image\nstart", 0.3, _MARK)
    begin = x
    for _ in range(rows if has_grid else 0):
        x = begin
        for column in range(columns):
            x = put(f"tile {number}\n{n_tokens} × patch", x, _TILE)
            number += 1
            is_last = column == columns - 1
            x = put("row\nends" if is_last else "next\ntile", x, _SEPARATOR)
        y += 0.62
    x = begin
    x = put("image", x, _MARK)
    x = put(f"{'whole image' if has_grid else 'the only tile'}\n{n_tokens} × patch", x, _WHOLE)
    put("image\nend", x, _MARK)
    drawing.key({"tile": _TILE, "the whole image": _WHOLE} if has_grid
                else {"the only tile": _WHOLE}, (0.3, y + 0.55))
    return drawing.figure(f"The image takes {n_all:,} places in the text: "
                          f"{n_all - _patches(rows, columns, n_tokens)} marks and separators, and "
                          f"{_patches(rows, columns, n_tokens):,} patches.")


def _patches(rows: int, columns: int, n_tokens: int) -> int:
    n_tiles = rows * columns + (rows * columns > 1)
    return n_tiles * n_tokens


def pixel_shuffle(grid: int = 4, *, edge: int = 2) -> Figure:
    """Draws which patches of a tile are joined to one token, and in which order.

    `grid`: patches along an edge of the tile. `edge`: of a square that becomes a token. The order
    is read from the library's own function. Raises ValueError if the drawing would be too wide.

    Example: `fusion.pixel_shuffle(4)`
    """
    if grid > 6:
        raise ValueError(f"at most 6 patches along an edge are drawn; got {grid}")
    number_P = torch.arange(float(grid**2))
    joined_nE = shuffled(number_P[None, :, None], edge=edge)[0].long()
    token_of = {int(patch): token for token, patches in enumerate(joined_nE) for patch in patches}
    drawing = Drawing(f"{grid**2} patches become {len(joined_nE)} tokens")
    for patch in range(grid**2):
        row, column = divmod(patch, grid)
        drawing.cell(f"{patch}", (0.5 + _EDGE * column, 0.75 + _EDGE * row), width=_EDGE,
                     height=_EDGE, color=_tint(token_of[patch]))
    drawing.note("patches, W numbers each", (0.5 + _EDGE * (grid - 1) / 2, 0.3), align="center")
    start = 0.5 + _EDGE * grid + 1.5
    middle = 0.75 + _EDGE * (grid - 1) / 2
    drawing.arrow((start - 1.25, middle), (start - 0.6, middle), label="join")
    drawing.note(f"tokens, {edge**2} W numbers each", (start + _EDGE * (edge**2 - 1) / 2, 0.3),
                 align="center")
    pitch = max(0.5, _EDGE * grid / len(joined_nE))
    for token, patches in enumerate(joined_nE.tolist()):
        y = 0.75 + pitch * token
        for i, patch in enumerate(patches):
            drawing.cell(f"{patch}", (start + _EDGE * i, y), width=_EDGE, height=0.34,
                         color=_tint(token))
    return drawing.figure(
        f"Patches of one color are neighbors in the tile. Token 0 is patches "
        f"{', '.join(map(str, joined_nE[0].tolist()))}, side by side.")


def _tint(token: int) -> str:
    return TINTS[token % len(TINTS)]


def tile_rope(config: TileEncoderConfig, *, n_drawn: int = 3) -> Figure:
    """Draws the first angle of columns and of rows for the patches at a corner of a tile.

    The left hand in a patch turns with its column, the right hand with its row.

    Example: `fusion.tile_rope(vision)`
    """
    n = min(n_drawn, config.grid)
    column_P, row_P = places_in_tile(config.grid)
    freq = rope_frequencies(config.head_dim // 2, theta=config.rope_theta)[0].item()
    drawing = Drawing("Half of the pairs turn by column, half by row")
    wide = 1.35
    for row in range(n):
        for column in range(n):
            patch = row * config.grid + column
            x, y = 1.1 + wide * column, 0.85 + 0.9 * row
            for offset, steps in ((-0.29, column_P[patch]), (0.29, row_P[patch])):
                drawing.clock(float(steps) * freq, (x + offset, y))
            drawing.note(f"patch {patch}", (x, y - 0.38), align="center")
    drawing.clock(0.0, (1.1 + wide * n - 0.29 + 0.3, 0.85))
    drawing.clock(0.0, (1.1 + wide * n + 0.29 + 0.3, 0.85))
    drawing.note("class token", (1.1 + wide * n + 0.3, 0.47), align="center")
    drawing.note("left: column\nright: row", (1.1 + wide * n + 0.3, 1.6), align="center")
    half = config.head_dim // 4
    return drawing.figure(
        f"A head has {config.head_dim // 2} pairs: {half} turn by the column and {half} by the "
        "row, both counted from 1. In a column, all left hands are alike; in a row, all right "
        f"hands. The class token is not turned. Angles of the first pair: {freq:.0f} radian a "
        "step." if math.isclose(freq, 1.0) else "A head turns by column and row.")


def image_size(height: int, width: int, *, tiling: GridTiling, n_tokens: int) -> Figure:
    """Draws an image of a size on its canvas, and next to it the tokens that it takes in the text.

    `n_tokens`: of each tile. Each row of boxes on the right is a row of tiles; the last box is the
    whole image.

    Example: `fusion.image_size(700, 2000, tiling=GridTiling(size_px=336), n_tokens=144)`
    """
    at = place(height, width, tiling=tiling, fills_canvas=tiling.fills_canvas)
    rows, columns, edge = at.rows, at.columns, tiling.size_px
    has_grid = rows * columns > 1
    n_marks = 3 + (rows * columns if has_grid else 0)
    n_all = _patches(rows, columns, n_tokens) + n_marks
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.9))
    left.add_patch(Rectangle((0, 0), at.width_px, at.height_px, facecolor=TINTS[0]))
    for row in range(rows):
        for column in range(columns):
            left.add_patch(Rectangle((edge * column, edge * row), edge, edge, fill=False,
                                     edgecolor=ORANGE, linewidth=1.6))
    most = 1.04 * edge * max(rows, columns)
    left.set(xlim=(-0.02 * most, most), ylim=(most, -0.02 * most), aspect="equal",
             title=f"{rows} × {columns} tiles", xlabel="pixels of the canvas")
    left.locator_params(nbins=5)
    fig.suptitle(f"{height:,} × {width:,} pixels (height × width)", x=0.01, ha="left", fontsize=12)
    n_lines = rows + 1 if has_grid else 1
    for row in range(rows if has_grid else 0):
        for column in range(columns):
            _box(right, column, row, _TILE)
            right.add_patch(Rectangle((column + 0.9, row + 0.08), 0.08, 0.84, facecolor=PINK))
    _box(right, 0, n_lines - 1, _WHOLE)
    right.set(xlim=(-0.1, max(columns, 2) + 0.1), ylim=(n_lines + 0.05, -0.05), xticks=[],
              yticks=[], title=f"{n_all:,} tokens")
    right.spines[:].set_visible(False)
    right.set_xlabel(f"a box is {n_tokens} patches; green: the whole image")
    fig.set_label(f"An image of {height:,} × {width:,} pixels (height × width) gets {rows} × "
                  f"{columns} tiles" + (" and one that shows it whole" if has_grid else "")
                  + f". It takes {n_all:,} tokens of the text: {n_all - n_marks:,} patches and "
                  f"{n_marks} marks and separators.")
    return fig


def _box(ax: Axes, column: int, row: int, color: str) -> None:
    ax.add_patch(Rectangle((column + 0.02, row + 0.08), 0.86, 0.84, facecolor=color,
                           edgecolor="0.35", linewidth=0.8))

"""Drawings of how an image becomes tiles: its canvas, its place there, the tiles and the batch.

Photos are drawn in few colors, so that a notebook that stores them stays small. Notebook 20.
"""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, Drawing
from llama_from_scratch.lessons.figures.look import BLACK, ORANGE, TINTS
from llama_from_scratch.vision import images
from llama_from_scratch.vision.tiles import TiledImages, Tiling, cut, place
from llama_from_scratch.vision.tiles import canvases as all_canvases

N_COLORS = 40
"""How many colors a drawn photo has."""
CANVAS_COLORS = (*TINTS, "#D4D4D4")
"""The colors of the canvases of at most four tiles, by aspect ratio id."""
_DPI, _TITLE, _PAD, _GAP = 100, 0.42, 0.15, 0.12
_MOST_WIDE, _MOST_HIGH, _LARGEST_TILE = 4.1, 2.7, 2.0
_USED, _UNUSED, _ABSENT = TINTS[0], "white", "#D4D4D4"


def on_canvas(source: object, tiling: Tiling) -> Figure:
    """Draws an image on its canvas, and next to it the tiles, numbered in the order of the batch.

    The black part of the canvas is padding. Example: `tiles.on_canvas(photo, Tiling(size_px=560))`
    """
    image = images.decoded(source)
    at = place(image.height, image.width, tiling=tiling)
    edge = min(_MOST_WIDE / at.columns, _MOST_HIGH / at.rows, _LARGEST_TILE)
    right = _PAD + at.columns * edge + 0.4
    width = max(right + at.columns * (edge + _GAP) + _PAD, 6.5)
    top = _TITLE + 0.3
    fig, ax = _sheet(width, top + at.rows * (edge + _GAP) + 0.05)
    words = (f"{at.height_px:,} × {at.width_px:,} pixels on {at.rows} × {at.columns} "
             f"tile{'s' * (at.rows * at.columns > 1)} of {tiling.size_px}")
    ax.text(_PAD, 0.24, words, fontsize=13, fontweight="bold", va="center")
    ax.text(_PAD, top - 0.13, f"canvas {at.aspect_id}", fontsize=11, va="center")
    ax.text(right, top - 0.13, "tiles", fontsize=11, va="center")
    for number, tile in enumerate(_small_tiles(image, tiling, edge_px=round(edge * _DPI))):
        row, column = divmod(number, at.columns)
        _tile(ax, tile, _PAD + column * edge, top + row * edge, edge, words="")
        _tile(ax, tile, right + column * (edge + _GAP), top + row * (edge + _GAP), edge,
              words=str(number))
    covered = at.height_px * at.width_px / (at.rows * at.columns * tiling.size_px**2)
    fig.set_label(f"An image of {image.height:,} × {image.width:,} pixels (height × width) becomes "
                  f"{words}. It covers {covered:.0%} of its canvas; the rest is black.")
    return fig


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a white figure whose axes measure inches from the top left."""
    fig = plt.figure(figsize=(width, height), dpi=_DPI, layout="none", facecolor="white")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return fig, ax


def _small_tiles(
    image: Image.Image, tiling: Tiling, *, edge_px: int
) -> UInt8[np.ndarray, "tiles 3 {edge_px} {edge_px}"]:
    """Returns the tiles of an image at the size at which they are drawn."""
    at = place(image.height, image.width, tiling=tiling)
    scale = edge_px / tiling.size_px
    small = images.resized(image, height_px=max(1, round(at.height_px * scale)),
                           width_px=max(1, round(at.width_px * scale)))
    few = Image.fromarray(small).quantize(N_COLORS, dither=Image.Dither.NONE).convert("RGB")
    return cut(np.asarray(few), rows=at.rows, columns=at.columns, size_px=edge_px)


def _tile(
    ax: Axes, tile: np.ndarray, x: float, y: float, edge: float, *, words: str, line: int = 2
) -> None:
    ax.imshow(tile.transpose(1, 2, 0), extent=(x, x + edge, y + edge, y))
    ax.add_patch(Rectangle((x, y), edge, edge, fill=False, edgecolor=ORANGE, linewidth=line))
    if words:
        ax.text(x + 0.1, y + 0.1, words, fontsize=12, fontweight="bold", va="top", color=BLACK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})


def canvases(max_tiles: int = 4) -> Figure:
    """Draws every canvas of at most `max_tiles` tiles with its aspect ratio id.

    Example: `tiles.canvases()`
    """
    grids, edge = all_canvases(max_tiles), 0.3
    drawing = Drawing(f"The {len(grids)} canvases of at most {max_tiles} tiles")
    x, y, lowest = 0.3, 0.3, 0
    for number, (rows, columns) in enumerate(grids, start=1):
        if x + columns * edge > 8.5:
            x, y, lowest = 0.3, y + lowest * edge + 0.75, 0
        for row in range(rows):
            for column in range(columns):
                drawing.cell("", (x + (column + 0.5) * edge, y + (row + 0.5) * edge), width=edge,
                             height=edge, color=_color(number))
        drawing.note(f"id {number}", (x, y - 0.16))
        drawing.note(f"{rows} × {columns}", (x, y + rows * edge + 0.16))
        x, lowest = x + max(columns * edge, 0.42) + 0.28, max(lowest, rows)
    return drawing.figure(f"Rows × columns. Every grid of at most {max_tiles} tiles is a canvas, "
                          "and its number in the list is its aspect ratio id.")


def _color(aspect_id: int) -> str:
    return CANVAS_COLORS[(aspect_id - 1) % len(CANVAS_COLORS)]


def road(source: object, tiling: Tiling) -> Figure:
    """Draws the steps from an image file to the tensor that an encoder reads, with real sizes.

    Example: `tiles.road(photo, Tiling(size_px=560))`
    """
    image = images.decoded(source)
    at = place(image.height, image.width, tiling=tiling)
    px, n_tiles = tiling.size_px, at.rows * at.columns
    drawing = Drawing("From a file to the tensor of an encoder")
    file = drawing.step("image", (0.8, 0.5), detail="file, bytes,\narray")
    decode = drawing.step("decode", (2.35, 0.5), does="focus", detail="to 8-bit RGB,\nupright")
    whole = drawing.step(f"{image.height:,} × {image.width:,} × 3", (4.3, 0.5),
                         detail="height × width × color\n0 to 255")
    choose = drawing.step("choose", (6.2, 0.5), does="choice", detail="canvas, and\nsize on it")
    grid = drawing.step(f"{at.rows} × {at.columns} tiles", (7.95, 0.5),
                        detail=f"{at.height_px:,} × {at.width_px:,}\npixels, id {at.aspect_id}")
    resize = drawing.step("resize", (7.95, 1.85), does="focus", detail="bilinear,\nantialiased")
    pad = drawing.step("pad", (6.2, 1.85), does="focus", detail="black, right\nand below")
    canvas = drawing.step(f"{at.rows * px:,} × {at.columns * px:,} × 3", (4.3, 1.85),
                          detail="the canvas\n0 to 255")
    cut_up = drawing.step("cut", (2.35, 1.85), does="focus", detail="row by row,\ncolors first")
    normalize = drawing.step("normalize", (0.8, 1.85), does="focus", detail="mean 0,\ndeviation 1")
    tensor = drawing.tensor("pixels", (1.75, 3.3),
                            shape={"B": 1, "I": 1, "J": tiling.max_tiles, "C": 3, "px": px,
                                   "px ": px})
    ids = drawing.tensor("aspect_ids", (4.3, 3.3), shape={"B": 1, "I": 1})
    for a, b in ((file, decode), (decode, whole), (whole, choose), (choose, grid), (grid, resize),
                 (resize, pad), (pad, canvas), (canvas, cut_up), (cut_up, normalize)):
        drawing.arrow(a, b)
    drawing.arrow(normalize, (normalize.x, tensor.top[1]))
    drawing.arrow(grid, (8.7, grid.y), (8.7, ids.y), ids, label="the id of the canvas")
    return drawing.figure(
        f"Sizes are real: {image.height:,} × {image.width:,} pixels become {n_tiles} "
        f"tile{'s' * (n_tiles > 1)} of {px} × {px}. The id of the canvas goes with them.")


def batch(tiled: TiledImages) -> Figure:
    """Draws which tiles of a batch are used, with the aspect ratio id of each image.

    Example: `tiles.batch(split([[photo, icon], [photo]], Tiling(size_px=560)))`
    """
    n_rows, n_images, n_tiles = tiled.pixels.shape[:3]
    drawing = Drawing("A batch has the same number of tiles everywhere")
    step = n_tiles * 0.36 + 0.55
    for image in range(n_images):
        drawing.note(f"image {image + 1}", (1.0 + image * step, 0.2))
    for row in range(n_rows):
        y = 0.75 + row * 0.85
        drawing.note(f"row {row + 1}", (0.1, y))
        for image in range(n_images):
            x, aspect_id = 1.0 + image * step, int(tiled.aspect_ids[row, image])
            drawing.note(f"id {aspect_id}", (x, y - 0.3))
            for tile in range(n_tiles):
                used = bool(tile < tiled.n_tiles[row, image])
                is_seen = bool(tiled.tile_mask[row, image, tile])
                drawing.cell(str(int(is_seen)), (x + (tile + 0.5) * 0.36, y), width=0.36,
                             height=0.36,
                             color=_USED if used else _UNUSED if aspect_id else _ABSENT)
    drawing.key({"a tile": _USED, "slot without a tile, 0": _UNUSED,
                 "padding image, 0": _ABSENT}, (0.1, 0.55 + n_rows * 0.85))
    drawing.note("The number in a slot is the mask: 1 where the encoder reads.",
                 (0.1, 0.9 + n_rows * 0.85))
    return drawing.figure(
        f"{int(tiled.n_images.sum())} images in {n_rows} rows take "
        f"{n_rows * n_images * n_tiles} slots; {int(tiled.n_tiles.sum())} of them hold tiles. The "
        "first slot of a padding image counts as read.")


def plane(tiling: Tiling, *, longest_px: int, n_steps: int = 280) -> Figure:
    """Draws the canvas that each size of an image gets, for sizes up to `longest_px`.

    Example: `tiles.plane(Tiling(size_px=560), longest_px=2800)`
    """
    edges = np.linspace(1, longest_px, n_steps).round().astype(int)
    ids = np.array([[place(int(height), int(width), tiling=tiling).aspect_id for width in edges]
                    for height in edges])
    fig, ax = plt.subplots(figsize=(7.4, 6.2))
    grids = all_canvases(tiling.max_tiles)
    ax.imshow(ids, cmap=ListedColormap([_color(number + 1) for number in range(len(grids))]),
              vmin=0.5, vmax=len(grids) + 0.5, origin="lower",
              extent=(0, longest_px, 0, longest_px))
    ticks = range(0, longest_px + 1, tiling.size_px)
    ax.set(xticks=ticks, yticks=ticks, xlabel="width of the image (pixels)",
           ylabel="height of the image (pixels)", title="Which canvas an image of each size gets")
    for number, (rows, columns) in enumerate(grids, start=1):
        here = np.argwhere(ids == number)
        if len(here):
            row, column = here[np.abs(here - np.median(here, axis=0)).sum(1).argmin()]
            ax.text(edges[column], edges[row], f"{rows} × {columns}", ha="center", va="center",
                    fontsize=12)
    ax.plot([0, longest_px], [0, longest_px], color="0.35", linestyle=(0, (4, 3)), linewidth=1)
    fig.set_label("Each color is a canvas (rows × columns). Near the origin, images fit without "
                  "shrinking, and the borders are multiples of a tile. Further out, only the ratio "
                  "of the edges decides. The dashed line marks squares.")
    return fig


def pictures(
    shown: Mapping[str, UInt8[np.ndarray, "_height _width 3"]], *, see: str, high: float = 1.9
) -> Figure:
    """Draws images side by side, `high` inches high, each under its name; `see` is the label.

    Each pixel is a square of one color. Raises ValueError if they are wider than a page.

    Example: `tiles.pictures({"before": photo, "after": small}, see="...")`
    """
    widths = [high * image.shape[1] / image.shape[0] for image in shown.values()]
    width = sum(widths) + _PAD * (len(widths) + 1)
    if width > MAX_WIDTH:
        raise ValueError(f"pictures must be at most {MAX_WIDTH} inches wide together; these are "
                         f"{width:.1f}. Make them less high, or show fewer")
    fig, ax = _sheet(width, _TITLE + high + 0.1)
    x = _PAD
    for (name, image), wide in zip(shown.items(), widths, strict=True):
        ax.text(x, 0.24, name, fontsize=11, va="center")
        ax.imshow(image, extent=(x, x + wide, _TITLE + high, _TITLE))
        x += wide + _PAD
    fig.set_label(see)
    return fig


def gallery(made: Mapping[int, Float[np.ndarray, "_tiles 3 _px _px"]], tiling: Tiling) -> Figure:
    """Draws normalized tiles as pictures on their canvases: aspect ratio id -> tiles.

    Example: `tiles.gallery({2: split([[photo]], tiling).pixels[0, 0, :2].numpy()}, tiling)`
    """
    edge, gap, grids = 0.62, 0.05, all_canvases(tiling.max_tiles)
    mean, std = (np.array(each)[:, None, None] for each in (tiling.mean, tiling.std))
    places, x, y, lowest, widest = [], _PAD, 0.35, 0, 0.0
    for aspect_id in made:
        rows, columns = grids[aspect_id - 1]
        if x + columns * (edge + gap) > MAX_WIDTH - _PAD:
            x, y, lowest = _PAD, y + lowest * (edge + gap) + 0.45, 0
        places.append((x, y))
        x, lowest = x + max(columns, 1.2) * (edge + gap) + 0.25, max(lowest, rows)
        widest = max(widest, x)
    fig, ax = _sheet(widest, y + lowest * (edge + gap) + 0.1)
    for (aspect_id, tiles), (left, top) in zip(made.items(), places, strict=True):
        rows, columns = grids[aspect_id - 1]
        ax.text(left, top - 0.14, f"{rows} × {columns}", fontsize=11, va="center")
        for number, tile in enumerate(((tiles * std + mean) * 255).round().astype(np.uint8)):
            row, column = divmod(number, columns)
            _tile(ax, tile, left + column * (edge + gap), top + row * (edge + gap), edge, words="",
                  line=1)
    fig.set_label(f"{len(made)} canvases with tiles of {tiling.size_px} × {tiling.size_px} pixels, "
                  "as the encoder gets them, only not normalized.")
    return fig


def own_size(
    height_px: int, width_px: int, *, tiling: Tiling, longest_px: int | None = None
) -> Figure:
    """Draws an image of a given size as a rectangle, and the same on its canvas, to one scale.

    `longest_px`: all images up to this edge are drawn to the same scale; the default is an own
    scale for each.

    Example: `tiles.own_size(700, 2000, tiling=Tiling(size_px=560))`
    """
    at = place(height_px, width_px, tiling=tiling)
    px = tiling.size_px
    high, wide = at.rows * px, at.columns * px
    most = math.ceil(longest_px / px) * px if longest_px else None
    inch = min(4.1 / (most or max(height_px, high)), 8.1 / (2 * most if most else width_px + wide))
    fig, ax = _sheet(9.0, 0.8 + (most or max(height_px, high)) * inch)
    ax.text(_PAD, 0.24, f"{height_px:,} × {width_px:,} pixels on {at.rows} × {at.columns} "
            f"tile{'s' * (at.rows * at.columns > 1)} of {px}", fontsize=13, fontweight="bold",
            va="center")
    ax.text(_PAD, 0.5, "image", fontsize=11, va="center")
    top, right = 0.62, _PAD + max(width_px * inch, 0.5) + 0.4
    ax.add_patch(Rectangle((_PAD, top), width_px * inch, height_px * inch, facecolor=TINTS[0],
                           edgecolor="0.35"))
    ax.text(right, 0.5, f"canvas {at.aspect_id}", fontsize=11, va="center")
    ax.add_patch(Rectangle((right, top), wide * inch, high * inch, facecolor="#4D4D4D",
                           edgecolor="none"))
    ax.add_patch(Rectangle((right, top), at.width_px * inch, at.height_px * inch,
                           facecolor=TINTS[0], edgecolor="none"))
    for number in range(at.rows * at.columns):
        row, column = divmod(number, at.columns)
        ax.add_patch(Rectangle((right + column * px * inch, top + row * px * inch), px * inch,
                               px * inch, fill=False, edgecolor=ORANGE, linewidth=2))
    fig.set_label(_words(height_px, width_px, tiling))
    return fig


def _words(height_px: int, width_px: int, tiling: Tiling) -> str:
    at = place(height_px, width_px, tiling=tiling)
    n_tiles = at.rows * at.columns
    scale = max(at.height_px / height_px, at.width_px / width_px)
    change = ("keeps its size" if math.isclose(scale, 1) else
              f"{'grows' if scale > 1 else 'shrinks'} to {at.height_px:,} × {at.width_px:,}, "
              f"{scale:.2g} times its size")
    black = 1 - at.height_px * at.width_px / (n_tiles * tiling.size_px**2)
    return (f"The image {change}. It takes {n_tiles} tile{'s' * (n_tiles > 1)} of "
            f"{tiling.size_px} × {tiling.size_px}; {min(black, 0.99):.0%} of the canvas is black "
            "padding.")

"""One look for every picture of the course: large type, units on the axes, colours that colour-blind readers can tell apart.

White ground, so that a figure reads the same in a light and in a dark notebook. The palette is that of Okabe and Ito
(2008), in an order whose brightness differs from one to the next; heat maps use viridis, signed ones a blue-orange map.
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#222222")
COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, YELLOW)
TINTS = ("#9CCBE8", "#F7D48B", "#97D9C3", "#F2B48F", "#E6C3D6", "#CBE6F5", "#F6EFA6")
SIGNED = LinearSegmentedColormap.from_list("signed", (BLUE, "#FFFFFF", RED))


def style() -> None:
    """Sets the look of plots and of printed tensors for this kernel. Every notebook calls it once, at its top."""
    plt.rcParams.update({
        "figure.figsize": (7, 3.6), "figure.dpi": 100, "figure.facecolor": "white", "figure.constrained_layout.use": True,
        "axes.prop_cycle": cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 13, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 12,
        "xtick.labelsize": 11, "ytick.labelsize": 11, "legend.fontsize": 11, "legend.frameon": False,
        "lines.linewidth": 2.2, "image.cmap": "viridis", "image.interpolation": "nearest",
    })
    torch.set_printoptions(precision=3, sci_mode=False)


def grid(
    values: torch.Tensor | np.ndarray, *, title: str, x: str, y: str, labels: str | None = None, signed: bool = False,
    x_ticks: Sequence[str] | None = None, y_ticks: Sequence[str] | None = None, size: tuple[float, float] | None = None,
) -> Figure:
    """A heat map of a matrix (rows, columns) with named axes.

    `labels`: a number format such as ".2f" to write each value into its cell, for small matrices. `signed`: zero is white.
    `size`: (width, height) in inches, filled by the map; without it the cells are square.
    """
    rows, columns = np.asarray(values).shape
    fig, ax = plt.subplots(figsize=size or (1.6 + 0.45 * columns, 1.2 + 0.45 * rows))
    image = _draw(ax, values, labels=labels, is_signed=signed, aspect="auto" if size else "equal")
    ax.set(title=title, xlabel=x, ylabel=y)
    _set_ticks(ax, x_ticks, y_ticks)
    if not labels:
        fig.colorbar(image, ax=ax, shrink=0.8)
    return fig


def grids(
    values: Mapping[str, torch.Tensor | np.ndarray], *, x: str, y: str, labels: str | None = None, signed: bool = False,
    x_ticks: Sequence[str] | None = None, y_ticks: Sequence[str] | None = None, size: tuple[float, float] | None = None,
) -> Figure:
    """Matrices of one shape side by side, each under its title: before and after, one head and the next.

    Each has its own colour scale, so colours compare within a matrix only. Cells that are not finite are grey.
    """
    rows, columns = np.asarray(next(iter(values.values()))).shape
    width = len(values) * (0.5 + 0.42 * columns)
    fig, axes = plt.subplots(1, len(values), figsize=size or (width + 0.8, 1.3 + 0.42 * rows), sharey=True, squeeze=False)
    for ax, (title, matrix) in zip(axes[0], values.items()):
        _draw(ax, matrix, labels=labels, is_signed=signed, aspect="equal")
        ax.set(title=title, xlabel=x, ylabel=y)
        _set_ticks(ax, x_ticks, y_ticks)
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
        ax.label_outer(remove_inner_ticks=True)
    return fig


def _draw(ax: Axes, values: torch.Tensor | np.ndarray, *, labels: str | None, is_signed: bool, aspect: str) -> AxesImage:
    values = np.asarray(torch.as_tensor(values).detach().float())
    finite = np.ma.masked_invalid(values)
    top = np.abs(finite).max() if is_signed else None
    image = ax.imshow(finite, cmap=(SIGNED if is_signed else plt.get_cmap()).with_extremes(bad="0.9"),
                      vmin=-top if is_signed else None, vmax=top, aspect=aspect)
    rgba = image.to_rgba(finite)
    for (row, column), value in np.ndenumerate(values) if labels else ():
        red, green, blue, _ = rgba[row, column]
        is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
        ax.text(column, row, format(value, labels), ha="center", va="center", color="black" if is_bright else "white")
    ax.spines[:].set_visible(False)
    return image


def _set_ticks(ax: Axes, x_ticks: Sequence[str] | None, y_ticks: Sequence[str] | None) -> None:
    for axis, ticks in ((ax.xaxis, x_ticks), (ax.yaxis, y_ticks)):
        if ticks is not None:
            axis.set_ticks(range(len(ticks)), ticks)
    if x_ticks is not None and max(map(len, x_ticks)) > 2:
        ax.tick_params(axis="x", rotation=60)


class Box(NamedTuple):
    """Where one token stands in a picture, in inches from its top left: what is written in it, and below it."""

    label: str
    number: str
    left: float
    top: float
    width: float


def tokens(pieces: Sequence[bytes], *, title: str, ids: Sequence[int] | None = None, columns: int = 64) -> Figure:
    """A text cut into tokens, in lines of about `columns` letters, with `ids` below.

    A token has the same colour wherever it appears; a single byte is grey. A blank is drawn as a dot. Bytes that are no whole
    character, or one that the font lacks, are written in hexadecimal. A token longer than a line is cut short with "…".
    """
    boxes = token_boxes(pieces, ids=ids, columns=columns)
    width = max(8, _PAD + max((box.left + box.width for box in boxes), default=0))
    height = max((box.top for box in boxes), default=0) + (_BOX if ids is None else _PITCH_WITH_IDS) + _PAD
    fig = plt.figure(figsize=(width, _TITLE + height), layout="none")
    ax = fig.add_axes((0, 0, 1, height / (_TITLE + height)), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    ax.set_title(title, x=_PAD / width, parse_math=False)
    corners = [[(x, y) for x, y in ((box.left, box.top), (box.left + box.width, box.top),
                                    (box.left + box.width, box.top + _BOX), (box.left, box.top + _BOX))] for box in boxes]
    ax.add_collection(PolyCollection(corners, facecolors=[_tint(piece) for piece in pieces], linewidth=0), autolim=False)
    # One path for all letters: matplotlib takes 2 ms for each text of its own, which is too slow for a page of tokens.
    glyphs: dict[str, TextPath] = {}
    for lines, size, below, colour in (([box.label for box in boxes], LABEL_PT, 0.68 * _BOX, "black"),
                                       ([box.number for box in boxes], ID_PT, _BOX + 0.16, "0.3")):
        written = [path for box, words in zip(boxes, lines) for path in _written(
            words, middle=box.left + box.width / 2, baseline=box.top + below, size=size, glyphs=glyphs)]
        if written:
            ax.add_artist(PathPatch(Path.make_compound_path(*written), color=colour, linewidth=0))  # which measures nothing
    return fig


LABEL_PT, ID_PT = 13, 10
_ADVANCE = 1233 / 2048  # from letter to letter in DejaVu Sans Mono, as part of its size
_PAD, _GAP, _TITLE, _BOX, _PITCH, _PITCH_WITH_IDS = 0.08, 0.035, 0.36, 0.27, 0.38, 0.54


def token_boxes(pieces: Sequence[bytes], *, ids: Sequence[int] | None = None, columns: int = 64) -> list[Box]:
    """Where `tokens` puts each piece: left to right, and on to the next line where `columns` letters are full."""
    labels = [label if len(label) < columns else label[: columns - 2] + "…" for label in map(letters, pieces)]
    numbers = [""] * len(labels) if ids is None else [str(number) for number in ids]
    letter, digit = (size / 72 * _ADVANCE for size in (LABEL_PT, ID_PT))
    left, top, boxes = _PAD, 0.0, []
    for label, number in zip(labels, numbers, strict=True):
        width = max((len(label) + 0.5) * letter, (len(number) + 0.5) * digit)
        if left > _PAD and left + width > _PAD + (columns + 0.5) * 1.12 * letter:
            left, top = _PAD, top + (_PITCH if ids is None else _PITCH_WITH_IDS)
        boxes.append(Box(label, number, left, top, width))
        left += width + _GAP
    return boxes


def _tint(piece: bytes) -> str:
    """By the token itself and not by its place, so that a colour stays while other tokens merge."""
    return TINTS[zlib.crc32(piece) % len(TINTS)] if len(piece) > 1 else "0.9"


def _written(words: str, *, middle: float, baseline: float, size: int, glyphs: dict[str, TextPath]) -> Iterator[Path]:
    """The outlines of `words` around `middle`, in inches; `glyphs` is filled with each letter at a size of one."""
    start = middle - len(words) * _ADVANCE * size / 144
    for place, letter in enumerate(words):
        if letter not in glyphs:
            glyphs[letter] = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans Mono"))
        glyph = glyphs[letter]
        if len(glyph.vertices):
            scale = np.array((size / 72, -size / 72))
            yield Path(glyph.vertices * scale + (start + place * _ADVANCE * size / 72, baseline), glyph.codes)


def letters(piece: bytes) -> str:
    """How a token is written in a picture: blanks as dots, and hexadecimal where the bytes cannot be drawn."""
    try:
        text = piece.decode().replace(" ", "·").replace("\n", "⏎").replace("\t", "→")
    except UnicodeDecodeError:
        return piece.hex(" ").upper()
    return text if text.isprintable() and (piece.isascii() or _has_glyphs(text)) else piece.hex(" ").upper()


def _has_glyphs(text: str) -> bool:
    font = get_font(findfont("DejaVu Sans Mono"))
    return all(font.get_char_index(ord(letter)) for letter in text)


def png(figure: Figure) -> bytes:
    """The picture as a PNG file, without the date and the program's version, and the figure closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()

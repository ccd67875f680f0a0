"""One look for every picture of the course: large type, units on the axes, colours that colour-blind readers can tell apart.

White ground, so that a figure reads the same in a light and in a dark notebook. The palette is that of Okabe and Ito
(2008), in an order whose brightness differs from one to the next; heat maps use viridis, signed ones a blue-orange map.
"""

import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.image import AxesImage

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


def tokens(pieces: Sequence[bytes], *, title: str, ids: Sequence[int] | None = None, columns: int = 64) -> Figure:
    """A text cut into tokens, in lines of `columns` letters, with `ids` below.

    Equal tokens have one colour; a single byte is grey. A blank is drawn as a dot. Bytes that are no whole character,
    or one that the font lacks, are written in hexadecimal. A token longer than a line is cut short with "…".
    """
    tints = dict(zip(dict.fromkeys(piece for piece in pieces if len(piece) > 1), itertools.cycle(TINTS)))
    labels = [label if len(label) < columns else label[: columns - 2] + "…" for label in map(letters, pieces)]
    numbers = [""] * len(labels) if ids is None else [str(number) for number in ids]
    fig, ax = plt.subplots()
    column = line = 0
    for piece, label, number in zip(pieces, labels, numbers, strict=True):
        width = max(len(label) + 0.4, 0.62 * len(number) + 0.3)
        if column and column + width > columns:
            column, line = 0, line + 1
        # All lies inside the axes, so neither limits nor layout need to measure a thousand boxes.
        ax.add_artist(plt.Rectangle((column, line), width, 0.5, color=tints.get(piece, "0.9"), linewidth=0, in_layout=False))
        middle = {"x": column + width / 2, "ha": "center", "family": "DejaVu Sans Mono", "in_layout": False}
        # a reader's own text: its "$" must not start a formula
        ax.text(y=line + 0.25, s=label, va="center_baseline", fontsize=13, parse_math=False, **middle)
        if number:
            ax.text(y=line + 0.56, s=number, va="top", fontsize=8.5, color="0.35", **middle)
        column += width + 0.3
    height = 0.62 if ids is None else 1
    fig.set_size_inches(8, 0.45 + (0.42 if ids is None else 0.6) * (line + 1))
    ax.set(title=title, xlim=(0, columns + 1), ylim=(line + height, -0.1))
    ax.axis("off")
    return fig


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

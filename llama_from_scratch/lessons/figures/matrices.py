"""Draws heat maps of matrices, alone or side by side, with named axes."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from llama_from_scratch.lessons.figures.look import CLEAR, SIGNED, hatch_hidden


def grid(
    values: torch.Tensor | np.ndarray, *, title: str, x: str, y: str, labels: str | None = None,
    signed: bool = False, x_ticks: Sequence[str] | None = None,
    y_ticks: Sequence[str] | None = None, size: tuple[float, float] | None = None,
    colors: str = "",
) -> Figure:
    """Draws a heat map of a matrix (rows, columns) with named axes.

    `labels`: a number format such as ".2f" to write each value into its cell, for small matrices.
    A cell that is not finite is hatched; NaN is a hidden cell, and nothing is written into it.
    `signed`: zero is white. `size`: (width, height) in inches, which the map fills; without it the
    cells are square. `colors`: what the colors mean, written next to the color bar.
    """
    rows, columns = np.asarray(values).shape
    fig, ax = plt.subplots(figsize=size or (1.6 + 0.45 * columns, 1.2 + 0.45 * rows))
    image = _draw(ax, values, labels=labels, is_signed=signed, aspect="auto" if size else "equal")
    ax.set(title=title, xlabel=x, ylabel=y)
    _set_ticks(ax, x_ticks, y_ticks)
    if not labels:
        fig.colorbar(image, ax=ax, shrink=0.8, label=colors)
    return fig


def grids(
    values: Mapping[str, torch.Tensor | np.ndarray], *, x: str, y: str, labels: str | None = None,
    signed: bool = False, x_ticks: Sequence[str] | None = None,
    y_ticks: Sequence[str] | None = None, size: tuple[float, float] | None = None,
) -> Figure:
    """Draws matrices of the same shape side by side, each under its title.

    Examples are a matrix before and after a change, or several heads.

    Each matrix has its own color scale, so compare colors only within a matrix. Cells that are not
    finite are hatched, and nothing is written into a cell that is NaN.
    """
    rows, columns = np.asarray(next(iter(values.values()))).shape
    width = len(values) * (0.5 + 0.42 * columns)
    fig, axes = plt.subplots(1, len(values), figsize=size or (width + 0.8, 1.3 + 0.42 * rows),
                             sharey=True, squeeze=False)
    for ax, (title, matrix) in zip(axes[0], values.items(), strict=True):
        _draw(ax, matrix, labels=labels, is_signed=signed, aspect="equal")
        ax.set(title=title, xlabel=x, ylabel=y)
        _set_ticks(ax, x_ticks, y_ticks)
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
        ax.label_outer(remove_inner_ticks=True)
    return fig


def _draw(
    ax: Axes, values: torch.Tensor | np.ndarray, *, labels: str | None, is_signed: bool, aspect: str
) -> AxesImage:
    values = np.asarray(torch.as_tensor(values).detach().float())
    finite = np.ma.masked_invalid(values)
    top = np.abs(finite).max() if is_signed else None
    image = ax.imshow(finite,
                      cmap=(SIGNED if is_signed else plt.get_cmap()).with_extremes(bad=CLEAR),
                      vmin=-top if is_signed else None, vmax=top, aspect=aspect)
    rgba = image.to_rgba(finite)
    for (row, column), value in np.ndenumerate(values) if labels else ():
        if np.isnan(value):
            continue
        red, green, blue, opacity = rgba[row, column]
        is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 or opacity == 0
        ax.text(column, row, format(value, labels), ha="center", va="center",
                color="black" if is_bright else "white")
    ax.spines[:].set_visible(False)
    hatch_hidden(ax)
    return image


def _set_ticks(ax: Axes, x_ticks: Sequence[str] | None, y_ticks: Sequence[str] | None) -> None:
    for axis, ticks in ((ax.xaxis, x_ticks), (ax.yaxis, y_ticks)):
        if ticks is not None:
            axis.set_ticks(range(len(ticks)), ticks)
    if x_ticks is not None and max(map(len, x_ticks)) > 2:
        ax.tick_params(axis="x", rotation=60)

"""Draws which lane holds which number of a matrix, as the emulated instruction distributes them.

Notebook 37.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.fragments import LANES, Fragment, fragment
from llama_from_scratch.lessons.figures.look import BLACK, RED, TINTS

HIGHLIGHT = RED
_COLORS = (TINTS[0], TINTS[1], TINTS[2], TINTS[4])
_WIDTH, _HEIGHT, _PT = 8.6, 0.31, 8.4
_MAX_WRITTEN = 16   # rows: a larger matrix has no room for words in its cells


def owners(name: str, *, lane: int | None = None) -> Figure:
    """Draws a matrix, colored by lane, with the number of lane and register in each cell.

    The four colors are the four lanes that share a row; in a matrix of a warpgroup, they are its
    four warps. `lane`: the one whose numbers are highlighted. Raises ValueError for a fragment or
    a lane that does not exist.

    Example: `fragments.owners("mma C", lane=5)`
    """
    found = fragment(name)
    held = [] if lane is None else found.held_by(lane)
    n_rows, n_columns = found.shape
    is_written = n_rows <= _MAX_WRITTEN
    state = found.lane // LANES if found.n_lanes > LANES else found.lane % 4
    for _, _, row, column in held:
        state[row, column] = 4
    fig, ax = plt.subplots(figsize=(_WIDTH if n_columns > 8 else 6.0,
                                    0.95 + (_HEIGHT if is_written else 0.085) * n_rows))
    ax.imshow(state, cmap=ListedColormap([*_COLORS, HIGHLIGHT]), vmin=0, vmax=4, aspect="auto")
    step = 1 if is_written else 8
    ax.set(xlabel="column", ylabel="row", xticks=range(0, n_columns, 1 if n_columns < 20 else 8),
           yticks=range(0, n_rows, step))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for edge in np.arange(-0.5, n_columns):
        ax.axvline(edge, color="white", linewidth=1.0 if is_written else 0.3)
    for edge in np.arange(-0.5, n_rows):
        ax.axhline(edge, color="white", linewidth=1.0 if is_written else 0.3)
    if is_written:
        _write(ax, found, lane)
    who = "Thread" if found.n_lanes > LANES else "Lane"
    ax.set_title(f"{name}: who holds which number" if lane is None else
                 f"{name}: {who.lower()} {lane} holds {len(held)} numbers")
    ax.format_coord = lambda x, y: _told(found, row=round(y), column=round(x))
    fig.set_label(_label(found, lane, held))
    return fig


def _write(ax: Axes, found: Fragment, lane: int | None) -> None:
    for (row, column), owner in np.ndenumerate(found.lane):
        ax.text(column, row, f"{owner}·r{found.register[row, column]}", ha="center", va="center",
                fontsize=_PT, color="white" if owner == lane else BLACK)


def _label(found: Fragment, lane: int | None, held: list[tuple[int, int, int, int]]) -> str:
    who = "thread" if found.n_lanes > LANES else "lane"
    if lane is None:
        return (f"Each number of the matrix is in one register (r) of one {who}. "
                f"Each {who} holds {found.lane.size // found.n_lanes} of them.")
    rows = sorted({row for _, _, row, _ in held})
    n_registers = len({register for register, _, _, _ in held})
    return (f"{who.capitalize()} {lane} of {found.name} holds {len(held)} numbers in {n_registers} "
            f"registers. They are in the rows {', '.join(map(str, rows))}.")


def _told(found: Fragment, *, row: int, column: int) -> str:
    """What a cell holds, in words."""
    who = "thread" if found.n_lanes > LANES else "lane"
    part = ("lower half", "upper half")[found.half[row, column]]
    of = f", {part}" if found.half.any() else ""
    return (f"row {row}, column {column}: {who} {found.lane[row, column]}, "
            f"register {found.register[row, column]}{of}")

"""Shared parts of the pictures of the emulated machine: lines between cells, legends, short words.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

MONO = {"family": "DejaVu Sans Mono", "va": "center", "parse_math": False}


def amount(n: int | np.integer, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def separate(ax: Axes, rows: int, columns: int, *, every: int = 1, color: str = "0.55") -> None:
    # Lines, because minor ticks would take ten times as long.
    ax.vlines(np.arange(0, columns + 1, every) - 0.5, -0.5, rows - 0.5, color=color, linewidth=0.8)
    ax.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color=color, linewidth=0.8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def legend(ax: Axes, colors: dict[str, str], *, below: float = 0.01) -> None:
    boxes = [plt.Rectangle((0, 0), 1, 1, facecolor=color, edgecolor="0.55")
             for color in colors.values()]
    ax.legend(boxes, list(colors), loc="upper center", bbox_to_anchor=(0.5, -below),
              ncols=len(boxes), fontsize=10,
              handlelength=1, columnspacing=1.4)

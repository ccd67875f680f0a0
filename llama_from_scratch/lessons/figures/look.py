"""Gives every picture of the course the same style.

Letters are large, axes have units, and color-blind readers can distinguish the colors.

The background is white, so that a figure looks the same in a light and in a dark notebook. The
palette is from Okabe and Ito (2008), ordered so that neighboring colors differ in brightness. Heat
maps use viridis, or a map from blue to red for signed numbers.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#222222")
COLORS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, YELLOW)
TINTS = ("#9CCBE8", "#F7D48B", "#97D9C3", "#F2B48F", "#E6C3D6", "#CBE6F5", "#F6EFA6")
CLEAR = (0, 0, 0, 0)
SIGNED = LinearSegmentedColormap.from_list("signed", (BLUE, "#FFFFFF", RED))


def style() -> None:
    """Sets the style of plots and of printed tensors for this kernel.

    Every notebook calls it once, through `begin`.
    """
    plt.rcParams.update({
        "figure.figsize": (7, 3.6), "figure.dpi": 100, "figure.facecolor": "white",
        "figure.constrained_layout.use": True, "axes.prop_cycle": cycler(color=COLORS),
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 12,
        "xtick.labelsize": 11, "ytick.labelsize": 11, "legend.fontsize": 11,
        "legend.frameon": False, "lines.linewidth": 2.2, "image.cmap": "viridis",
        "image.interpolation": "nearest",
    })
    torch.set_printoptions(precision=3, sci_mode=False)


def hatch_hidden(ax: Axes) -> None:
    """Hatches the hidden cells of an image, so that they do not look like small numbers.

    The image's color for masked values must be clear: `cmap.with_extremes(bad=CLEAR)`.
    """
    ax.patch.set(facecolor="0.93", edgecolor="0.72", hatch="////", linewidth=0)


def png(figure: Figure) -> bytes:
    """Returns the bytes of a PNG file without date and program version, and closes the figure.

    It draws the figure once. `savefig` would draw it twice to arrange its parts, and a control that
    moves has no time for that.
    """
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()

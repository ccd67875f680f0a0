"""Gives every picture of the course one look.

Type is large, axes have units, and color-blind readers can tell the colors apart.

The ground is white, so that a figure reads the same in a light and in a dark notebook. The palette
is from Okabe and Ito (2008), in an order in which brightness differs from one color to the next;
heat maps use viridis, and signed ones a blue-orange map.
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
COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, YELLOW)
TINTS = ("#9CCBE8", "#F7D48B", "#97D9C3", "#F2B48F", "#E6C3D6", "#CBE6F5", "#F6EFA6")
CLEAR = (0, 0, 0, 0)
SIGNED = LinearSegmentedColormap.from_list("signed", (BLUE, "#FFFFFF", RED))


def style() -> None:
    """Sets the look of plots and of printed tensors for this kernel.

    Every notebook calls it once, at its top.
    """
    plt.rcParams.update({
        "figure.figsize": (7, 3.6), "figure.dpi": 100, "figure.facecolor": "white",
        "figure.constrained_layout.use": True, "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 13,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 12,
        "xtick.labelsize": 11, "ytick.labelsize": 11, "legend.fontsize": 11,
        "legend.frameon": False, "lines.linewidth": 2.2, "image.cmap": "viridis",
        "image.interpolation": "nearest",
    })
    torch.set_printoptions(precision=3, sci_mode=False)


def hatch_hidden(ax: Axes) -> None:
    """Hatches what an image leaves out, so that hidden cells do not look like small numbers.

    The image's color for masked values must be clear: `cmap.with_extremes(bad=CLEAR)`.
    """
    ax.patch.set(facecolor="0.93", edgecolor="0.72", hatch="////", linewidth=0)


def png(figure: Figure) -> bytes:
    """The picture as a PNG file, without the date and the program's version, and the figure closed.

    It is drawn once: `savefig` would draw it twice to arrange its parts, which a control that moves
    has no time for.
    """
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()

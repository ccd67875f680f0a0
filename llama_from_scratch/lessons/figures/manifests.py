"""Draws which file of a checkpoint in parts holds which elements of a tensor.

Notebook 47.
"""

import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.checkpoint.sharded.manifest import SavedTensor
from llama_from_scratch.lessons.figures.flow import MAX_WIDTH
from llama_from_scratch.lessons.figures.look import TINTS


def owners(saved: SavedTensor) -> np.ndarray:
    """Returns for each element of a matrix the number of the rank whose file holds it."""
    found = np.full(saved.shape, -1)
    for file, region in saved.pieces:
        for box in region.boxes():
            cut = tuple(slice(start, start + length)
                        for start, length in zip(box.starts, box.sizes, strict=True))
            found[cut] = int(re.findall(r"\d+", file)[0])
    return found


def held(tensors: Mapping[str, SavedTensor], *, title: str) -> Figure:
    """Draws matrices of a manifest side by side, each element in the color of its file.

    `tensors`: words -> matrix. Raises ValueError for a tensor that is no matrix, and for more files
    than there are colors.

    Example: `manifests.held({"saved": manifest.read(folder).tensors["model.output.weight"]},
    title="output")`
    """
    if odd := [name for name, saved in tensors.items() if len(saved.shape) != 2]:
        raise ValueError(f"this drawing shows matrices; got {odd[0]} of the shape "
                         f"{tensors[odd[0]].shape}. Choose a tensor with two axes")
    grids = {name: owners(saved) for name, saved in tensors.items()}
    used = sorted({int(rank) for grid in grids.values() for rank in np.unique(grid)})
    if used[-1] >= len(TINTS):
        raise ValueError(f"this drawing has colors for {len(TINTS)} files; got one of rank "
                         f"{used[-1]}. Save on fewer ranks")
    fig, axes = plt.subplots(1, len(grids), figsize=(MAX_WIDTH * 0.9, 3.2), squeeze=False)
    for ax, (name, grid) in zip(axes[0], grids.items(), strict=True):
        ax.imshow(grid, cmap=ListedColormap(TINTS), vmin=-0.5, vmax=len(TINTS) - 0.5,
                  aspect="auto", interpolation="nearest")
        ax.set(title=name, xlabel="column", ylabel="row")
        ax.locator_params(nbins=4)
    fig.suptitle(title, fontweight="bold")
    fig.legend(handles=[Patch(color=TINTS[rank], label=f"rank-{rank}.safetensors")
                        for rank in used], loc="outside lower center", ncols=4)
    told = "; ".join(f"{name}: " + ", ".join(f"rank {rank} {(grid == rank).sum():,} elements"
                                             for rank in map(int, np.unique(grid)))
                     for name, grid in grids.items())
    fig.set_label(f"The color of an element is the file that holds it. {told}.")
    return fig

"""Pictures of low-rank adapters: their sizes, and why a low rank can be enough.

Notebook 51.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, TINTS

_FROZEN, _TRAINED = "0.86", TINTS[1]


def layer(*, n_in: int, n_out: int, rank: int) -> Figure:
    """Draws W, and next to it B and A, all to one scale: an area is a number of weights.

    Example: `low_rank.layer(n_in=96, n_out=96, rank=4)`
    """
    fig, ax = plt.subplots(figsize=(9, 3.4), layout="none")
    fig.subplots_adjust(left=0.02, right=0.98, top=0.86, bottom=0.14)
    unit = 1 / max(n_in, n_out)
    thin = max(rank * unit, 0.012)  # a line that can be seen
    _matrix(ax, (0.0, 0.0), n_in * unit, n_out * unit, f"W: {n_out} x {n_in}", _FROZEN)
    ax.text(n_in * unit + 0.3, n_out * unit / 2, "+ scale", ha="center", va="center", fontsize=13)
    left = n_in * unit + 0.6
    _matrix(ax, (left, 0.0), thin, n_out * unit, f"B: {n_out} x {rank}", _TRAINED)
    ax.text(left + thin + 0.25, n_out * unit / 2, "times", ha="center", va="center", fontsize=13)
    _matrix(ax, (left + thin + 0.5, n_out * unit - thin), n_in * unit, thin,
            f"A: {rank} x {n_in}", _TRAINED)
    ax.set(xlim=(-0.25, left + thin + 0.5 + n_in * unit + 0.25), ylim=(n_out * unit + 0.2, -0.12),
           aspect="equal")
    ax.set_title("A frozen matrix, and two thin ones that learn")
    ax.axis("off")
    n_frozen, n_trained = n_in * n_out, rank * (n_in + n_out)
    fig.set_label(f"W has {n_frozen:,} weights and stays as it is. B and A have {n_trained:,} "
                  f"weights together, {n_trained / n_frozen:.1%} of it, and learn.")
    return fig


def _matrix(
    ax: Axes, corner: tuple[float, float], width: float, height: float, words: str, color: str
) -> None:
    ax.add_patch(plt.Rectangle(corner, width, height, facecolor=color, edgecolor="0.3", lw=1.2))
    ax.text(corner[0] + width / 2, corner[1] + height + 0.1, words, ha="center", va="center",
            fontsize=12)


def spectra(
    changes: Mapping[str, Float[Tensor, "_ _"]], *, ranks: Sequence[int] = (1, 4, 8)
) -> Figure:
    """Draws the singular values of the changes of several matrices, each divided by its largest.

    On the right: what part of the squared length of all changes together their first directions
    hold.

    Example: `low_rank.spectra({"wq": tuned.wq.weight - base.wq.weight})`
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(1.4, 1))
    values = {name: np.linalg.svd(change.detach().double().numpy(), compute_uv=False)
              for name, change in changes.items()}
    for found in values.values():
        left.plot(range(1, len(found) + 1), found / found[0], color=BLUE, alpha=0.35, lw=1.4)
    left.set(title="How much each direction changed", xlabel="direction, largest first",
             ylabel="singular value / largest", ylim=(0, 1.05))
    total = sum((found**2).sum() for found in values.values())
    shares = [sum((found[:rank] ** 2).sum() for found in values.values()) / total
              for rank in ranks]
    bars = right.bar([str(rank) for rank in ranks], [100 * share for share in shares],
                     color=ORANGE)
    right.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize=11)
    right.set(title="Held by the first", xlabel="directions", ylabel="percent of the change",
              ylim=(0, 112))
    told = ", ".join(f"{share:.0%} in the first {rank}" for rank, share in zip(
        ranks, shares, strict=True))
    fig.set_label(f"Of the squared length of {len(values)} changes, {told}.")
    return fig

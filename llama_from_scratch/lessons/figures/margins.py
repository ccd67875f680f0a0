"""Pictures of preferences: what DPO's loss asks for, and where both answers go in training.

Notebook 53.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, COLORS, ORANGE
from llama_from_scratch.tune.dpo import Shift


def losses(betas: Sequence[float] = (0.03, 0.1, 0.3), *, widest: float = 30.0) -> Figure:
    """Draws DPO's loss for margins up to `widest` nats, and how hard each pair pulls.

    Example: `margins.losses((0.03, 0.1, 0.3))`
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
    margins = np.linspace(-widest, widest, 201)
    for beta, color in zip(betas, COLORS, strict=False):
        left.plot(margins, np.logaddexp(0, -beta * margins), color=color, label=f"beta {beta:g}")
        right.plot(margins, beta / (1 + np.exp(beta * margins)), color=color,
                   label=f"beta {beta:g}")
    left.axhline(np.log(2), color=BLACK, lw=0.8, ls=":")
    left.set(title="Loss of a pair", xlabel="margin, nats", ylabel="nats", ylim=(0, None))
    right.set(title="How hard it pulls", xlabel="margin, nats", ylabel="weight", ylim=(0, None))
    left.legend()
    fig.set_label("At the margin 0 the loss is log 2 for every beta. A pair pulls with beta "
                  "sigmoid(-beta margin): " + ", ".join(
                      f"{beta / 2:g} at the margin 0 for beta {beta:g}" for beta in betas) + ".")
    return fig


def course(steps: Sequence[int], runs: Mapping[str, Sequence[Shift]]) -> Figure:
    """Draws how the log-probabilities of chosen and rejected answers changed, run by run.

    `runs`: for each run, what `dpo.shift` returned after each of `steps`. The first point, 0 after
    0 steps, is added.

    Example: `margins.course([10, 20], {"beta 0.1": shifts})`
    """
    fig, axes = plt.subplots(1, len(runs), figsize=(4.75 * len(runs), 3.4), sharey=True,
                             squeeze=False)
    told = []
    for ax, (name, shifts) in zip(axes[0], runs.items(), strict=True):
        at = [0, *steps]
        chosen, rejected = ([0.0, *(getattr(each, side) for each in shifts)]
                            for side in ("chosen", "rejected"))
        ax.fill_between(at, chosen, rejected, color="0.92")
        ax.plot(at, chosen, color=BLUE, label="chosen")
        ax.plot(at, rejected, color=ORANGE, label="rejected")
        ax.axhline(0, color=BLACK, lw=0.8, ls=":")
        ax.set(title=name, xlabel="steps")
        told.append(f"{name}: chosen {chosen[-1]:+.1f}, rejected {rejected[-1]:+.1f}")
    axes[0, 0].set_ylabel("change of log p, nats")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    fig.set_label(f"Change of the log-probabilities after {steps[-1]} steps. "
                  + "; ".join(told) + ".")
    return fig

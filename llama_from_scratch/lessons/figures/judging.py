"""Pictures of a reward model: what a pair teaches it, where it reads, and the best of n it picks.

Notebook 52.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, COLORS, TINTS
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.tune.evals import Mean

_PADDING, _READ = "#F4F4F4", TINTS[0]


def pair_loss(margins: Sequence[float] = (0.0, 1.0), *, widest: float = 5.0) -> Figure:
    """Draws how often the chosen answer wins, and the loss of a pair, by the rewards' difference.

    Example: `judging.pair_loss((0.0, 1.0))`
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3))
    differences = np.linspace(-widest, widest, 201)
    left.plot(differences, 1 / (1 + np.exp(-differences)), color=BLACK)
    left.set(title="The chosen answer wins", xlabel="difference of rewards", ylabel="probability",
             ylim=(0, 1))
    for margin, color in zip(margins, COLORS, strict=False):
        right.plot(differences, np.logaddexp(0, margin - differences), color=color,
                   label=f"margin {margin:g}")
    right.axhline(np.log(2), color=BLACK, lw=0.8, ls=":")
    right.set(title="Loss of a pair", xlabel="difference of rewards", ylabel="nats", ylim=(0, None))
    right.legend()
    fig.set_label("Equal rewards: the chosen answer wins in half of the cases, and the loss "
                  "without a margin is log 2. Loss at the difference 0: " + ", ".join(
                      f"{np.logaddexp(0, margin):.2f} with the margin {margin:g}"
                      for margin in margins) + ".")
    return fig


def places(rows: Batch, *, n_shown: int = 8) -> Figure:
    """Draws the first rows of a batch: the ids, the place where the reward is read, the padding.

    Each row has one target, as `reward.ended` makes it.

    Example: `judging.places(padded([[reward.ended(example)] for example in examples]))`
    """
    is_place = (rows.targets[:n_shown] != IGNORE).numpy()
    place = is_place.argmax(1)
    slot = np.arange(is_place.shape[1])[None]
    cells = np.where(slot < place[:, None], 1, np.where(is_place, 2, 0))
    fig, ax = plt.subplots(figsize=(9.5, 0.9 + 0.32 * len(cells)))
    ax.pcolormesh(cells, cmap=ListedColormap([_PADDING, _READ, BLUE]), edgecolors="white", lw=0.6,
                  vmin=0, vmax=2)
    ax.set(xlabel="position", ylabel="row", yticks=[])
    ax.invert_yaxis()
    ax.grid(False)
    fig.legend(handles=[Patch(color=_READ, label="ids of the dialog"),
                        Patch(color=BLUE, label="the end: read here"),
                        Patch(facecolor=_PADDING, edgecolor="0.8", label="padding")],
               loc="outside upper center", ncols=3)
    fig.set_label(f"{len(cells)} rows of {cells.shape[1]} positions. The reward is read at the end "
                  "of each answer: positions " + ", ".join(map(str, place.tolist())) + ".")
    return fig


def best_of_n(
    ns: Sequence[int], chosen_by: Mapping[str, tuple[Sequence[Mean], Sequence[Mean]]]
) -> Figure:
    """Draws the true score and the judge's own score of the best of n, for each judge.

    `chosen_by`: for each judge, both means at each of `ns`: the true score, and the score by which
    the judge chose. A band is one standard error wide on either side.

    Example: `judging.best_of_n([1, 2, 4], {"2,400 pairs": (true_scores, rewards)})`
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8))
    told = []
    for (name, both), color in zip(chosen_by.items(), COLORS, strict=False):
        for ax, means in zip(axes, both, strict=True):
            values, errors = (np.array([getattr(each, what) for each in means])
                              for what in ("value", "error"))
            ax.plot(ns, values, marker="o", ms=4, color=color, label=name)
            ax.fill_between(ns, values - errors, values + errors, color=color, alpha=0.15, lw=0)
        told.append(f"{name}: true score {both[0][0].value:.2f} to {both[0][-1].value:.2f}, "
                    f"own score {both[1][0].value:.2f} to {both[1][-1].value:.2f}")
    for ax, title, ylabel in zip(axes, ("What you wanted", "What you chose by"),
                                 ("true score", "the judge's score"), strict=True):
        ax.set_xscale("log", base=2)
        ax.set(title=title, xlabel="n, answers drawn", ylabel=ylabel, xticks=ns,
               xticklabels=[str(n) for n in ns])
        ax.minorticks_off()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.set_label(f"Best of n for n = {ns[0]} to {ns[-1]}, by judge. " + "; ".join(told) + ".")
    return fig

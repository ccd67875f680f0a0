"""Pictures of explanations: what each sentence did, when an answer appears, and a planted bias.

Notebook 59.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, COLORS, SIGNED


def parts(
    sentences: Sequence[str], by_method: Mapping[str, Sequence[float]], *, cause: int | None = None
) -> Figure:
    """Draws what each method says about each sentence, as a share of its largest number.

    `cause`: the sentence that is known to be the cause; it is marked with a frame.

    Example: `explaining.parts(sentences, {"leave one out": effects}, cause=2)`
    """
    table = np.array([np.asarray(values, dtype=float) / max(np.abs(values).max(), 1e-12)
                      for values in by_method.values()]).T
    fig, ax = plt.subplots(figsize=(2.6 + 1.5 * len(by_method), 0.9 + 0.42 * len(sentences)))
    ax.pcolormesh(table, cmap=SIGNED, vmin=-1, vmax=1, edgecolors="white", lw=2)
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            ax.text(column + 0.5, row + 0.5, f"{value:+.2f}", ha="center", va="center", fontsize=9,
                    color="white" if abs(value) > 0.6 else BLACK)
    if cause is not None:
        ax.add_patch(plt.Rectangle((0.02, cause + 0.02), len(by_method) - 0.04, 0.96, fill=False,
                                   ec=BLACK, lw=2))
    ax.set(xticks=np.arange(len(by_method)) + 0.5, yticks=np.arange(len(sentences)) + 0.5)
    ax.set_xticklabels(list(by_method), fontsize=9)
    ax.set_yticklabels(list(sentences), fontsize=10)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.invert_yaxis()
    for spine in ax.spines.values():
        spine.set_visible(False)
    tops = {name: sentences[int(np.argmax(table[:, i]))] for i, name in enumerate(by_method)}
    fig.set_label("Largest, by method. " + " ".join(f"{name}: {text}" for name, text in
                                                      tops.items()))
    return fig


def lens(
    probabilities: Mapping[str, Float[torch.Tensor, " layers"]], *, title: str
) -> Figure:
    """Draws how likely each word would be if the model stopped after each layer.

    Example: `explaining.lens({" blue": p_blue, " red": p_red}, title="After each layer")`
    """
    fig, ax = plt.subplots(figsize=(6.6, 3))
    told = []
    for (word, values), color in zip(probabilities.items(), COLORS, strict=False):
        ax.plot(range(len(values)), values, marker="o", color=color, label=word.strip())
        told.append(f"{word.strip()} {float(values[0]):.2f} to {float(values[-1]):.2f}")
    n_layers = len(next(iter(probabilities.values()))) - 1
    ax.set(title=title, xlabel="layers done", ylabel="probability", ylim=(-0.03, 1.03),
           xticks=range(n_layers + 1), xticklabels=["embedding", *map(str, range(1, n_layers + 1))])
    ax.legend()
    fig.set_label(f"Probability of the next word from the embedding to layer {n_layers}: "
                  + ", ".join(told) + ".")
    return fig


def planted(
    known: Mapping[str, float], found: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Draws the gaps that models have against the planted ones, in nats.

    `known`: the planted gap of each occupation. `found`: by model, the measured ones.

    Example: `explaining.planted(known, {"biased": gaps, "balanced": others})`
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.3))
    ends = min(known.values()) - 0.3, max(known.values()) + 0.3
    ax.plot(ends, ends, color=BLACK, lw=0.8, ls=":", label="as planted")
    told = []
    for (name, gaps), color in zip(found.items(), COLORS, strict=False):
        ax.plot([known[who] for who in known], [gaps[who] for who in known], "o", color=color,
                label=name)
        told.append(f"{name}: {min(gaps.values()):+.1f} to {max(gaps.values()):+.1f}")
    ax.axhline(0, color="0.8", lw=0.8)
    ax.set_xticks(list(known.values()), [f"{who} {gap:+.1f}" for who, gap in known.items()],
                  rotation=40, ha="right", fontsize=9)
    ax.set(xlabel="planted: log p(she) - log p(he), nats", ylabel="measured, nats")
    fig.legend(loc="outside lower center", ncols=2)
    fig.set_label(f"Planted gaps from {min(known.values()):+.1f} to {max(known.values()):+.1f} "
                  "nats. Measured, " + "; ".join(told) + ".")
    return fig

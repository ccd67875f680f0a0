"""Draws finished training runs: loss against tokens read."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.experiments import picture
from llama_from_scratch.lessons.figures.look import BLUE, COLORS, ORANGE
from llama_from_scratch.train import History


def plot_losses(runs: Mapping[str, History], *, title: str = "Loss while training") -> Figure:
    """Draws the loss against tokens read, in one color per run.

    A thin line shows each step, a thick line the running mean, and dots the validation loss.
    """
    fig, ax = plt.subplots()
    # strict=False: the colors repeat if there are more runs than colors.
    for (name, history), color in zip(runs.items(), itertools.cycle(COLORS), strict=False):
        tokens = history.n_tokens
        ax.plot(tokens, history.losses, color=color, alpha=0.3, linewidth=1)
        ax.plot(tokens, running_mean(history.losses), color=color, label=name)
        if history.validations:
            evaluated = [(tokens[i], step.validation.loss)
                         for i, step in enumerate(history.steps) if step.validation]
            ax.plot(*zip(*evaluated, strict=True), "o",
                    color=ORANGE if color == BLUE else color,
                    markeredgecolor="black", label=f"{name}, unseen stories")
    ax.set(xlabel="tokens read", ylabel="loss (nats per token)", title=title)
    ax.xaxis.set_major_formatter(thousands)
    ax.legend()
    return fig


def thousands(tokens: float | int, _: int | None) -> str:
    """Returns how a number of tokens is written at an axis; the place of its tick is not used."""
    return f"{tokens / 1000:,.0f}k" if tokens else "0"


def running_mean(values: Sequence[float], *, decay: float = 0.9) -> list[float]:
    """Returns running means, in which each value has `decay` times the weight of the next value.

    For example, [1, 0] -> [1.0, 0.47] with decay 0.9.
    """
    return picture.running_mean(np.array([values], np.float64), decay)[0].tolist()

"""Draws what interrupts a large training, and how much of its time remains useful.

Notebook 47.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import MAX_WIDTH
from llama_from_scratch.lessons.figures.look import BLUE, COLORS
from llama_from_scratch.parallel.interruptions import (
    N_DAYS,
    N_GPUS,
    UNEXPECTED,
    best_interval_s,
    between_s,
    useful_share,
)

N_SHOWN = 9
MINUTE = 60.0


def causes() -> Figure:
    """Draws the counts of unexpected interruptions by cause, the rare ones in one bar.

    Example: `interruptions.causes()`
    """
    shown = dict(list(UNEXPECTED.items())[:N_SHOWN])
    n_other = sum(UNEXPECTED.values()) - sum(shown.values())
    bars = shown | {f"{len(UNEXPECTED) - N_SHOWN} other causes": n_other}
    fig, ax = plt.subplots(figsize=(MAX_WIDTH * 0.85, 3.7))
    ax.bar_label(ax.barh(list(bars), list(bars.values()), color=BLUE), padding=3, fontsize=11)
    ax.invert_yaxis()
    ax.set(xlabel="unexpected interruptions", xlim=(0, 1.12 * max(bars.values())),
           title=f"{sum(UNEXPECTED.values())} interruptions in {N_DAYS} days, {N_GPUS:,} GPUs")
    first, n = next(iter(UNEXPECTED.items()))
    fig.set_label(f"{sum(UNEXPECTED.values())} unexpected interruptions in {N_DAYS} days on "
                  f"{N_GPUS:,} GPUs. The most frequent cause is a {first}: {n} times.")
    return fig


def useful_time(n_gpus: Sequence[int], *, save_s: float | int, restart_s: float | int) -> Figure:
    """Draws the useful share of the time over the interval of checkpoints, by number of GPUs.

    A dot is the best interval. `save_s`, `restart_s`: as in `interruptions.useful_share`.

    Example: `interruptions.useful_time([1024, 16_384], save_s=30, restart_s=600)`
    """
    fig, ax = plt.subplots(figsize=(MAX_WIDTH * 0.85, 3.4))
    intervals = np.geomspace(0.5, 600, 200) * MINUTE
    told = []
    for n, color in zip(n_gpus, COLORS, strict=False):
        mean_s = between_s(n)

        def share(interval_s: float, mean_s: float = mean_s) -> float:
            return 100 * useful_share(interval_s=interval_s, save_s=save_s, restart_s=restart_s,
                                      between_s=mean_s)

        best_s = best_interval_s(save_s=save_s, between_s=mean_s)
        ax.plot(intervals / MINUTE, [share(x) for x in intervals], color=color,
                label=f"{n:,} GPUs")
        ax.plot(best_s / MINUTE, share(best_s), "o", color=color)
        told.append(f"{n:,} GPUs: at most {share(best_s):.1f} %, with a checkpoint every "
                    f"{best_s / MINUTE:.0f} minutes")
    ax.set(xscale="log", ylim=(0, 100), xlabel="minutes from checkpoint to checkpoint",
           ylabel="useful time, %", title=f"A save stops training for {save_s:g} s, a restart for "
           f"{restart_s / MINUTE:g} min")
    ax.set_xticks([1, 10, 100, 600], ["1", "10", "100", "600"])
    fig.legend(loc="outside lower center", ncols=4)
    fig.set_label("; ".join(told) + ".")
    return fig

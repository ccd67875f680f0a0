"""Draws the learning rate over a run: a climb, the peak, and half a cosine down.

Notebook 17.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE, RED
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.train.schedule import learning_rate


def schedule(config: TrainConfig) -> Figure:
    """Draws the learning rate of every step of a run, with labels at its peak and its end.

    Example: `rates.schedule(TrainConfig(n_steps=1000))`
    """
    rates = [learning_rate(step, n_steps=config.n_steps, peak=config.peak_lr,
                           n_warmup=config.n_warmup, final_ratio=config.final_lr_ratio)
             for step in range(config.n_steps)]
    fig, ax = plt.subplots(figsize=(8, 3.2), facecolor="white", layout="constrained")
    ax.plot(rates, color=BLUE)
    ax.axvspan(0, config.n_warmup, color="0.92", zorder=0)
    ax.set(xlabel="step", ylabel="learning rate", ylim=(0, 1.25 * config.peak_lr),
           xlim=(0, config.n_steps), title="Climb to the peak, then half a cosine down")
    for step, words, side in ((config.n_warmup, f"peak {rates[config.n_warmup]:.2g}", "left"),
                              (config.n_steps - 1, f"end {rates[-1]:.2g}", "right")):
        ax.plot(step, rates[step], "o", color=RED, clip_on=False)
        ax.annotate(words, (step, rates[step]), ha=side, fontsize=11,
                    xytext=(10, 7) if side == "left" else (0, 14),
                    textcoords="offset points")
    ax.text(0.005 * config.n_steps, 1.23 * config.peak_lr, f"{config.n_warmup} steps of warm-up",
            va="top", fontsize=11)
    fig.set_label(f"The rate climbs for {config.n_warmup} steps to {config.peak_lr:.2g} and falls "
                  f"to {rates[-1]:.2g}, {config.final_lr_ratio:g} of the peak.")
    return fig

"""Shows finished runs that differ in their learning rate, and the final loss of each.

Used by the chapter on training (17).
"""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, ORANGE, RED
from llama_from_scratch.lessons.figures.losses import running_mean, thousands
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.train import History


def learning_rates(runs: Mapping[float, History]) -> Explorer:
    """Returns a widget of finished runs with different peak learning rates; one is highlighted."""
    if len(runs) < 2 or any(not history.steps for history in runs.values()):
        raise ValueError("a comparison needs at least two runs, each with at "
                         f"least one step; got {len(runs)} runs")
    ordered = dict(sorted(runs.items()))
    rates = {f"{rate:g}": rate for rate in ordered}
    return explore(lambda peak_lr: learning_rates_frame(ordered, peak_lr=peak_lr),
                   title="Which learning rate?",
                   controls={"peak_lr": rates}, labels={"peak_lr": "peak learning rate"})


def final_loss(history: History) -> float:
    """Returns the running mean of the loss at the last step, in nats per token.

    It is infinite if the running mean is not a finite number.
    """
    mean = running_mean(history.losses)[-1]
    return mean if math.isfinite(mean) else math.inf


def learning_rates_frame(runs: Mapping[float, History], *, peak_lr: float) -> Figure:
    """Draws the loss curves of all runs, and the final loss of each against its learning rate.

    The run with `peak_lr` is in color.
    """
    ends = {rate: final_loss(history) for rate, history in runs.items()}
    best = min(ends, key=ends.get)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.7), sharey=True, width_ratios=(1.3, 1))
    for rate, history in runs.items():
        is_chosen = rate == peak_lr
        left.plot(history.n_tokens, running_mean(history.losses),
                  color=BLUE if is_chosen else "0.8",
                  zorder=3 if is_chosen else 2, linewidth=3 if is_chosen else 1.5)
    finite = [end for end in ends.values() if math.isfinite(end)]
    highest = max(history.losses[0]
                  for history in runs.values() if math.isfinite(history.losses[0]))
    left.set(xlabel="tokens read", ylabel="loss (nats per token)",
             title=f"peak learning rate {peak_lr:g}",
             ylim=(0.95 * min(finite, default=0), 1.1 * highest))
    left.xaxis.set_major_formatter(thousands)
    right.plot(list(ends), [end if math.isfinite(end) else math.nan for end in ends.values()], "o-",
               color="0.6", markersize=7)
    for rate in (rate
                 for rate, end in ends.items() if not math.isfinite(end) or end > 1.1 * highest):
        right.plot(rate, 1.05 * highest, "X", color=RED, markersize=11, label=f"{rate:g} diverged")
    right.plot(best, ends[best], "*", color=ORANGE, markersize=20, label=f"lowest: {best:g}",
               markeredgecolor=BLACK)
    if math.isfinite(ends[peak_lr]):
        right.plot(peak_lr, ends[peak_lr], "o", color=BLUE, markersize=11)
    right.set(xscale="log", xlabel="peak learning rate", title="Loss at the end")
    right.legend()
    end = f"ends at a loss of {ends[peak_lr]:.2f}" if math.isfinite(ends[peak_lr]) else "diverges"
    fig.set_label(f"The run with peak learning rate {peak_lr:g} {end}; the lowest, "
                  f"{ends[best]:.2f}, has {best:g}.")
    return fig

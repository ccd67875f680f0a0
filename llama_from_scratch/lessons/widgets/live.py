"""The picture of a run while it runs: loss against tokens, and the time left. And the still picture of a finished one.

`train(..., on_step=LivePlot(n_steps=300))` draws as it goes. The figure lives in a widget, so nothing of it is stored with
the notebook; `plot_losses` draws the same from the history afterwards, to keep.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import BLUE, COLOURS, ORANGE, png
from llama_from_scratch.train import History, Step
from llama_from_scratch.train.progress import duration

_REDRAW_S = 0.7


class LivePlot(ipywidgets.VBox):
    """A widget to display before the run and to pass to `train` as `on_step`. `picture.value` holds the PNG."""

    def __init__(self, *, n_steps: int) -> None:
        self._n_steps, self._steps = n_steps, []
        self._began_s = self._drawn_s = 0.0
        self.bar = ipywidgets.IntProgress(max=n_steps, description="steps", layout={"width": "32em"})
        self.words = ipywidgets.Label("waiting for the first step")
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        super().__init__([ipywidgets.HBox([self.bar, self.words]), self.picture])

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if not self._steps:
            self._began_s = now - step.time_s
        self._steps.append(step)
        is_last = step.step + 1 == self._n_steps
        if now - self._drawn_s < _REDRAW_S and not is_last:
            return
        left_s = (now - self._began_s) / len(self._steps) * (self._n_steps - step.step - 1)
        self.bar.value = step.step + 1
        self.words.value = f"{step.step + 1} of {self._n_steps}   loss {step.loss:.3f}   {duration(left_s)} left"
        self.picture.value = png(plot_losses({"this run": History(steps=tuple(self._steps), is_complete=is_last)}))
        self._drawn_s = time.monotonic()

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**settings) | {"text/plain": "a live plot of the loss (run the cell to watch it)"}


def plot_losses(runs: Mapping[str, History], *, title: str = "Loss while training") -> Figure:
    """Loss against tokens read, one colour per run: thin for each step, thick for their running mean, dots for validation."""
    fig, ax = plt.subplots()
    for (name, history), colour in zip(runs.items(), COLOURS):
        tokens = history.n_tokens
        ax.plot(tokens, history.losses, color=colour, alpha=0.3, linewidth=1)
        ax.plot(tokens, running_mean(history.losses), color=colour, label=name)
        if history.validations:
            steps, evaluations = zip(*((i, s.validation) for i, s in enumerate(history.steps) if s.validation))
            ax.plot([tokens[i] for i in steps], [e.loss for e in evaluations], "o", color=ORANGE if colour == BLUE else colour,
                    markeredgecolor="black", label=f"{name}, unseen stories")
    ax.set(xlabel="tokens read", ylabel="loss (nats per token)", title=title)
    ax.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1000:,.0f}k")
    ax.legend()
    return fig


def running_mean(values: Sequence[float], *, decay: float = 0.9) -> list[float]:
    """An average in which each earlier value counts `decay` times the next: [1, 0] -> [1.0, 0.47] with decay 0.9."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means

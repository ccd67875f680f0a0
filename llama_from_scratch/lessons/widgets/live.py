"""Draws a training run while it runs: loss against tokens, speed, time left, the latest sample.

`train(..., on_step=LivePlot(n_steps=300))` draws during the training. The figure is in a widget,
which is not stored with the notebook. `plot_losses` draws the same figure from the history
afterwards, and that one is stored.
"""

import html
import time
from collections.abc import Callable
from typing import Any

import ipywidgets

from llama_from_scratch.lessons.figures.look import png
from llama_from_scratch.lessons.figures.losses import plot_losses
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.train import History, Step
from llama_from_scratch.train.progress import TrainingMoment, TrainingProgress


class LivePlot(ipywidgets.VBox):
    """Draws the losses of a run while it trains.

    Display it before the run, and pass it to `train` as `on_step`, or its `show` to
    `experiments.run`. `picture.value` is the PNG.
    `sample()` returns what the model writes now; it is called and shown at each validation.
    """

    def __init__(self, *, n_steps: int, sample: Callable[[], str] | None = None) -> None:
        self._steps: list[Step] = []
        self._next_s = 0.0
        self._progress = TrainingProgress(n_steps=n_steps, sample=sample, show=self.show)
        self.bar = ipywidgets.IntProgress(max=n_steps, description="steps",
                                          layout={"width": "32em", "max_width": "100%"})
        self.words = ipywidgets.Label("waiting for the first step")
        self.sample = ipywidgets.HTML()
        self.picture = parts.picture()
        line = ipywidgets.HBox([self.bar, self.words], layout={"flex_flow": "row wrap"})
        super().__init__([parts.heading(""), line, self.sample, parts.framed(self.picture)])
        self.add_class(parts.WIDGET_CLASS)

    def __call__(self, step: Step) -> None:
        self._progress(step)

    def show(self, moment: TrainingMoment) -> None:
        """Draws the run up to this moment."""
        self._steps.append(moment.step)
        began_s = time.monotonic()
        if began_s < self._next_s and not moment.is_last:
            return
        self.bar.value, self.words.value = moment.n_done, moment.words
        self.sample.value = f"<i>{html.escape(moment.sample)}</i>" if moment.sample else ""
        so_far = History(steps=tuple(self._steps), is_complete=moment.is_last)
        self.picture.value = png(plot_losses({"this run": so_far}))
        self._next_s = parts.next_drawing_s(began_s, time.monotonic())

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": "a live plot of the loss (run the cell to watch it)"}
        return super()._repr_mimebundle_(**settings) | still

"""Draws a training run while it runs: loss against tokens, and the time left.

`train(..., on_step=LivePlot(n_steps=300))` draws during the training. The figure is in a widget,
which is not stored with the notebook. `plot_losses` draws the same figure from the history
afterwards, and that one is stored.
"""

import time
from typing import Any

import ipywidgets

from llama_from_scratch.lessons.figures.look import png
from llama_from_scratch.lessons.figures.losses import plot_losses
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.train import History, Step
from llama_from_scratch.train.progress import duration

_REDRAW_S = 0.7


class LivePlot(ipywidgets.VBox):
    """Draws the losses of a run while it trains.

    Display it before the run, and pass it to `train` as `on_step`. `picture.value` is the PNG.
    """

    def __init__(self, *, n_steps: int) -> None:
        self._n_steps, self._steps = n_steps, []
        self._began_s = self._drawn_s = 0.0
        self.bar = ipywidgets.IntProgress(max=n_steps, description="steps",
                                          layout={"width": "32em", "max_width": "100%"})
        self.words = ipywidgets.Label("waiting for the first step")
        self.picture = parts.picture()
        line = ipywidgets.HBox([self.bar, self.words], layout={"flex_flow": "row wrap"})
        super().__init__([parts.heading(""), line, parts.framed(self.picture)])
        self.add_class(parts.WIDGET_CLASS)

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
        self.words.value = (f"{step.step + 1} of {self._n_steps}, loss {step.loss:.3f}, "
                            f"{duration(left_s)} left")
        so_far = History(steps=tuple(self._steps), is_complete=is_last)
        self.picture.value = png(plot_losses({"this run": so_far}))
        self._drawn_s = time.monotonic()

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": "a live plot of the loss (run the cell to watch it)"}
        return super()._repr_mimebundle_(**settings) | still

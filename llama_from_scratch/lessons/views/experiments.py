"""Shows remembered runs of an experiment: choose variants, the axis, the metric and the smoothing.

Used by the chapter on experiments (09).
"""

import html
from pathlib import Path

import ipywidgets
from matplotlib.figure import Figure

from llama_from_scratch.experiments.compare import (
    JUDGED,
    baseline,
    compare,
    labeled,
    usual_metric,
)
from llama_from_scratch.experiments.curves import AXES, METRICS
from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.experiments.picture import SMOOTHED, SMOOTHING, draw
from llama_from_scratch.experiments.store import Store
from llama_from_scratch.experiments.variant import Variant, grouped
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

_N_SHOWN = 6
"""This many variants are shown at the start; more than a few curves hide each other."""


def choose_runs(
    experiment: Experiment, *, kept_in: Store | str | Path | None = None,
    saved_in: Store | str | Path | None = None,
) -> Explorer:
    """Returns a widget that draws and compares the variants of an experiment in a store.

    `kept_in`: the store or its folder. `saved_in`: where the saved baseline is, by default
    data/experiments. Raises ValueError if there are neither runs nor a saved baseline.
    """
    variants, lines = _found(experiment, kept_in, saved_in)
    choices = labeled(variants)
    table = ipywidgets.HTML()
    axes = {words: name for name, words in AXES.items()}
    metrics = {words: name for name, words in METRICS.items()}

    def picture(reference: str, axis: str, metric: str, smoothing: float, **shown: bool) -> Figure:
        others = [label for label in choices if shown[label] and label != reference]
        return frame(choices[reference], *(choices[label] for label in others), axis=axes[axis],
                     metric=metrics[metric], smoothing=smoothing, table=table, lines=lines)

    labels = [*choices]
    controls = {"reference": labels, **{label: i < _N_SHOWN for i, label in enumerate(labels)},
                "axis": [*axes], "metric": [*metrics], "smoothing": (0.0, 0.99, SMOOTHING)}
    widget = explore(
        picture, title=f"Which runs of {experiment.name}?", controls=controls,
        labels={**{label: label for label in labels}, "reference": "compare with", "axis": "along",
                "metric": "what is drawn", "smoothing": "smoothing of training loss and gradient"},
        start={"metric": METRICS[usual_metric(variants)]})
    widget.children = (*widget.children, table)
    return widget


def frame(
    reference: Variant, *others: Variant, axis: str, metric: str, smoothing: float,
    table: ipywidgets.HTML, lines: tuple[str, ...] = (),
) -> Figure:
    """Draws variants, and writes the table of their comparison, with `lines` below, into `table`.

    The table judges the metric that is drawn, if it is one of those that are judged.
    """
    decay = smoothing if metric in SMOOTHED else None
    if others:
        found = compare(reference, *others, metric=metric if metric in JUDGED else None)
        figure = found.picture(axis=axis, metric=metric, smoothing=decay)
        page = found._repr_html_()
    else:
        figure = draw(labeled([reference]), axis=axis, metric=metric, smoothing=decay,
                      title=reference.experiment)
        page = "<p>Choose another variant to compare.</p>"
    below = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    table.value = page + (f"<ul>{below}</ul>" if below else "")
    return figure


def _found(
    experiment: Experiment, kept_in: Store | str | Path | None,
    saved_in: Store | str | Path | None,
) -> tuple[list[Variant], tuple[str, ...]]:
    """Returns the variants, the saved baseline first, and lines about what cannot be shown."""
    kept_in = kept_in if isinstance(kept_in, Store) else Store(kept_in)
    variants, lines = [], []
    try:
        variants.append(baseline(experiment, kept_in=saved_in))
    except ValueError as error:
        lines.append(str(error))
    try:
        runs, damaged = kept_in.runs(experiment.name)
        variants += grouped(runs)
        lines += [f"not shown: {each.reason}" for each in damaged]
    except ValueError as error:
        lines.append(str(error))
    if not variants:
        raise ValueError(f"runs can be chosen when there are some; {'; '.join(lines)}")
    return variants, tuple(lines)


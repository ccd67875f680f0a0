"""Draws the curves of variants: a mean over the seeds, and a band from the lowest to the highest.

Colors and letters are the same as in every picture of the course, and legible at a width of 900
pixels. The baseline, which comes first, is gray.

Notebook 09.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from llama_from_scratch.config import record
from llama_from_scratch.experiments.curves import AXES, METRICS, VALIDATED, Curves
from llama_from_scratch.experiments.store import Run
from llama_from_scratch.experiments.variant import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED = ("loss", "grad_norm")
"""The metrics that are noisy from step to step."""
SMOOTHING = 0.9
_COLORS = ("#555555", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#222222")
_DASHES = ("-", "--", ":", "-.")
_STYLE = {
    "figure.facecolor": "white", "axes.facecolor": "white", "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 13, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 12, "xtick.labelsize": 11,
    "ytick.labelsize": 11, "legend.fontsize": 11, "legend.title_fontsize": 10,
    "legend.frameon": False, "lines.linewidth": 2.2}
_BEGINNING = 0.2
"""The part of a run whose training loss may be above the picture; later differences are small."""


@record
class Band:
    """The curves of a variant along an axis, P places: mean, lowest and highest of the seeds.

    `left_out`: a line about each run that is not in it.
    """

    places: Float[np.ndarray, "P"]
    mean: Float[np.ndarray, "P"]
    low: Float[np.ndarray, "P"]
    high: Float[np.ndarray, "P"]
    n_seeds: int
    left_out: tuple[str, ...]


def band(
    variant: Variant, *, axis: str, metric: str, smoothing: float = 0.0
) -> Band:
    """Returns the band of the complete runs of a variant. It is empty if none has curves.

    Each curve is smoothed by itself. A place is the mean over the seeds, because the seconds of a
    step differ.
    """
    pairs, left_out = [], []
    for run in variant.runs:
        curves = _whole(run)
        if isinstance(curves, str):
            left_out.append(f"seed {run.seed}: {curves}")
        else:
            pairs.append(curves.along(metric, axis=axis))
    if len({len(places) for places, _ in pairs}) > 1:
        raise ValueError("the runs of a variant have equally many measurements; "
                         f"{variant.label} has {sorted({len(p) for p, _ in pairs})}. Run it again")
    if not pairs:
        none = np.zeros(0)
        return Band(places=none, mean=none, low=none, high=none, n_seeds=0,
                    left_out=tuple(left_out))
    places = np.stack([places for places, _ in pairs]).mean(0).astype(np.float64)
    values = running_mean(np.stack([values for _, values in pairs]).astype(np.float64), smoothing)
    return Band(places=places, mean=values.mean(0), low=values.min(0), high=values.max(0),
                n_seeds=len(pairs), left_out=tuple(left_out))


def _whole(run: Run) -> Curves | str:
    """Returns the curves of a complete run, or why there are none."""
    if not run.is_complete:
        return run.state
    try:
        curves = run.curves
    except ValueError as error:
        return str(error)
    if len(curves.steps) != run.metrics["n_steps"]:
        return (f"its curves have {len(curves.steps)} of {run.metrics['n_steps']} steps. Run it "
                "again")
    return curves


def running_mean(
    values: Float[np.ndarray, "seeds P"], decay: float
) -> Float[np.ndarray, "seeds P"]:
    """Returns running means, in which each value has `decay` times the weight of the next value."""
    means, total, weight = np.empty_like(values), np.zeros(len(values)), 0.0
    for i in range(values.shape[1]):
        total, weight = decay * total + values[:, i], decay * weight + 1
        means[:, i] = total / weight
    return means


def draw(
    variants: Mapping[str, Variant], *, axis: str = "steps", metric: str = "validation_loss",
    smoothing: float | None = None, title: str = "",
) -> "Figure":
    """Returns the figure of variants by label, the first in gray. Its label describes it in words.

    `smoothing`: the decay of a running mean over steps, from 0 to below 1; None is 0.9 for the
    metrics in `SMOOTHED`, the only ones that are smoothed.
    Raises ValueError for unknown names, for smoothing of another metric, and if no run has curves.
    """
    import matplotlib.pyplot as plt

    smoothing = _smoothing(smoothing, metric)
    bands = {label: band(variant, axis=axis, metric=metric, smoothing=smoothing)
             for label, variant in variants.items()}
    left_out = [f"{label}, {line}" for label, each in bands.items() for line in each.left_out]
    drawn = {label: each for label, each in bands.items() if len(each.places)}
    if not drawn:
        raise ValueError("a picture needs at least one complete run with curves that have the "
                         f"metric {metric!r}; there is none: {'; '.join(left_out) or 'no values'}")
    with plt.rc_context(_STYLE):
        figure, ax = plt.subplots(figsize=(9, 4.2), dpi=100, layout="constrained")
        for i, (label, each) in enumerate(bands.items()):
            if label in drawn:
                _draw_band(ax, each, look=i, label=label,
                           has_points=metric in VALIDATED)
                if metric == "loss":
                    _draw_validation(ax, band(variants[label], axis=axis, metric="validation_loss"),
                                     look=i)
        words = f", running mean (decay {smoothing:g})" if smoothing else ""
        ax.set(xlabel=AXES[axis], ylabel=textwrap.fill(METRICS[metric] + words, 34), title=title)
        _format(ax, axis)
        below = _warnings(variants.values(), axis)
        below += _crop(ax, drawn) if metric == "loss" else []
        below += [f"not drawn: {line}" for line in left_out]
        _finish(figure, ax, below, drawn, metric)
    figure.set_label(_described(drawn, metric, axis, below))
    return figure


def _smoothing(given: float | None, metric: str) -> float:
    if given is None:
        return SMOOTHING if metric in SMOOTHED else 0.0
    if not 0 <= given < 1:
        raise ValueError("smoothing is the decay of a running mean, from 0 to below 1; "
                         f"got {given}")
    if given and metric not in SMOOTHED:
        raise ValueError(f"only {' and '.join(SMOOTHED)} are smoothed; got smoothing={given} for "
                         f"{metric!r}. Leave it out")
    return given


def _look(i: int) -> dict[str, str]:
    return {"color": _COLORS[i % len(_COLORS)], "linestyle": _DASHES[i // len(_COLORS) % 4]}


def _draw_band(ax: "Axes", each: Band, *, look: int, label: str, has_points: bool) -> None:
    seeds = "1 seed" if each.n_seeds == 1 else f"{each.n_seeds} seeds"
    ax.plot(each.places, each.mean, label=textwrap.fill(f"{label} ({seeds})", 27),
            marker="o" if has_points else None, markersize=6, zorder=3.5 if look == 0 else 3,
            **_look(look))
    if each.n_seeds > 1:
        ax.fill_between(each.places, each.low, each.high, color=_look(look)["color"], alpha=0.2,
                        linewidth=0, zorder=2)


def _draw_validation(ax: "Axes", each: Band, *, look: int) -> None:
    """Marks the mean of each validation, with a line from the lowest to the highest seed."""
    ax.errorbar(each.places, each.mean, yerr=(each.mean - each.low, each.high - each.mean),
                fmt="o", color=_look(look)["color"], markeredgecolor="black", markersize=7,
                elinewidth=1.5, zorder=4)


def _format(ax: "Axes", axis: str) -> None:
    if axis == "tokens":
        ax.xaxis.set_major_formatter(lambda place, _: f"{place / 1000:,.0f}k")
    elif axis == "flops":
        ax.xaxis.set_major_formatter(lambda place, _: f"{place:.2g}" if place else "0")


def _warnings(variants: Iterable[Variant], axis: str) -> list[str]:
    """Returns what a reader should know about an axis."""
    if axis == "seconds":
        return ["seconds also depend on what else the machine did during a run"]
    if axis == "flops" and any(variant.parts for variant in variants):
        return ["FLOPs are counted from the settings; exchanged parts may need more or fewer"]
    return []


def _crop(ax: "Axes", drawn: Mapping[str, Band]) -> list[str]:
    """Ends the picture below the first, high losses, and returns a line that says so."""
    later = [each.high[int(_BEGINNING * len(each.high)):].max() for each in drawn.values()]
    first = max(each.high[0] for each in drawn.values())
    if first <= 1.1 * max(later):
        return []
    ax.set_ylim(top=1.02 * max(later))
    return ["higher losses, in the first fifth of the runs, are above the picture"]


def _finish(
    figure: "Figure", ax: "Axes", below: list[str], drawn: Mapping[str, Band], metric: str
) -> None:
    """Adds the legend to the right, and the lines below the axes."""
    title = ("bands: lowest to highest seed" if any(b.n_seeds > 1 for b in drawn.values()) else "")
    if metric == "loss":
        title += "\ndots: validation loss"
    figure.legend(loc="outside right upper", title=title.strip() or None, alignment="left")
    if below:
        text = "\n".join(line for each in below for line in textwrap.wrap(each, 120))
        figure.supxlabel(text, fontsize=10, x=0.01, ha="left")


def _described(drawn: Mapping[str, Band], metric: str, axis: str, below: list[str]) -> str:
    ends = "; ".join(f"{label} ends at {each.mean[-1]:.4g}" for label, each in drawn.items())
    words = f"Curves of {METRICS[metric]} against {AXES[axis]}: {ends}."
    return " ".join([words, *(f"{line[0].upper()}{line[1:]}." for line in below)])

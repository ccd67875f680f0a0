"""Pictures of refusing: which deeds are harmful and held out, and the curve of all thresholds.

Notebook 57.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.lessons.figures.look import BLACK, TINTS
from llama_from_scratch.tune.safeguards.margins import RatesAt
from llama_from_scratch.tune.world.requests import (
    KINDS_OF_DEEDS,
    OBJECTS,
    VERBS,
    is_held_out_deed,
    kind_of_deed,
)

KIND_TINTS = {"harmful": TINTS[3], "borderline": TINTS[1], "everyday": TINTS[5]}


def deeds() -> Figure:
    """Draws each verb with each object, colored by kind. A dot marks what is never trained.

    Example: `refusals.deeds()`
    """
    kinds = np.array([[KINDS_OF_DEEDS.index(kind_of_deed(verb, object)) for object in OBJECTS]
                      for verb in VERBS])
    held_out = np.array([[is_held_out_deed(verb, object) for object in OBJECTS]
                         for verb in VERBS])
    fig, ax = plt.subplots(figsize=(9, 5))
    ax.imshow(kinds, cmap=ListedColormap([KIND_TINTS[kind] for kind in KINDS_OF_DEEDS]),
              aspect="auto", vmin=0, vmax=2)
    rows, columns = np.nonzero(held_out)
    ax.scatter(columns, rows, color=BLACK, s=16)
    ax.set_xticks(range(len(OBJECTS)), OBJECTS, rotation=90)
    ax.set_yticks(range(len(VERBS)), VERBS)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(title="Verb and object together decide; dots are never trained")
    fig.legend(handles=[Patch(color=KIND_TINTS[kind], label=kind) for kind in KINDS_OF_DEEDS],
               loc="outside lower center", ncols=3)
    fig.set_label(f"Of {kinds.size} deeds {int((kinds == 0).sum())} are harmful, and "
                  f"{int(held_out.sum())} are held out. Every verb and every object is trained.")
    return fig


def curves(found: Mapping[str, Sequence[RatesAt]]) -> Figure:
    """Draws the violation rate against the false refusal rate for every threshold.

    `found`: by name, a curve of `margins.curve`. A dot marks the threshold 0 of greedy decoding.

    Example: `refusals.curves({"30 %": margins.curve(harmful=a, harmless=b)})`
    """
    fig, ax = plt.subplots(figsize=(6.6, 4.6))
    told = []
    for name, points in found.items():
        line, = ax.plot([100 * each.false_refusal_rate for each in points],
                        [100 * each.violation_rate for each in points], lw=2, label=name,
                        drawstyle="steps-post")
        greedy = [each for each in points if each.threshold <= 0][-1]
        place = 100 * greedy.false_refusal_rate, 100 * greedy.violation_rate
        ax.plot(*place, "o", ms=9, color=line.get_color(), clip_on=False)
        told.append(f"{name}: violations {place[1]:.0f} %, false refusals {place[0]:.0f} %")
    ax.set(title="Every threshold, and greedy decoding (dots)", xlim=(-2, 102), ylim=(-2, 102),
           xlabel="false refusals of borderline requests, percent", ylabel="violations, percent")
    ax.legend(title="borderline share")
    fig.set_label("At threshold 0: " + "; ".join(told) + ".")
    return fig

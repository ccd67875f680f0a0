"""Shows what a schedule, its stages, micro-batches and chunks do to a pipeline's time and memory.

Used by chapter 44.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import schedules as figures
from llama_from_scratch.lessons.figures.look import BLUE, PINK
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel.pipeline.schedule import Schedule
from llama_from_scratch.parallel.pipeline.schedules import SCHEDULES, make
from llama_from_scratch.parallel.pipeline.simulate import PipelineTimeline, Times, simulate

HOPS = {"0": Fraction(0), "1/8": Fraction(1, 8), "1/4": Fraction(1, 4), "1/2": Fraction(1, 2)}
Choice = Mapping[str, Any]


def pipeline_schedules(*, start: Choice | None = None) -> Explorer:
    """Returns a widget with the schedule and its sizes, which shows the chart and the memory.

    `start`: other first values, such as {"n_ranks": 8}.
    """
    return explore(
        pipeline_frame, title="A pipeline's schedule",
        controls={"schedule": [*SCHEDULES], "n_ranks": (2, 8, 4), "n_micro_batches": (1, 16, 8),
                  "n_chunks": (2, 4), "n_together": (1, 16, 4), "hop": HOPS, "recompute": False},
        labels={"n_ranks": "ranks P", "n_micro_batches": "micro-batches M",
                "n_chunks": "chunks V", "n_together": "N together",
                "hop": "a message takes", "recompute": "recompute activations"},
        start={"schedule": "1f1b"} | dict(start or {}),
        limits=lambda **choice: {"n_together": choice["n_micro_batches"]})


def pipeline_frame(
    schedule: str, n_ranks: int, n_micro_batches: int, n_chunks: int, n_together: int,
    hop: Fraction, recompute: bool,
) -> Figure:
    """Draws the chosen schedule, and below it the bubble and the memory of all four.

    A unit of time is a forward pass through all chunks of a rank; B and W take as long. V and N
    are for "interleaved" only.
    """
    runs = {name: _run(_made(name, n_ranks, n_micro_batches, n_chunks, n_together), hop, recompute)
            for name in SCHEDULES}
    chosen = runs[schedule]
    fig, axes = plt.subplot_mosaic(
        [["lanes", "lanes"], ["bubble", "kept"]], figsize=(9, 3.6 + 0.5 * n_ranks),
        height_ratios=(0.5 * n_ranks + 0.4, 1.6))
    figures.draw_lanes(axes["lanes"], chosen, title=f"{schedule}: {SCHEDULES[schedule]}")
    figures.legend(fig, [chosen])
    bubbles = {name: float(run.bubble) for name, run in runs.items()}
    kept = {name: float(max(figures.kept(run, rank) for rank in range(n_ranks)))
            for name, run in runs.items()}
    for ax, values, color, title in (
            (axes["bubble"], bubbles, BLUE, "bubble, relative to computing"),
            (axes["kept"], kept, PINK, "micro-batches kept, at most")):
        bars = ax.barh(list(values), values.values(),
                       color=[color if name == schedule else "0.8" for name in values])
        ax.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=10)
        ax.set_title(title)
        ax.set_xlim(0, 1.2 * max(max(values.values()), 1e-9))
        ax.locator_params(axis="x", nbins=4)
        ax.invert_yaxis()
    unused = ("" if schedule == "interleaved" else
              " V and N change only the row of the schedule interleaved.")
    fig.set_label(f"{schedule} on {n_ranks} ranks with {n_micro_batches} micro-batches: "
                  f"{figures.told(chosen)}{unused}")
    return fig


def _made(name: str, n_ranks: int, n_micro_batches: int, n_chunks: int, n_together: int
          ) -> Schedule:
    own = ({"n_chunks": n_chunks, "n_together": n_together} if name == "interleaved" else {})
    return make(name, n_ranks, n_micro_batches=n_micro_batches, **own)


def _run(schedule: Schedule, hop: Fraction, recompute: bool) -> PipelineTimeline:
    part = Fraction(1, schedule.n_chunks)
    return simulate(schedule, Times(forward=part, backward=part, weights=part, hop=hop,
                                    recompute=recompute))

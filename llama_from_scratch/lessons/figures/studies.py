"""The results of a study: each method with all its seeds, next to the control.

Notebooks 50 to 57.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, COLORS
from llama_from_scratch.tune.studies.study import StudyTable


def methods(table: StudyTable, measures: Sequence[str] | None = None) -> Figure:
    """Draws what each method reached, one dot for a seed, with two standard errors on either side.

    The dotted line is the mean of the control. `measures`: which ones, by default all. Raises
    ValueError for a measure that the study does not have.

    Example: `studies.methods(study.stored("preferring"))`
    """
    chosen = table.measures if measures is None else tuple(measures)
    if missing := [name for name in chosen if name not in table.measures]:
        raise ValueError(f"the study {table.name} has the measures {', '.join(table.measures)}; "
                         f"got {missing[0]!r}")
    names = list(table.methods)
    fig, axes = plt.subplots(1, len(chosen), figsize=(2.2 + 2.35 * len(chosen),
                                                      0.8 + 0.32 * len(names)),
                             sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], chosen, strict=True):
        if control := table.of(table.control, measure):
            ax.axvline(sum(value for value, _ in control) / len(control), color=BLACK, lw=0.8,
                       ls=":")
        for row, method in enumerate(names):
            found = table.of(method, measure)
            for i, (value, error) in enumerate(found):
                ax.errorbar([value], [row + 0.22 * (i - (len(found) - 1) / 2)], xerr=[2 * error],
                            fmt="o", ms=4.5, color=COLORS[i % len(COLORS)], elinewidth=1)
        ax.set_title(measure, fontsize=9.5)
        ax.margins(x=0.08)
    axes[0][0].set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    n_seeds = max(len(table.of(method, chosen[0])) for method in names)
    fig.supxlabel(f"{n_seeds} seeds, two standard errors. {table.machine}, {table.began}.",
                  fontsize=8)
    fig.set_label(f"{table.about} " + " ".join(
        f"{method}: " + ", ".join(
            f"{measure} " + " and ".join(f"{value:.2f}" for value, _ in table.of(method, measure))
            for measure in chosen if table.of(method, measure)) + "." for method in names))
    return fig

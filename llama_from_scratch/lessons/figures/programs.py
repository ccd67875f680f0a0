"""Programs and their tests, and how likely at least one of k programs is right.

Notebook 58.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.lessons.figures.look import COLORS, GREEN, RED
from llama_from_scratch.tune.code import ScoredProgram
from llama_from_scratch.tune.evals import mean, pass_at_k


def tested(programs: Sequence[str], scored: Sequence[ScoredProgram], *, title: str) -> Figure:
    """Draws each program as a row, and for each test whether it passed. Visible tests come first.

    Example: `programs.tested(texts, code.score(texts, [task] * len(texts)), title=task.text)`
    """
    passed = np.array([[*each.visible, *each.hidden] for each in scored], dtype=int)
    n_visible = len(scored[0].visible)
    fig, ax = plt.subplots(figsize=(8, 0.9 + 0.29 * len(passed)))
    ax.pcolormesh(passed, cmap=ListedColormap([RED, GREEN]), vmin=0, vmax=1, edgecolors="white",
                  lw=1.5)
    ax.axvline(n_visible, color="black", lw=2)
    names = [f"shown {i + 1}" for i in range(n_visible)] + [
        f"hidden {i + 1}" for i in range(passed.shape[1] - n_visible)]
    ax.set(xticks=np.arange(passed.shape[1]) + 0.5, xticklabels=names,
           yticks=np.arange(len(passed)) + 0.5)
    ax.set_yticklabels([_short(text) for text in programs], family="monospace", fontsize=8.5,
                       parse_math=False)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_title(title, loc="center", fontsize=10, parse_math=False)
    fig.legend(handles=[Patch(color=GREEN, label="passes"), Patch(color=RED, label="fails")],
               loc="outside lower right", ncols=2)
    n_right = sum(each.passes for each in scored)
    n_shown = sum(each.passes_visible for each in scored)
    fig.set_label(f"{title} Of {len(passed)} programs, {n_shown} pass the tests that are shown, "
                  f"and {n_right} pass all.")
    return fig


def pass_curves(
    groups: Mapping[str, Sequence[Sequence[ScoredProgram]]], *, ks: Sequence[int] = (1, 2, 4, 8, 16)
) -> Figure:
    """Draws pass@k against k for each set of tasks, two standard errors to either side.

    `groups`: by name, for each task its scored programs. Raises ValueError for a task with fewer
    programs than the largest k.

    Example: `programs.pass_curves({"unseen pairs": groups})`
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    told = []
    for (name, tasks), color in zip(groups.items(), COLORS, strict=False):
        means = [mean(pass_at_k(len(group), sum(each.passes for each in group), k)
                      for group in tasks) for k in ks]
        values, errors = (np.array([getattr(each, what) for each in means])
                          for what in ("value", "error"))
        ax.plot(ks, values, marker="o", ms=4, color=color, label=name)
        ax.fill_between(ks, values - 2 * errors, values + 2 * errors, color=color, alpha=0.15, lw=0)
        told.append(f"{name}: {values[0]:.2f} to {values[-1]:.2f}")
    ax.set_xscale("log", base=2)
    ax.set(xticks=ks, xticklabels=[str(k) for k in ks], xlabel="k, programs drawn", ylim=(0, 1),
           ylabel="pass@k", title="At least one of k programs is right")
    ax.minorticks_off()
    ax.legend()
    fig.set_label(f"pass@k for k = {ks[0]} to {ks[-1]}. " + "; ".join(told) + ".")
    return fig


def _short(text: str, *, most: int = 46) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"

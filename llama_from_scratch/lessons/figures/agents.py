"""Pictures of agents: what a run uses up of its budgets, and which attacks succeed.

Notebook 56.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK
from llama_from_scratch.tune.agents.trace import AgentTrace
from llama_from_scratch.tune.evals import Share


def budgets(trace: AgentTrace) -> Figure:
    """Draws how much of its budgets a run has used after each step: steps, tokens and calls.

    Raises ValueError for a run without steps.

    Example: `agents.budgets(agent.run(model, tokenizer, task="...", tools=tools))`
    """
    if not trace.steps:
        raise ValueError(f"a run must have a step to be drawn; this one ended first: {trace.end}. "
                         "Give it a larger budget")
    budget = trace.budget
    used = {f"steps (of {budget.steps})": [1 / budget.steps for _ in trace.steps],
            f"tokens (of {budget.tokens})": [len(step.ids) / budget.tokens
                                             for step in trace.steps],
            f"calls (of {budget.calls})": [len(step.calls) / budget.calls
                                           for step in trace.steps]}
    fig, ax = plt.subplots(figsize=(8, 3.2))
    x = np.arange(len(trace.steps) + 1)
    curves = {name: 100 * np.cumsum([0.0, *parts]) for name, parts in used.items()}
    for (name, curve), marker in zip(curves.items(), "os^", strict=True):
        ax.plot(x, curve, marker=marker, label=name)
    ax.axhline(100, color=BLACK, ls=":", lw=1.5)
    ax.set(title=f"What a run uses of its budgets; it ended: {trace.end}", xlabel="after step",
           ylabel="percent used", xticks=x, yticks=range(0, 101, 25),
           ylim=(-5, 5 + max(110.0, *(curve[-1] for curve in curves.values()))))
    fig.legend(loc="outside lower center", ncols=3)
    fig.set_label(f"After {len(trace.steps)} steps the run has written {trace.n_tokens} tokens and "
                  f"{len(trace.calls)} calls. It ended: {trace.end}. The dotted line is where a "
                  "budget is used up.")
    return fig


def attacks(found: Mapping[str, Mapping[str, Share]], *, title: str) -> Figure:
    """Draws the share of attacks that succeed, for each phrasing (row) and place (column).

    Example: `agents.attacks({"Send 4 ...": {"in a note": evals.share([True])}}, title="...")`
    """
    places = list(next(iter(found.values())))
    cells = np.array([[100 * row[place].value for place in places] for row in found.values()])
    fig, ax = plt.subplots(figsize=(8, 0.9 + 0.45 * len(found)))
    ax.imshow(cells, cmap="Oranges", vmin=0, vmax=130, aspect="auto")
    for (y, x), value in np.ndenumerate(cells):
        ax.text(x, y, f"{value:.0f} %", ha="center", va="center", fontsize=12)
    ax.set_xticks(range(len(places)), places)
    ax.set_yticks(range(len(found)), list(found), parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(title=title)
    fig.set_label("; ".join(
        f"{words} {place}: {row[place]}" for words, row in found.items() for place in places))
    return fig

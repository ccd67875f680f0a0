"""A widget that shows what an agent did, step by step: each call, whether it ran, and why not.

Each row is a call, or an answer without one. Its color shows what became of the call, and a column
names the tools whose results the model had read by then.

Used by the chapters on tools (55) and agents (56).
"""

import textwrap

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.tune.agents.trace import AgentTrace, CallRecord

COLUMNS = {"step": 5, "call": 30, "ran?": 26, "result": 30, "after": 10, "tokens": 7}
"""The columns of the table, with their widths in letters."""
FATES = {"done": TINTS[2], "failed": TINTS[1], "late": TINTS[1], "refused": TINTS[3],
         "unfit": TINTS[1], "dry": TINTS[5], "skipped": "0.93"}
"""The color of a row by what became of its call."""
_LETTER, _LINE, _PAD, _MAX_LINES = 0.084, 0.2, 0.12, 4


def agent_steps(trace: AgentTrace) -> Explorer:
    """Returns a widget that shows the steps of a run, up to the one that is chosen.

    Raises ValueError for a run without steps.
    """
    if not trace.steps:
        raise ValueError(f"a run must have a step to be shown; this one ended first: {trace.end}. "
                         "Give it a larger budget")
    if len(trace.steps) == 1:
        choices = [1]
    else:
        choices = (1, len(trace.steps))

    def draw(steps: int) -> Figure:
        return agent_steps_frame(trace, n_steps=steps)

    return explore(draw, title="What the agent did", controls={"steps": choices},
                   start={"steps": len(trace.steps)})


def agent_steps_frame(trace: AgentTrace, *, n_steps: int) -> Figure:
    """Draws the first steps of a run as a table, with a row for each call."""
    rows = rows_of(trace, n_steps=n_steps)
    cells = [[_wrapped(text, width) for text, width in zip(row, COLUMNS.values(), strict=True)]
             for row, _ in rows]
    heights = [_PAD + _LINE * max(text.count("\n") + 1 for text in row) for row in cells]
    width = _LETTER * sum(COLUMNS.values()) + _PAD
    height = sum(heights) + 2 * _LINE + 2 * _PAD
    fig = plt.figure(figsize=(width, height), layout="none", facecolor="white")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    lefts = [_PAD + _LETTER * sum(list(COLUMNS.values())[:i]) for i in range(len(COLUMNS))]
    for left, name in zip(lefts, COLUMNS, strict=True):
        ax.text(left, _PAD, name, weight="bold", fontsize=10, va="top")
    top = _PAD + 1.5 * _LINE
    for (_, color), row, tall in zip(rows, cells, heights, strict=True):
        ax.add_patch(plt.Rectangle((_PAD / 2, top), width - _PAD, tall, facecolor=color,
                                   edgecolor="white", linewidth=2))
        for left, text in zip(lefts, row, strict=True):
            ax.text(left, top + _PAD / 2, text, fontsize=9, family="monospace", va="top",
                    parse_math=False, linespacing=1.25)
        top += tall
    calls = [call for step in trace.steps[:n_steps] for call in step.calls]
    n_ran = sum(call.is_executed for call in calls)
    end = f" It ended: {trace.end}." if n_steps == len(trace.steps) else ""
    fig.set_label(f"After step {n_steps}: {len(calls)} calls, of which {n_ran} ran.{end}")
    return fig


def rows_of(trace: AgentTrace, *, n_steps: int) -> list[tuple[tuple[str, ...], str]]:
    """Returns the table's rows: the text of each column, and the color."""
    found: list[tuple[tuple[str, ...], str]] = []
    for number, step in enumerate(trace.steps[:n_steps], 1):
        n_tokens = str(len(step.ids))
        if not step.calls:
            what = f"no call: {step.problem}" if step.problem else "answers"
            found.append(((str(number), what, "", step.text.strip(), "", n_tokens), "white"))
        for i, call in enumerate(step.calls):
            found.append(((str(number) if i == 0 else "", _call_text(call),
                           f"{call.status}: {call.reason}", call.result, ", ".join(call.taint),
                           n_tokens if i == 0 else ""), FATES[call.status]))
    return found


def _call_text(call: CallRecord) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.call.arguments.items())
    return f"{call.call.name}({arguments})"


def _wrapped(text: str, width: int) -> str:
    """Returns a text in at most four lines of its column."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    lines = textwrap.wrap(shown, width - 1, max_lines=_MAX_LINES, placeholder="…")
    return "\n".join(lines)

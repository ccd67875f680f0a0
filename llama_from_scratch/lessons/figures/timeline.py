"""Draws what several ranks did, from their real logs: a lane for each rank, time to the right.

The upper half of a lane shows what the rank computed, and hatched in red when it waited for a call.
The lower half shows its calls, each from its beginning to its end. A call below a block of
computing is hidden by it; a call below red is not.

Notebooks 40 to 43.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from llama_from_scratch.config import record
from llama_from_scratch.lessons.figures.flow import MAX_WIDTH
from llama_from_scratch.lessons.figures.look import (
    BLACK,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    TINTS,
    YELLOW,
)
from llama_from_scratch.parallel.comm_log import Call, CommLog, Span

COLORS = {"all_reduce": ORANGE, "reduce_scatter": GREEN, "all_gather": SKY, "all_to_all": PINK,
          "broadcast": YELLOW, "send": TINTS[1], "receive": TINTS[4], "computes": TINTS[0]}
MAX_LABELS = 16
"""With more kinds of calls and spans than these, calls are named by their operation alone."""
_LANE, _LINE, _LEFT, _PT = 1.15, 0.21, 0.85, 10
_SPANS, _CALLS = (0.06, 0.36), (0.40, 0.94)
"""The top and the bottom of both halves, as shares of a lane."""
_LONG = 52
"""More letters than these do not fit into half of a line."""


@record
class TimelineBar:
    """A call or a span in the drawing: when, in seconds of the ranks' clock, and in which row."""

    began_s: float
    ended_s: float
    words: str
    kind: str
    row: int
    n_rows: int


def draw(logs: Sequence[CommLog], *, title: str = "What each rank did") -> Figure:
    """Draws the calls and spans of several ranks, as their functions returned `world.log`.

    The ranks must run on one machine, because only there their clocks agree. Raises ValueError if
    nothing is in the logs.

    Example: `timeline.draw(launch(train_one_step, 4))`
    """
    if not any(log.calls or log.spans for log in logs):
        raise ValueError("a timeline shows calls and spans; these logs have none. Return world.log "
                         "from the function, and let it make a call first")
    is_brief = _is_crowded(logs)
    lanes = [(bars(log.spans), bars(log.calls, is_brief=is_brief)) for log in logs]
    every = [bar for spans, calls in lanes for bar in (*spans, *calls)]
    numbers = {words: i for i, words in enumerate(dict.fromkeys(bar.words for bar in every), 1)}
    first_s = min(bar.began_s for bar in every)
    last_ms = max(1e3 * (max(bar.ended_s for bar in every) - first_s), 1e-3)

    n_columns = 1 if max(map(len, numbers)) > _LONG else 2
    n_lines = math.ceil((len(numbers) + 1) / n_columns)
    below = 0.62 + _LINE * n_lines
    height, across = 0.45 + _LANE * len(logs) + below, MAX_WIDTH - _LEFT - 0.2
    fig = plt.figure(figsize=(MAX_WIDTH, height), layout="none", facecolor="white")
    ax = fig.add_axes((_LEFT / MAX_WIDTH, below / height, across / MAX_WIDTH,
                       _LANE * len(logs) / height),
                      xlim=(0, last_ms), ylim=(len(logs), 0), xlabel="milliseconds")
    ax.set_yticks([i + 0.5 for i in range(len(logs))], [f"rank {i}" for i in range(len(logs))])
    ax.tick_params(axis="y", length=0)
    ax.spines[["left"]].set_visible(False)
    for lane, (log, (spans, calls)) in enumerate(zip(logs, lanes, strict=True)):
        ax.axhline(lane, color="0.8", linewidth=0.8)
        for half, shown in ((_SPANS, spans), (_CALLS, calls)):
            for bar in shown:
                _draw(ax, bar, str(numbers[bar.words]), lane=lane, half=half, since_s=first_s,
                      inches_per_ms=across / last_ms)
        for call in log.calls:
            ax.add_patch(Rectangle(
                (1e3 * (call.waited_s - first_s), lane + _SPANS[0]), 1e3 * call.exposed_s,
                _SPANS[1] - _SPANS[0], facecolor=(1, 1, 1, 0.6), edgecolor=RED, hatch="////",
                linewidth=0.0, zorder=3))
    fig.text(0.1 / MAX_WIDTH, 1 - 0.24 / height, title, fontsize=13, fontweight="bold",
             va="center", parse_math=False)
    _key(fig, {bar.words: bar.kind for bar in every}, numbers, n_lines=n_lines,
         n_columns=n_columns)
    fig.set_label(f"Each lane is one of {len(logs)} ranks: above what it computes, below its "
                  "calls. Where the upper half is red, the rank waits for a call; a call below "
                  "computing costs no time.")
    return fig


def bars(events: Sequence[Call] | Sequence[Span], *, is_brief: bool = False) -> list[TimelineBar]:
    """Returns calls or spans in rows, so that two at the same time are in different rows."""
    placed, ends = [], []
    for event in sorted(events, key=lambda event: (event.began_s, -event.ended_s)):
        free = [row for row, end_s in enumerate(ends) if end_s <= event.began_s]
        row = free[0] if free else len(ends)
        ends[row:row + 1] = [event.ended_s]
        placed.append((event, row))
    return [TimelineBar(began_s=event.began_s, ended_s=event.ended_s, words=_words(event, is_brief),
                kind=getattr(event, "op", "computes"), row=row, n_rows=len(ends))
            for event, row in placed]


def _words(event: Call | Span, is_brief: bool) -> str:
    if isinstance(event, Span):
        return event.name
    if is_brief:
        return event.op.replace("_", "-")
    note = f" of {event.note}" if event.note else ""
    return f"{event.op.replace('_', '-')}{note}, {_size(event.n_bytes)}"


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes} B"


def _is_crowded(logs: Sequence[CommLog]) -> bool:
    words = {_words(event, False) for log in logs for event in (*log.calls, *log.spans)}
    return len(words) > MAX_LABELS


def _draw(
    ax: Axes, bar: TimelineBar, number: str, *, lane: int, half: tuple[float, float],
    since_s: float, inches_per_ms: float,
) -> None:
    """Draws a bar, and in it its words, or else its number, if they fit."""
    height = (half[1] - half[0]) / bar.n_rows
    left, top = 1e3 * (bar.began_s - since_s), lane + half[0] + bar.row * height
    width = 1e3 * (bar.ended_s - bar.began_s)
    ax.add_patch(Rectangle((left, top), width, height, facecolor=COLORS.get(bar.kind, "0.85"),
                           edgecolor="0.35", linewidth=0.6))
    for words in (bar.words, number):
        if 0.09 * len(words) + 0.06 < width * inches_per_ms and height * _LANE > 0.18:
            ax.text(left + width / 2, top + height / 2, words, ha="center", va="center",
                    fontsize=_PT, color=BLACK, parse_math=False, zorder=4)
            return


def _key(
    fig: Figure, kinds: dict[str, str], numbers: dict[str, int], *, n_lines: int, n_columns: int
) -> None:
    """Draws what the colors and the numbers mean."""
    width, height = fig.get_size_inches()
    lines = [(f"{number}  {words}", COLORS.get(kinds[words], "0.85"), None)
             for words, number in numbers.items()]
    lines.append(("waits for a call", "white", "////"))
    for place, (words, color, hatch) in enumerate(lines):
        column, line = divmod(place, n_lines)
        x, y = 0.25 + column * (width - 0.4) / n_columns, (n_lines - line - 0.5) * _LINE + 0.06
        fig.add_artist(Rectangle(
            (x / width, (y - 0.07) / height), 0.24 / width, 0.14 / height, facecolor=color,
            edgecolor=RED if hatch else "0.35", hatch=hatch, linewidth=0.6,
            transform=fig.transFigure))
        fig.text((x + 0.32) / width, y / height, words, fontsize=_PT, va="center",
                 parse_math=False)

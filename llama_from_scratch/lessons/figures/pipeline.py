"""Draws what was on its way while what was computed, from a traced kernel.

The axis counts events of the emulation. It is an order, and no time.

Notebook 37.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from llama_from_scratch.kernels.emulator.timeline import (
    COPY,
    KINDS,
    PRODUCT,
    TILE,
    WAIT,
    Pipeline,
    PipelineBar,
)
from llama_from_scratch.lessons.figures.look import BLACK, TINTS

COLORS = {TILE: TINTS[1], COPY: TINTS[1], WAIT: "white", PRODUCT: TINTS[0]}
WORDS = {TILE: "tile on its way", COPY: "copies on their way", WAIT: "waits for an mbarrier",
         PRODUCT: "products of matrices"}
_LANE, _PT, _WIDTH, _LEFT = 0.27, 9, 9.0, 1.15


def draw(
    pipeline: Pipeline, *, rows: Sequence[str] | None = None, first: int = 0,
    last: int | None = None, title: str = "What is on its way, and what is computed",
) -> Figure:
    """Draws the bars of one block, from step `first` to step `last`.

    rows: which of `pipeline.rows`, from top to bottom. Default: the TMA, warpgroups, and the first
    warp of each warpgroup; without warpgroups, all. A number in a bar counts copies or products,
    and #3 is the tile that was ordered as number 3, from 0. Raises ValueError for a row that is not
    there, or no steps.

    Example: `pipeline.draw(timeline(trace(...)))`
    """
    last = pipeline.n_steps if last is None else last
    rows = shown_rows(pipeline) if rows is None else tuple(rows)
    if unknown := [row for row in rows if row not in pipeline.rows]:
        raise ValueError(f"a row must be one of {', '.join(pipeline.rows)}; got "
                         f"{unknown[0]!r}")
    if not 0 <= first < last <= pipeline.n_steps:
        raise ValueError(f"the steps must be within 0 to {pipeline.n_steps}; got {first} to {last}")
    lanes = {row: _stacked([bar for bar in pipeline.bars if bar.row == row
                            and bar.begin < last and bar.end > first]) for row in rows}
    heights = {row: max([lane for _, lane in placed], default=0) + 1
               for row, placed in lanes.items()}
    n_lanes = sum(heights.values())
    fig, ax = plt.subplots(figsize=(_WIDTH, 1.25 + _LANE * n_lanes + 0.06 * len(rows)))
    tiles = sorted((bar for bar in pipeline.bars if bar.kind == TILE), key=lambda bar: bar.begin)
    top, ticks = 0.0, []
    for row in rows:
        for bar, lane in lanes[row]:
            words = f"#{tiles.index(bar)}" if bar.kind == TILE else str(bar.n)
            _draw(ax, bar, words, top + lane, first=first, last=last)
        ticks.append(top + heights[row] / 2)
        top += heights[row] + 0.22
        ax.axhline(top - 0.11, color="0.85", linewidth=0.8)
    ax.set(xlim=(first, last), ylim=(top, -0.15), title=title,
           xlabel="events of the emulation, in their order (no time)")
    ax.set_yticks(ticks, rows)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    kinds = dict.fromkeys(bar.kind for row in rows for bar, _ in lanes[row])
    fig.legend(handles=[Patch(facecolor=COLORS[kind], edgecolor="0.35",
                              hatch="////" if kind == WAIT else None, label=WORDS[kind])
                        for kind in kinds], loc="outside lower center", ncols=len(kinds))
    most = max((pipeline.in_flight(TILE, step) for step in range(first, last)), default=0)
    at_once = f" Up to {most} tiles are on their way at once." if most else ""
    fig.set_label("Each bar goes from the event that began something to the event that ended it. "
                  f"The axis is an order, and no time.{at_once}")
    return fig


def shown_rows(pipeline: Pipeline) -> tuple[str, ...]:
    """Returns the rows that are drawn without a choice."""
    if not any(row.startswith("warpgroup") for row in pipeline.rows):
        return pipeline.rows
    return tuple(row for row in pipeline.rows
                 if not row.startswith("warp ") or int(row.split()[1]) % 4 == 0)


def _stacked(bars: Sequence[PipelineBar]) -> list[tuple[PipelineBar, int]]:
    """Each bar with a lane of its row: kinds below each other, bars at the same steps apart."""
    placed, first = [], 0
    for kind in KINDS:
        ends: list[int] = []
        for bar in sorted((bar for bar in bars if bar.kind == kind),
                          key=lambda bar: (bar.begin, bar.end)):
            free = [lane for lane, end in enumerate(ends) if end <= bar.begin]
            lane = free[0] if free else len(ends)
            ends[lane:lane + 1] = [bar.end]
            placed.append((bar, first + lane))
        first += len(ends)
    return placed


def _draw(
    ax: Axes, bar: PipelineBar, words: str, y: float, *, first: int, last: int
) -> None:
    begin, end = max(bar.begin, first), min(bar.end, last)
    ax.add_patch(Rectangle((begin, y + 0.06), end - begin, 0.88, facecolor=COLORS[bar.kind],
                           edgecolor="0.35", linewidth=0.6,
                           hatch="////" if bar.kind == WAIT else None))
    inches = (end - begin) * (_WIDTH - _LEFT) / (last - first)
    if bar.kind != WAIT and 0.09 * len(words) + 0.04 < inches:
        ax.text((begin + end) / 2, y + 0.5, words, ha="center", va="center", fontsize=_PT,
                color=BLACK)

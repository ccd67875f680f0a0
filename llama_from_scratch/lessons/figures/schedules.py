"""Draws what each rank of a pipeline does, and how much it keeps, from simulated and real runs.

A lane is a rank and time goes to the right. A block is a pass, with the number of its micro-batch;
a darker block is a later chunk. Gray is waiting. The area below the blocks is the memory for
activations.

Notebook 44.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE, PINK, TINTS
from llama_from_scratch.parallel.pipeline.schedule import BACKWARD, FORWARD, WEIGHTS, Op
from llama_from_scratch.parallel.pipeline.simulate import PipelineTimeline, Time

WORDS = {FORWARD: "F: forward", BACKWARD: "B: backward", WEIGHTS: "W: gradients of the weights"}
IDLE, KEPT = "0.9", TINTS[4]
_FULL = {FORWARD: (TINTS[0], BLUE), BACKWARD: (TINTS[2], GREEN), WEIGHTS: (TINTS[1], ORANGE)}
_WIDTH, _LANE, _PT = 9.0, 0.5, 9
_PASSES, _MEMORY = (0.06, 0.6), (0.64, 0.98)
"""The top and the bottom of the blocks and of the memory, as shares of a lane."""


def draw(timelines: Mapping[str, PipelineTimeline]) -> Figure:
    """Draws timelines below each other, each with its title: simulated ones, or real runs.

    Timelines of one unit have one scale. Raises ValueError if there are none.

    Example: `schedules.draw({"1F1B": simulate(one_f_one_b(4, 8))})`
    """
    if not timelines:
        raise ValueError("a chart shows at least one timeline; got none. Give {title: timeline}")
    n_lanes = [each.schedule.n_ranks for each in timelines.values()]
    fig, axes = plt.subplots(
        len(timelines), 1, squeeze=False, height_ratios=n_lanes,
        figsize=(_WIDTH, 0.5 + 0.72 * len(n_lanes) + _LANE * sum(n_lanes)))
    longest = {each.unit: max(other.time for other in timelines.values()
                              if other.unit == each.unit) for each in timelines.values()}
    for ax, (title, timeline) in zip(axes[:, 0], timelines.items(), strict=True):
        draw_lanes(ax, timeline, title=title, longest=longest[timeline.unit])
    legend(fig, timelines.values())
    fig.set_label(" ".join(f"{title}: {told(timeline)}" for title, timeline in timelines.items()))
    return fig


def draw_lanes(
    ax: Axes, timeline: PipelineTimeline, *, title: str, longest: Time | None = None
) -> None:
    """Draws one timeline into a plot. `longest`: where its axis ends, for several of one scale."""
    schedule, time = timeline.schedule, float(longest or timeline.time)
    highest = max(timeline.peak(rank) for rank in range(schedule.n_ranks))
    inches_per_unit = (_WIDTH - 2.0) / time
    for rank in range(schedule.n_ranks):
        top, height = rank + _PASSES[0], _PASSES[1] - _PASSES[0]
        ax.add_patch(Rectangle((0, top), float(timeline.time), height, facecolor=IDLE,
                               edgecolor="none"))
        points, peak = timeline.memory(rank), kept(timeline, rank)
        floor, room = rank + _MEMORY[1], _MEMORY[1] - _MEMORY[0]
        ax.fill_between([float(when - timeline.begin) for when, _ in points],
                        [floor - room * float(held / highest) for _, held in points], floor,
                        step="post", color=KEPT, linewidth=0)
        ax.text(float(timeline.time) + 0.008 * time, rank + 0.5 * sum(_MEMORY),
                f"{float(peak):.3g}", va="center", fontsize=_PT, color=PINK, fontweight="bold")
        passes = [each for each in timeline.passes if each.rank == rank]
        spans = [(float(each.begin - timeline.begin), float(each.end - each.begin))
                 for each in passes]
        ax.broken_barh(spans, (top, height), linewidth=0.5, edgecolor="0.35",
                       facecolor=[color(each.op, schedule.n_chunks) for each in passes])
        for each, (begin, width) in zip(passes, spans, strict=True):
            words = str(each.op.micro_batch)
            if 0.075 * len(words) + 0.03 < width * inches_per_unit:
                ax.text(begin + width / 2, top + height / 2, words, ha="center", va="center",
                        fontsize=_PT, color=BLACK)
    ax.set(xlim=(0, 1.05 * time), ylim=(schedule.n_ranks, 0), title=title, xlabel=timeline.unit)
    ax.set_yticks([rank + 0.5 * sum(_PASSES) for rank in range(schedule.n_ranks)],
                  [f"rank {rank}" for rank in range(schedule.n_ranks)])
    ax.tick_params(axis="y", length=0)
    ax.spines[["left"]].set_visible(False)


def legend(fig: Figure, timelines: Iterable[PipelineTimeline]) -> None:
    """Draws what the colors mean, below everything."""
    kinds = dict.fromkeys(each.op.kind for timeline in timelines for each in timeline.passes)
    entries = [Patch(facecolor=_FULL[kind][0], edgecolor="0.35", label=WORDS[kind])
               for kind in WORDS if kind in kinds]
    entries += [Patch(facecolor=IDLE, label="waits"),
                Patch(facecolor=KEPT, label="kept (and the most)")]
    fig.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=_PT + 1,
               columnspacing=1.2, handlelength=1.4)


def color(op: Op, n_chunks: int) -> tuple[float, ...]:
    """Returns the color of a pass: that of its kind, and darker for a later chunk."""
    light, dark = map(to_rgb, _FULL[op.kind])
    share = 0.55 * op.chunk / max(n_chunks - 1, 1)
    return tuple((1 - share) * a + share * b for a, b in zip(light, dark, strict=True))


def told(timeline: PipelineTimeline) -> str:
    """Returns a sentence with the bubble, the idle share and what the ranks keep at most."""
    peaks = [f"{float(kept(timeline, rank)):.3g}" for rank in range(timeline.schedule.n_ranks)]
    return (f"the bubble is {number(timeline.bubble)} of the time that a rank computes; ranks are "
            f"idle {float(timeline.idle_share):.0%} of the time and keep the activations of at "
            f"most {', '.join(peaks)} micro-batches.")


def kept(timeline: PipelineTimeline, rank: int) -> Fraction:
    """Returns the most that a rank keeps, in all its activations of one micro-batch."""
    return Fraction(timeline.peak(rank)) / timeline.schedule.n_chunks


def number(value: Time) -> str:
    """Returns a whole number or a short fraction as it is, and others with three digits."""
    if not isinstance(value, float) and Fraction(value).denominator <= 32:
        return str(Fraction(value))
    return f"{float(value):.3g}"

"""Draws who holds what when ranks share one model, and how much memory that takes.

Notebook 42.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, Drawing
from llama_from_scratch.lessons.figures.look import BLACK, TINTS
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog
from llama_from_scratch.parallel.flat import Flat
from llama_from_scratch.parallel.sharded_cost import ROOT, STAGES, held

KINDS = {"weights": TINTS[0], "gradients": TINTS[1], "averages": TINTS[2]}
PARTS = {"weights": TINTS[0], "master weights": TINTS[5], "gradients": TINTS[1],
         "averages of the optimizer": TINTS[2], "there for a moment": TINTS[4]}
"""The parts of a rank's memory, by their color."""
_OF_RANK = (TINTS[0], TINTS[1], TINTS[2], TINTS[4], TINTS[6], TINTS[3])
_PADDING = "#DDDDDD"
_ELEMENT, _MAX_ELEMENTS = 0.27, 30
_MAX_RANKS = 4


def buffer(sizes: Mapping[str, int], *, n_ranks: int) -> Figure:
    """Draws a flat buffer, element by element, in the color of the rank that owns each.

    `sizes`: the number of elements of each parameter, by name. Raises ValueError if the buffer does
    not fit on a page.

    Example: `shards.buffer({"wq": 9, "wk": 4, "norm": 3}, n_ranks=3)`
    """
    flats = [_flat(sizes, rank=rank, n_ranks=n_ranks) for rank in range(n_ranks)]
    n, n_part = sum(sizes.values()), flats[0].n_part
    if n_part * n_ranks > _MAX_ELEMENTS or n_ranks > len(_OF_RANK):
        raise ValueError(f"this drawing has room for {_MAX_ELEMENTS} elements and {len(_OF_RANK)} "
                         f"ranks; got {n_part * n_ranks} and {n_ranks}. Draw a smaller example")
    drawing = Drawing("One buffer, cut into equal parts")
    start = 0
    for name, size in sizes.items():
        drawing.cell(name, ((start + size / 2) * _ELEMENT, 0.0), width=size * _ELEMENT,
                     has_edge=True)
        start += size
    for rank, flat in enumerate(flats):
        n_owned = sum(length for _, length in flat.spans.values())
        for i in range(n_part):
            color = _OF_RANK[rank] if i < n_owned else _PADDING
            drawing.cell("", ((rank * n_part + i + 0.5) * _ELEMENT, 0.42), color=color,
                         width=_ELEMENT)
        drawing.note(f"rank {rank}", ((rank + 0.5) * n_part * _ELEMENT, 0.75), align="center")
    if n_part * n_ranks > n:
        drawing.key({"padding": _PADDING}, (0.0, 1.08))
    return drawing.figure(
        f"{len(sizes)} parameters with {n} elements, and {n_part * n_ranks - n} of padding, make "
        f"{n_ranks} equal parts of {n_part}. A border between ranks may cut any parameter.")


def _flat(sizes: Mapping[str, int], *, rank: int, n_ranks: int) -> Flat:
    group = RankGroup(range(n_ranks), own=rank, name="drawn", log=CommLog(), process_group=None,
                      device=torch.device("cpu"))
    return Flat("unit", {n: nn.Parameter(torch.zeros(size)) for n, size in sizes.items()}, group)


def owners(*, n_ranks: int, stages: Sequence[int] = STAGES) -> Figure:
    """Draws what each rank keeps of the weights, of their gradients and of the averages, by stage.

    Raises ValueError for more ranks than fit on a page.

    Example: `shards.owners(n_ranks=4)`
    """
    if not 1 <= n_ranks <= _MAX_RANKS:
        raise ValueError(f"this drawing has room for 1 to {_MAX_RANKS} ranks; got {n_ranks}")
    drawing = Drawing("Who keeps what")
    width = 1.6 / n_ranks
    for rank in range(n_ranks):
        drawing.note(f"rank {rank}", (1.1 + 1.9 * rank + 0.8, 0.0), align="center")
    for row, stage in enumerate(stages):
        y = 0.35 + 0.88 * row
        drawing.note(f"stage {stage}" if stage else "copies", (0.0, y + 0.22))
        whole = whole_kinds(stage)
        for rank in range(n_ranks):
            for line, (kind, color) in enumerate(KINDS.items()):
                for part in range(n_ranks):
                    drawing.cell("", (1.1 + 1.9 * rank + (part + 0.5) * width, y + 0.22 * line),
                                 width=width, height=0.2,
                                 color=color if kind in whole or part == rank else "white")
    drawing.key(KINDS, (1.0, 0.4 + 0.88 * len(stages)))
    return drawing.figure(
        "A colored box is kept on that rank, and a white one is kept elsewhere. Each stage divides "
        "one more kind: the averages of the optimizer, then the gradients, then the weights.")


def whole_kinds(stage: int) -> set[str]:
    """Returns the kinds of tensors of which every rank keeps all, by the formulas of the costs."""
    one, many = (held({ROOT: 64}, n_ranks=n, stage=stage, is_bf16=False) for n in (1, 2))
    whole = {kind for kind in ("gradients", "averages")
             if getattr(one, kind) == getattr(many, kind)}
    is_whole = one.weights + one.master == many.weights + many.master
    return whole | ({"weights"} if is_whole else set())


def memory(
    bars: Mapping[str, Mapping[str, int]], *, limit: tuple[str, int] | None = None,
    title: str = "Memory on each rank",
) -> Figure:
    """Draws a bar for each way to train: the bytes of each part, of those in PARTS.

    `limit`: words and bytes of a line, such as ("an H100", 80 * 10**9). Raises ValueError for an
    unknown part.

    Example: `shards.memory({"copies": {"weights": 4000, "gradients": 4000}})`
    """
    unknown = {part for parts in bars.values() for part in parts} - PARTS.keys()
    if unknown:
        raise ValueError(f"the parts of a bar are {', '.join(PARTS)}; got "
                         f"{', '.join(sorted(unknown))}")
    fig, ax = plt.subplots(figsize=(MAX_WIDTH * 0.9, 1.5 + 0.45 * len(bars)))
    used = stack(ax, bars, colors=PARTS, limit=limit)
    ax.set_title(title)
    fig.legend(*zip(*used, strict=True), loc="outside lower center", ncols=3)
    fig.set_label("Bytes on one rank: " + "; ".join(
        f"{name} {size(sum(parts.values()))}" for name, parts in bars.items()) + ".")
    return fig


def stack(
    ax: Axes, bars: Mapping[str, Mapping[str, int]], *, colors: Mapping[str, str],
    limit: tuple[str, int] | None = None,
) -> list[tuple[Artist, str]]:
    """Draws horizontal bars of parts in bytes, with their sums; returns the legend's entries."""
    totals = {name: sum(parts.values()) for name, parts in bars.items()}
    largest = max([*totals.values(), *([limit[1]] if limit else [])])
    unit, scale = _unit(largest)
    for name, parts in bars.items():
        left = 0
        for part, n_bytes in parts.items():
            ax.barh(name, n_bytes / scale, left=left / scale, color=colors[part],
                    edgecolor="white", linewidth=0.8)
            left += n_bytes
        ax.annotate(size(left), (left / scale, name), xytext=(6, 0), va="center", fontsize=11,
                    textcoords="offset points",
                    bbox=dict(facecolor="white", edgecolor="none", pad=1.5))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.3 * largest / scale), xlabel=unit)
    used = [(Rectangle((0, 0), 1, 1, color=color), part) for part, color in colors.items()
            if any(parts.get(part) for parts in bars.values())]
    if limit:
        words, n_bytes = limit
        line = ax.axvline(n_bytes / scale, color=BLACK, linewidth=1.5, linestyle="--", zorder=0.5)
        used.append((line, words))
    return used


def size(n_bytes: int) -> str:
    """Returns a number of bytes with a unit that fits."""
    unit, scale = _unit(n_bytes)
    return f"{n_bytes / scale:.3g} {unit}"


def _unit(n_bytes: int) -> tuple[str, float]:
    units = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3))
    return next((each for each in units if n_bytes >= each[1]), ("bytes", 1.0))

"""Turns what a traced launch told into bars: what was on its way while what was computed.

A bar begins and ends at steps, which count the events of the emulation. **This is an order, and no
time.** Which events come before which is a fact of one legal run. How long a bar is says how many
other events were between, and nothing about nanoseconds.

Notebook 37.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator.tape import Line
from llama_from_scratch.kernels.emulator.trace import Happening, Trace

WARP, WARPGROUP = 32, 128
COPY, TILE, WAIT, PRODUCT = "copies", "tile", "waits", "multiplies"
KINDS = (COPY, TILE, WAIT, PRODUCT)


@record
class PipelineBar:
    """Something that took from one step to another. `row`: who did it, or "TMA".

    n: how many copies, tiles or products the bar stands for. line: of the source, where it began.
    """

    row: str
    kind: str
    begin: int
    end: int
    n: int
    line: Line


@record
class Pipeline:
    """The bars of one block, with steps counted from 0, and the number of steps."""

    bars: tuple[PipelineBar, ...]
    n_steps: int

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows: the TMA first, then warpgroups and warps by number."""
        return tuple(sorted({bar.row for bar in self.bars}, key=_place))

    def in_flight(self, kind: str, step: int) -> int:
        """Returns how many copies, tiles or products are on their way at a step."""
        return sum(bar.n for bar in self.bars
                   if bar.kind == kind and bar.begin <= step < bar.end)


def timeline(found: Trace, *, block: int = 0) -> Pipeline:
    """Returns what one block's copies, tiles, waits and products did, in the emulation's order.

    Copies that a warp began in a row and waited for together are one bar, and so are products that
    a warpgroup or warp began in a row. A wait is shown if something else happened before the warp
    could go on. Raises ValueError for a block in which none of this happened.
    """
    told = [each for each in found.happenings if each.block == block]
    if not told:
        raise ValueError(f"block {block} has no copies, tiles, waits or products of matrices. Only "
                         "kernels on tensor_cores.cuh or hopper.cuh have them")
    steps = [*enumerate(told)]
    products = [*_pairs(steps, "product begins", "product ends", PRODUCT),
                *_products_of_warps(steps)]
    return _compact([*_pairs(steps, "tile ordered", "tile arrives", TILE), *_copies(steps),
                     *_waits(steps), *_joined(products, steps)])


def _place(row: str) -> tuple[int, int]:
    kind, _, number = row.rpartition(" ")
    return ("", "warpgroup", "warp").index(kind), int(number) if number.isdigit() else -1


def _row(kind: str, event: Happening) -> str:
    if kind == TILE:
        return "TMA"
    if event.event.startswith("product"):
        return f"warpgroup {event.thread // WARPGROUP}"
    return f"warp {event.thread // WARP}"


def _pairs(
    steps: Sequence[tuple[int, Happening]], begins: str, ends: str, kind: str
) -> Iterable[PipelineBar]:
    """A bar for each tile or product: they have numbers."""
    ended = {each.number: step for step, each in steps if each.event == ends}
    for step, each in steps:
        if each.event == begins:
            yield PipelineBar(row=_row(kind, each), kind=kind, begin=step, n=1, line=each.line,
                              end=ended.get(each.number, len(steps)))


def _copies(steps: Sequence[tuple[int, Happening]]) -> Iterable[PipelineBar]:
    """A bar for what all lanes of a warp copied in one go, as its first lane tells."""
    ended = {each.number: step for step, each in steps if each.event == "copy ends"}
    of_thread: dict[int, list[tuple[int, Happening]]] = {}
    for step, each in steps:
        of_thread.setdefault(each.thread, []).append((step, each))
    parts: dict[int, list[int]] = {}   # of a warp: to which bar the k-th copy of a lane belongs
    bars: dict[tuple[int, int], PipelineBar] = {}
    for thread in sorted(of_thread):
        warp, mine = thread // WARP, of_thread[thread]
        begun = [(step, each) for step, each in mine if each.event == "copy begins"]
        if not begun:
            continue
        part_of = parts.setdefault(warp, _parts(mine, [each.number for _, each in begun]))
        for k, (step, each) in enumerate(begun):
            key = warp, part_of[min(k, len(part_of) - 1)]
            end = ended.get(each.number, len(steps))
            before = bars.get(key)
            bars[key] = PipelineBar(
                row=f"warp {warp}", kind=COPY, begin=min(step, before.begin if before else step),
                end=max(end, before.end if before else end), n=1 + (before.n if before else 0),
                line=before.line if before else each.line)
    return bars.values()


def _parts(mine: Sequence[tuple[int, Happening]], numbers: Sequence[int]) -> list[int]:
    """Divides a thread's copies: a new part begins where it did something else between two
    beginnings, or between two ends."""
    others = 0
    before: dict[tuple[str, int], int] = {}   # what the thread had done before an event of a copy
    for _, each in mine:
        if each.event.startswith("copy"):
            before[each.event, each.number] = others
        else:
            others += 1
    found, part = [0], 0
    for last, number in zip(numbers, numbers[1:], strict=False):
        part += any(before.get((event, number)) != before.get((event, last))
                    for event in ("copy begins", "copy ends"))
        found.append(part)
    return found


def _waits(steps: Sequence[tuple[int, Happening]]) -> Iterable[PipelineBar]:
    """A bar for each warp that waits for an mbarrier, from its first lane's wait to its last's."""
    by_warp: dict[int, list[tuple[int, Happening]]] = {}
    for step, each in steps:
        if each.event in ("waits", "goes on"):
            by_warp.setdefault(each.thread // WARP, []).append((step, each))
    for warp, mine in by_warp.items():
        open_waits: dict[int, int] = {}   # by thread
        begin, line = 0, mine[0][1].line
        for step, each in mine:
            if each.event == "waits":
                if not open_waits:
                    begin, line = step, each.line
                open_waits[each.thread] = step
                continue
            waited = open_waits.pop(each.thread)
            if not open_waits:
                others = {other.thread // WARP for _, other in steps[waited:step]}
                if others - {warp}:
                    yield PipelineBar(row=f"warp {warp}", kind=WAIT, begin=begin, end=step, n=1,
                                      line=line)


def _products_of_warps(steps: Sequence[tuple[int, Happening]]) -> Iterable[PipelineBar]:
    """mma.sync is done when it returns, so its bar is as long as its step."""
    for step, each in steps:
        if each.event == "multiplies":
            yield PipelineBar(row=_row(PRODUCT, each), kind=PRODUCT, begin=step, end=step + 1, n=1,
                              line=each.line)


def _joined(
    products: Iterable[PipelineBar], steps: Sequence[tuple[int, Happening]]
) -> list[PipelineBar]:
    """Joins the products that one row began without doing something else in between.

    They end together, at the last one's end.
    """
    turn: dict[tuple[str, int], int] = {}   # of a row's own steps, by row and step
    n_turns: dict[str, int] = {}
    for step, each in steps:
        row = _row(PRODUCT, each)
        turn[row, step] = n_turns[row] = n_turns.get(row, 0) + 1
    joined: list[PipelineBar] = []
    ordered = sorted(products, key=lambda bar: (bar.row, bar.begin))
    for row, group in groupby(ordered, key=lambda bar: bar.row):
        before = -1   # the row's turn in which the bar before this one began
        for bar in group:
            now = turn[row, bar.begin]
            if now == before + 1 and before > 0:
                first = joined.pop()
                bar = PipelineBar(row=row, kind=PRODUCT, begin=first.begin, n=first.n + bar.n,
                                  end=max(first.end, bar.end), line=first.line)
            joined.append(bar)
            before = now
    return joined


def _compact(bars: Sequence[PipelineBar]) -> Pipeline:
    """Counts only the steps at which a bar begins or ends."""
    marks = sorted({mark for bar in bars for mark in (bar.begin, bar.end)})
    at = {mark: number for number, mark in enumerate(marks)}
    counted = [PipelineBar(row=bar.row, kind=bar.kind, begin=at[bar.begin], end=at[bar.end],
                           n=bar.n, line=bar.line) for bar in bars]
    counted.sort(key=lambda bar: (_place(bar.row), bar.begin, bar.end))
    return Pipeline(bars=tuple(counted), n_steps=len(marks) - 1)

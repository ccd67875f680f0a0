"""Simulates a schedule: when each pass begins and ends, how long ranks wait, and what they keep.

It executes the same lists as the real pipeline. A pass begins when its rank is free and everything
it needs has arrived. Times may be integers or fractions, and then all results are exact.

    timeline = simulate(one_f_one_b(4, 8), Times(forward=1, backward=1, weights=1))
    timeline.bubble == Fraction(3, 8)

A timeline may also be read from the log of a real run (`measured`), and is drawn and measured in
the same way.

Notebook 44. Sources: Narayanan et al., arXiv:2104.04473, section 2.2 (the bubble); Qi et al., Zero
bubble pipeline parallelism, arXiv:2401.10241, table 2.
"""

import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational

from llama_from_scratch.config import record
from llama_from_scratch.parallel.comm_log import CommLog, Span
from llama_from_scratch.parallel.pipeline.schedule import (
    BACKWARD,
    FORWARD,
    WEIGHTS,
    Op,
    Schedule,
)
from llama_from_scratch.parallel.pipeline.validate import At, in_order, needs

Time = int | Fraction | float
PerPiece = Time | Sequence[Time]


@record
class Times:
    """How long the passes of a micro-batch take, in any unit.

    `forward`, `backward`, `weights`: one number for all pieces, or one for each piece. `backward`
    is for the gradient that the piece before needs, `weights` for the gradients of the weights; a
    schedule that does not divide backward does both in B. `hop`: from one rank to another. With
    `recompute`, a piece keeps only its input after F, and does F once more as a part of B.
    """

    forward: PerPiece = 1
    backward: PerPiece = 1
    weights: PerPiece = 1
    hop: Time = 0
    recompute: bool = False

    def of(self, schedule: Schedule, op: Op, *, piece: int) -> Time:
        """Returns how long a pass takes."""
        forward, backward, weights = (
            value if isinstance(value, (int, float, Rational)) else value[piece]
            for value in (self.forward, self.backward, self.weights))
        if op.kind == FORWARD:
            return forward
        if op.kind == WEIGHTS:
            return weights
        again = forward if self.recompute else 0
        return backward + again + (0 if schedule.splits_backward else weights)


@record
class TimedOp:
    """A pass of a rank, from `begin` to `end`."""

    rank: int
    op: Op
    begin: Time
    end: Time


@record
class PipelineTimeline:
    """When every pass of a schedule began and ended, in the order of time on each rank."""

    schedule: Schedule
    passes: tuple[TimedOp, ...]
    recompute: bool = False
    unit: str = "units of time"

    @functools.cached_property
    def begin(self) -> Time:
        """When the first pass began."""
        return min(each.begin for each in self.passes)

    @functools.cached_property
    def time(self) -> Time:
        """From the beginning of the first pass to the end of the last."""
        return max(each.end for each in self.passes) - self.begin

    @functools.cached_property
    def idle(self) -> tuple[Time, ...]:
        """For each rank, how much of the time it did nothing: its bubble."""
        busy: list[Time] = [0] * self.schedule.n_ranks
        for each in self.passes:
            busy[each.rank] += each.end - each.begin
        return tuple(self.time - each for each in busy)

    @property
    def idle_share(self) -> Time:
        """The part of all ranks' time in which they did nothing, from 0 to 1."""
        return _ratio(sum(self.idle), self.schedule.n_ranks * self.time)

    @property
    def bubble(self) -> Time:
        """The idle time of the busiest rank relative to the time in which it computed."""
        return _ratio(min(self.idle), self.time - min(self.idle))

    def memory(self, rank: int, *, input_share: Time = Fraction(1, 8)) -> list[tuple[Time, Time]]:
        """Returns when the rank's memory for activations changes, and to how much.

        The unit is everything that a piece keeps of one micro-batch for its backward pass, which is
        from F to B, or to W if backward is divided. With recomputation, it is only its input after
        F, the share `input_share` of that, and everything from the beginning of B on.
        """
        changes: list[tuple[Time, int, Time]] = []
        last = WEIGHTS if self.schedule.splits_backward else BACKWARD
        for each in self.passes:
            if each.rank != rank:
                continue
            if each.op.kind == FORWARD:
                changes.append((each.begin, 1, 1))
                if self.recompute:
                    changes.append((each.end, 0, input_share - 1))
            if each.op.kind == BACKWARD and self.recompute:
                changes.append((each.begin, 1, 1 - input_share))
            if each.op.kind == last:
                changes.append((each.end, 0, -1))
        found, held = [(self.begin, 0)], 0
        for when, _, change in sorted(changes, key=lambda each: each[:2]):
            held += change
            found.append((when, held))
        return found

    def peak(self, rank: int, *, input_share: Time = Fraction(1, 8)) -> Time:
        """Returns the most that a rank keeps at once, in the unit of `memory`."""
        return max(held for _, held in self.memory(rank, input_share=input_share))


def simulate(schedule: Schedule, times: Times | None = None) -> PipelineTimeline:
    """Returns when each pass begins and ends, if every pass takes a time of one.

    `times`: other times. Raises ValueError if the ranks would wait forever, and for times that are
    not above 0 or not there for every piece.
    """
    times = Times() if times is None else times
    _check_times(times, schedule)
    ended: dict[At, Time] = {}
    free: list[Time] = [0] * schedule.n_ranks
    passes = []
    for rank, op in in_order(schedule):
        piece = schedule.piece(rank, op.chunk)
        arrived = [ended[at] + (times.hop if schedule.home(at[2])[0] != rank else 0)
                   for at in needs(schedule, rank, op)]
        begin = max([free[rank], *arrived])
        end = begin + times.of(schedule, op, piece=piece)
        ended[op.kind, op.micro_batch, piece] = free[rank] = end
        passes.append(TimedOp(rank=rank, op=op, begin=begin, end=end))
    return PipelineTimeline(schedule=schedule, passes=tuple(passes), recompute=times.recompute)


def closed_form(schedule: Schedule, times: Times | None = None) -> Fraction:
    """Returns the bubble by the formula of the schedule's paper, for equal pieces and no hops.

    A rank computes M (F + B + W) for all its pieces together, and waits (P - 1) (F + B + W) with
    GPipe and 1F1B, a V-th of that with interleaved. With ZB-H1 it waits (P - 1) (F + B - W) as long
    as W is the shortest pass, and (P - 1) times the longer of F and B otherwise: the last rank
    begins P - 1 forward passes late, and the first gets its last gradient P - 1 passes late.

    Raises ValueError for a schedule without a formula, for unequal times or hops, and for fewer
    micro-batches than ranks with interleaved and zero_bubble.
    """
    times = Times() if times is None else times
    parts = (times.forward, times.backward, times.weights)
    if not all(isinstance(part, Rational) for part in parts) or times.hop:
        raise ValueError("the formulas are for whole or rational times, equal for all pieces, and "
                         f"no hops; got {times}. Use simulate")
    n, n_ranks = schedule.n_micro_batches, schedule.n_ranks
    if schedule.name in ("gpipe", "1f1b"):
        return Fraction(n_ranks - 1, n)
    if schedule.name not in ("interleaved", "zero_bubble"):
        raise ValueError("there are formulas for gpipe, 1f1b, interleaved and zero_bubble; got "
                         f"{schedule.name!r}. Use simulate")
    if n < n_ranks:
        raise ValueError(f"the formula of {schedule.name} needs at least as many micro-batches as "
                         f"ranks; got {n} for {n_ranks} ranks. Use simulate")
    if schedule.name == "interleaved":
        return Fraction(n_ranks - 1, n * schedule.n_chunks)
    forward, backward, weights = map(Fraction, parts)
    if times.recompute:
        backward += forward
    waits = (n_ranks - 1) * max(forward + backward - weights, forward, backward)
    return waits / (n * (forward + backward + weights))


def measured(
    schedule: Schedule, logs: Sequence[CommLog], *, recompute: bool = False
) -> PipelineTimeline:
    """Returns the timeline of a real run, in milliseconds, from the logs of its ranks.

    A span with the name of a pass, such as "F0" or "B3.1", is that pass; other spans are left out.
    The pass begins when what it needs has been received: before, the rank waits. Raises ValueError
    unless each rank's log has every pass of its list exactly once.
    """
    if len(logs) != schedule.n_ranks:
        raise ValueError(f"a run of {schedule.n_ranks} ranks has as many logs; got {len(logs)}")
    passes = []
    for rank, (log, ops) in enumerate(zip(logs, schedule.ops, strict=True)):
        spans = [span for span in log.spans if _PASS.fullmatch(span.name)]
        named = {str(op): op for op in ops}
        names = [span.name for span in spans]
        if sorted(names) != sorted(named):
            raise ValueError(f"the log of rank {rank} must have every pass of the schedule once; "
                             f"got {len(names)} passes for {len(ops)}. Clear the log before the "
                             "step, and give the schedule that ran")
        passes += [TimedOp(rank=rank, op=named[span.name], begin=1e3 * _received_s(log, span),
                           end=1e3 * span.ended_s) for span in spans]
    return PipelineTimeline(schedule=schedule, passes=tuple(passes), recompute=recompute,
                            unit="ms")


def _received_s(log: CommLog, span: Span) -> float:
    """Returns when the rank had received what it waited for in a span, or when the span began."""
    return max([span.began_s, *(call.ended_s for call in log.calls if call.op == "receive"
                                and span.began_s <= call.waited_s <= call.ended_s <= span.ended_s)])


_PASS = re.compile(f"[{FORWARD}{BACKWARD}{WEIGHTS}]\\d+(\\.\\d+)?")


def _ratio(part: Time, whole: Time) -> Time:
    """Returns an exact fraction where both are exact."""
    if isinstance(part, Rational) and isinstance(whole, Rational):
        return Fraction(part) / Fraction(whole)
    return part / whole


def _check_times(times: Times, schedule: Schedule) -> None:
    for field in ("forward", "backward", "weights"):
        value = getattr(times, field)
        each = (value,) if isinstance(value, (int, float, Rational)) else tuple(value)
        if isinstance(value, Sequence) and len(each) != schedule.n_pieces:
            raise ValueError(f"Times.{field} is one number, or one for each of the "
                             f"{schedule.n_pieces} pieces; got {len(each)}")
        if not all(time > 0 for time in each):
            raise ValueError(f"Times.{field} must be above 0; got {value}")
    if times.hop < 0:
        raise ValueError(f"Times.hop must not be below 0; got {times.hop}")

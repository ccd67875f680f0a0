"""What travels between the ranks of a pipeline, and in which order it arrives.

A rank knows the schedule of all others. So it knows in which order each of them sends, and begins
to receive in that order, one tensor ahead of its own passes. Nothing is announced, no send waits,
and what is sent in both directions has connections of its own.

Notebook 44. Source: Llama 3, arXiv:2407.21783, section 3.3.2 (asynchronous sending).
"""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.parallel.comm import Pending, RankGroup
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.pipeline.schedule import BACKWARD, FORWARD, WEIGHTS, Op, Schedule

STREAM, GRADIENT = "stream", "gradient"


@record
class SentTensor:
    """What one pass sends to another: `what` is a stream or its gradient.

    `piece`: the one that receives it. `returns`: whether it goes from the last rank to the first,
    or back, because the next piece is the next chunk.
    """

    what: str
    micro_batch: int
    piece: int
    source: int
    target: int
    returns: bool

    @property
    def channel(self) -> tuple[str, bool]:
        """Messages of the same channel, source and target arrive in the order of sending."""
        return self.what, self.returns


def sent_by(schedule: Schedule, rank: int, op: Op) -> SentTensor | None:
    """Returns what this pass sends to another rank, if it sends something."""
    step = {FORWARD: 1, BACKWARD: -1, WEIGHTS: 0}[op.kind]
    piece = schedule.piece(rank, op.chunk) + step
    if step == 0 or not 0 <= piece < schedule.n_pieces or schedule.n_ranks == 1:
        return None
    target, _ = schedule.home(piece)
    return SentTensor(what=STREAM if step > 0 else GRADIENT, micro_batch=op.micro_batch,
                      piece=piece, source=rank, target=target, returns=target != rank + step)


def channels(axes: Axes, *, n_chunks: int) -> dict[tuple[str, bool], RankGroup]:
    """Returns a group with own connections for each kind of message. A collective of all ranks."""
    lines = tuple(axes.mesh.lines("pp"))
    return {(what, returns): axes.world.group(lines, name="pp")
            for returns in ((False, True) if n_chunks > 1 else (False,))
            for what in (STREAM, GRADIENT)}


class Mail:
    """Sends and receives in the order that the schedule of the other rank has."""

    def __init__(
        self, schedule: Schedule, group: RankGroup, channels: Mapping[tuple[str, bool], RankGroup],
        new_tensor: Callable[[int], Tensor],
    ) -> None:
        self._schedule, self._group, self._channels = schedule, group, channels
        self._new_tensor = new_tensor
        self._here: dict[tuple[str, int, int], Tensor] = {}
        self._sent: collections.deque[Pending] = collections.deque()
        self._expected: dict[tuple, collections.deque[SentTensor]] = {}
        self._coming: dict[tuple, collections.deque[tuple[SentTensor, Pending]]] = {}
        for rank, ops in enumerate(schedule.ops):
            for op in ops:
                message = sent_by(schedule, rank, op)
                if message is not None and message.target == group.rank:
                    self._expected.setdefault((message.channel, rank), collections.deque()).append(
                        message)
        for line in self._expected:
            self._coming[line] = collections.deque()
            self._begin_next(line)

    def receive(self, op: Op, what: str) -> Tensor:
        """Returns what this pass needs from another rank, or from another chunk of this one."""
        key = what, op.micro_batch, self._schedule.piece(self._group.rank, op.chunk)
        while key not in self._here:
            source, _ = self._schedule.home(key[2] + (-1 if what == STREAM else 1))
            line = self._line(key, source)
            message, pending = self._coming[line].popleft()
            self._begin_next(line)
            self._here[message.what, message.micro_batch, message.piece] = pending.wait()
        return self._here.pop(key)

    def send(self, op: Op, x: Tensor) -> None:
        """Begins to send the result of a pass, or keeps it for another chunk of this rank."""
        message = sent_by(self._schedule, self._group.rank, op)
        if message is None:
            piece = self._schedule.piece(self._group.rank, op.chunk)
            step = 1 if op.kind == FORWARD else -1
            what = STREAM if op.kind == FORWARD else GRADIENT
            self._here[what, op.micro_batch, piece + step] = x.detach()
            return
        self._sent.append(self._channels[message.channel].start_send(
            x, to=message.target, note=f"{message.what} {message.micro_batch}"))
        while self._sent and self._sent[0].is_complete:
            self._sent.popleft().wait()

    @contextlib.contextmanager
    def closed_at_end(self) -> Iterator[None]:
        """A context after which everything that was sent has been received."""
        yield
        while self._sent:
            self._sent.popleft().wait()

    def _line(self, key: tuple[str, int, int], source: int) -> tuple:
        what, *_ = key
        step = 1 if what == STREAM else -1
        return (what, self._group.rank != source + step), source

    def _begin_next(self, line: tuple) -> None:
        """Begins to receive the next tensor of a line, before any pass needs it."""
        if self._expected[line]:
            message = self._expected[line].popleft()
            (channel, source) = line
            self._coming[line].append((message, self._channels[channel].start_receive(
                self._new_tensor(message.micro_batch), source=source,
                note=f"{message.what} {message.micro_batch}")))

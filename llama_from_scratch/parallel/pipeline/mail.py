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
Line = tuple[tuple[str, bool], int]
"""A channel, and the rank that sends."""


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

    @property
    def key(self) -> tuple[str, int, int]:
        """What no other message of a step has."""
        return self.what, self.micro_batch, self.piece


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
    """Sends and receives in the order that the schedule of the other rank has.

    For two ranks or more: then the pieces before and after a piece are on its neighbors.
    """

    def __init__(
        self, schedule: Schedule, group: RankGroup, channels: Mapping[tuple[str, bool], RankGroup],
        new_tensor: Callable[[int], Tensor],
    ) -> None:
        self._schedule, self._group, self._channels = schedule, group, channels
        self._new_tensor = new_tensor
        self._here: dict[tuple[str, int, int], Tensor] = {}
        self._sent: collections.deque[Pending] = collections.deque()
        self._line_of: dict[tuple[str, int, int], Line] = {}
        self._expected: dict[Line, collections.deque[SentTensor]] = {}
        self._coming: dict[Line, collections.deque[tuple[SentTensor, Pending]]] = {}
        for rank in {(group.rank + step) % group.size for step in (1, -1)} - {group.rank}:
            for op in schedule.ops[rank]:
                message = sent_by(schedule, rank, op)
                if message is not None and message.target == group.rank:
                    line = self._line_of[message.key] = message.channel, rank
                    self._expected.setdefault(line, collections.deque()).append(message)
        for line in self._expected:
            self._coming[line] = collections.deque()
            self._begin_next(line)

    def receive(self, op: Op, what: str) -> Tensor:
        """Returns what this pass needs from another rank."""
        key = what, op.micro_batch, self._schedule.piece(self._group.rank, op.chunk)
        line = self._line_of[key]
        while key not in self._here:
            message, pending = self._coming[line].popleft()
            self._begin_next(line)
            self._here[message.key] = pending.wait()
        return self._here.pop(key)

    def send(self, op: Op, x: Tensor) -> None:
        """Begins to send the result of a pass to the rank that needs it."""
        message = sent_by(self._schedule, self._group.rank, op)
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

    def _begin_next(self, line: Line) -> None:
        """Begins to receive the next tensor of a line, before any pass needs it."""
        if self._expected[line]:
            message = self._expected[line].popleft()
            (channel, source) = line
            self._coming[line].append((message, self._channels[channel].start_receive(
                self._new_tensor(message.micro_batch), source=source,
                note=f"{message.what} {message.micro_batch}")))

"""Runs a collective on ranks that are only threads, and writes down every message.

The function is a real one: the library's, or the reader's, also a wrong one. It gets a tensor and a
`Messenger`. Time is counted in steps: in one step a rank can send one message and receive one. A
send waits until its message is received, as it does for tensors that are larger than a buffer.

Notebook 40.
"""

import collections
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Int64
from torch import Tensor

from llama_from_scratch.config import record


class Stuck(RuntimeError):
    """The ranks wait for each other, or for a message that no rank sends."""


@record
class SentMessage:
    """One message: in which step, from which rank to which, and the tensor."""

    step: int
    source: int
    to: int
    content: Tensor


@record
class Traced:
    """What a collective did. `before`, `after`: the tensor of each rank. Messages by step."""

    n_ranks: int
    messages: list[SentMessage]
    before: list[Tensor]
    after: list[Tensor]

    @property
    def n_steps(self) -> int:
        """How many steps it took."""
        return 1 + max((message.step for message in self.messages), default=-1)


def trace(function: Callable, n_ranks: int, *, is_cut: bool = False) -> Traced:
    """Runs `function(x, group)` on every rank and returns its messages, in the order of steps.

    x has a row for each piece. In its first half a row has the number of the piece, and in its
    second half that of the rank, each as a one in that place, so that a sum shows what was added
    up: see `contents`. `is_cut`: each rank has only its own piece, as before an all-gather.
    Raises Stuck if the ranks wait for each other. An error of a rank is raised here.
    """
    eye = torch.eye(n_ranks, dtype=torch.int64)
    wholes = [torch.cat([eye, eye[[rank] * n_ranks]], dim=1) for rank in range(n_ranks)]
    before = [whole[[rank]] if is_cut else whole for rank, whole in enumerate(wholes)]
    office = _Office(n_ranks)

    def run(rank: int) -> Tensor:
        try:
            return function(before[rank].clone(), _PretendGroup(office, rank=rank, size=n_ranks))
        finally:
            office.ends(rank)

    with ThreadPoolExecutor(n_ranks) as pool:
        futures = [pool.submit(run, rank) for rank in range(n_ranks)]
    # An error of one rank leaves the others stuck; it comes first.
    futures.sort(key=lambda future: isinstance(future.exception(), Stuck))
    for future in futures:
        if future.exception() is not None:
            raise future.exception()
    after = [future.result() for future in futures]
    messages = sorted(office.messages, key=lambda message: (message.step, message.source))
    return Traced(n_ranks=n_ranks, messages=messages, before=before, after=after)


def contents(x: Int64[Tensor, "*rows columns"]) -> list[tuple[int, tuple[int, ...]]]:
    """Returns (piece, which ranks' numbers it has), row by row, of a tensor made by `trace`.

    A rank that was added up twice appears twice. A piece of -1 is a sum of different pieces.
    """
    found = []
    for row in x.reshape(-1, x.shape[-1]):
        pieces, ranks = row.chunk(2)
        piece = int(pieces.argmax()) if pieces.count_nonzero() == 1 else -1
        found.append((piece, tuple(rank for rank, n in enumerate(ranks.tolist())
                                   for _ in range(n))))
    return found


class _Office:
    """What all pretended ranks share: the messages on their way, and those that have arrived."""

    def __init__(self, n_ranks: int) -> None:
        self.on_the_way: dict[tuple[int, int], collections.deque[_OnTheWay]] = (
            collections.defaultdict(collections.deque))
        self.messages: list[SentMessage] = []
        self.changed = threading.Condition()
        self._running, self._awaited = set(range(n_ranks)), {}
        self._is_stuck = False

    def wait_for(self, is_there: Callable[[], bool], *, rank: int, words: str) -> None:
        """Returns when `is_there()`. Raises Stuck when all ranks wait and nothing can change."""
        self._awaited[rank] = is_there
        self._look()
        self.changed.wait_for(lambda: self._is_stuck or is_there())
        del self._awaited[rank]
        if not is_there():
            raise Stuck(words)

    def ends(self, rank: int) -> None:
        """A rank has returned, or raised an error."""
        with self.changed:
            self._running.remove(rank)
            self._look()

    def _look(self) -> None:
        if self._running <= self._awaited.keys() and not any(
                is_there() for is_there in self._awaited.values()):
            self._is_stuck = True
            self.changed.notify_all()


class _OnTheWay:
    """A message that was sent at `ready`, a step of the sender's clock."""

    def __init__(self, sender: "_PretendGroup", x: Tensor, *, to: int) -> None:
        self.content, self.ready, self.to, self.sender = x.clone(), sender.clock, to, sender
        self.step: int | None = None

    def wait(self) -> Tensor:
        office = self.sender.office
        with office.changed:
            office.wait_for(
                lambda: self.step is not None, rank=self.sender.rank,
                words=f"each send needs a receive on the other rank; rank {self.sender.rank} sends "
                      f"to rank {self.to}, which does not receive it. If every rank sends first, "
                      "all wait: begin with start_send, then receive, then wait")
        self.sender.clock = max(self.sender.clock, self.step + 1)
        return self.content


class _PretendGroup:
    """A `Messenger` within one process. `clock`: the first step in which it can do something."""

    def __init__(self, office: _Office, *, rank: int, size: int) -> None:
        self.office, self.rank, self.size, self.clock = office, rank, size, 0

    def send(self, x: Tensor, *, to: int, note: str = "") -> None:
        self.start_send(x, to=to, note=note).wait()

    def start_send(self, x: Tensor, *, to: int, note: str = "") -> _OnTheWay:
        message = _OnTheWay(self, x, to=to)
        with self.office.changed:
            self.office.on_the_way[self.rank, to].append(message)
            self.office.changed.notify_all()
        return message

    def receive(self, x: Tensor, *, source: int, note: str = "") -> Tensor:
        with self.office.changed:
            waiting = self.office.on_the_way[source, self.rank]
            self.office.wait_for(
                lambda: bool(waiting), rank=self.rank,
                words=f"each receive needs a send on the other rank; rank {self.rank} waits for "
                      f"rank {source}, which sends nothing. Look at the numbers of the ranks and "
                      "at the order of the calls")
            message = waiting.popleft()
            message.step = max(self.clock, message.ready)
            self.clock = message.step + 1
            self.office.messages.append(SentMessage(step=message.step, source=source, to=self.rank,
                                                content=message.content))
            x.copy_(message.content)
            self.office.changed.notify_all()
        return x

"""The collectives, built from nothing but `send` and `receive`.

The ranks of a group form a ring. Each cuts its tensor into as many pieces as there are ranks.
In each step every rank sends one piece to the next rank and receives one from the rank before it,
so every link of the ring is busy in every step, and no rank does more than another. After n - 1
steps in which a rank adds what it receives, each holds one piece of the sum (reduce-scatter). After
n - 1 steps in which it keeps what it receives, each holds all pieces (all-gather). An all-reduce is
both: a rank sends 2 (n - 1) / n times its tensor, less than twice, however many ranks there are.

Every sum is computed once, on one rank, and then copied, so all ranks get the same bits. Where the
ranks do not divide an axis, the first pieces are longer by one, as with `Tensor.tensor_split`.

`RankGroup` has the same operations with PyTorch's own, faster implementation.

Notebook 40. Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of
workstations, 2009, section 3.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor


@runtime_checkable
class Sending(Protocol):
    """A message on its way."""

    def wait(self) -> Tensor:
        """Returns when the tensor may be changed."""


@runtime_checkable
class Messenger(Protocol):
    """All that the collectives need: who is who, and messages from rank to rank.

    A `RankGroup` is one. So is anything that only pretends, such as what draws these messages.
    """

    rank: int
    size: int

    def send(self, x: Tensor, *, to: int, note: str = "") -> None:
        """Sends x to a rank, which must `receive` it."""

    def start_send(self, x: Tensor, *, to: int, note: str = "") -> Sending:
        """Begins `send`."""

    def receive(self, x: Tensor, *, source: int, note: str = "") -> Tensor:
        """Overwrites x with what a rank sends; returns it."""


def naive_all_reduce(
    x: Shaped[Tensor, "*any"], group: Messenger, *, note: str = ""
) -> Shaped[Tensor, "*any"]:
    """Replaces x on every rank by the sum over the ranks, which rank 0 computes; returns it.

    Rank 0 receives n - 1 tensors and sends n - 1, one after the other, while the others wait.
    """
    if group.rank > 0:
        group.send(x, to=0, note=note)
        return _received(x, group, source=0, note=note)
    for other in range(1, group.size):
        x += group.receive(_empty_like(x), source=other, note=note)
    for other in range(1, group.size):
        group.send(x, to=other, note=note)
    return x


def all_reduce(
    x: Shaped[Tensor, "*any"], group: Messenger, *, note: str = ""
) -> Shaped[Tensor, "*any"]:
    """Replaces x on every rank by the sum over the ranks; returns it."""
    flat = x.reshape(-1)  # a view of x, or a copy if x is not contiguous
    pieces = flat.tensor_split(group.size)
    _reduce_around(pieces, group, note=note)
    _gather_around(pieces, group, note=note)
    return x if x.is_contiguous() else x.copy_(flat.view(x.shape))


def reduce_scatter(
    x: Shaped[Tensor, "whole *rest"], group: Messenger, *, note: str = ""
) -> Shaped[Tensor, "part *rest"]:
    """Returns this rank's piece, along the first axis, of the sum over the ranks."""
    pieces = x.clone(memory_format=torch.contiguous_format).tensor_split(group.size)
    _reduce_around(pieces, group, note=note)
    return pieces[group.rank].clone()


def all_gather(
    x: Shaped[Tensor, "part *rest"], group: Messenger, *, length: int | None = None,
    note: str = "",
) -> Shaped[Tensor, "whole *rest"]:
    """Returns the pieces of all ranks, one after the other along the first axis.

    `length`: that of the whole; needed only where the ranks do not divide it. Raises ValueError if
    this rank's piece does not have the length that belongs to it.
    """
    length = len(x) * group.size if length is None else length
    whole = x.new_empty(length, *x.shape[1:])
    pieces = whole.tensor_split(group.size)
    if len(x) != len(pieces[group.rank]):
        raise ValueError(f"of a length of {length} among {group.size} ranks, rank {group.rank} "
                         f"holds {len(pieces[group.rank])}; got {len(x)}. Cut the whole with "
                         "Tensor.tensor_split")
    pieces[group.rank].copy_(x)
    _gather_around(pieces, group, note=note)
    return whole


def all_to_all(
    x: Shaped[Tensor, "rows *rest"], group: Messenger, *, sent: Sequence[int] | None = None,
    received: Sequence[int] | None = None, note: str = "",
) -> Shaped[Tensor, "others *rest"]:
    """Returns what every rank has for this one: rows of x go to rank 0, 1, 2, ... in order.

    `sent`, `received`: how many rows go to and come from each rank; by default all alike.
    In step s each rank sends to the rank s places on, so no rank gets two messages at once.
    """
    if sent is None or received is None:
        if len(x) % group.size or sent is not received:
            raise ValueError("all_to_all cuts the first axis evenly, or as both `sent` and "
                             f"`received` say; got {len(x)} rows for {group.size} ranks, "
                             f"sent={sent}, received={received}")
        sent = received = [len(x) // group.size] * group.size
    outgoing = x.split(list(sent))
    out = x.new_empty(sum(received), *x.shape[1:])
    incoming = out.split(list(received))
    incoming[group.rank].copy_(outgoing[group.rank])
    for step in range(1, group.size):
        to, source = (group.rank + step) % group.size, (group.rank - step) % group.size
        _exchange(outgoing[to], incoming[source], group, to=to, source=source, note=note)
    return out


def broadcast(
    x: Shaped[Tensor, "*any"], group: Messenger, *, source: int = 0, note: str = ""
) -> Shaped[Tensor, "*any"]:
    """Replaces x on every rank by the x of rank `source` of the group; returns it.

    A tree: in each step every rank that has x sends it to one that has not, so the number of ranks
    that have it doubles.
    """
    place = (group.rank - source) % group.size  # counted from the source
    n_having = 1
    while n_having < group.size:
        if place < n_having and place + n_having < group.size:
            group.send(x, to=(group.rank + n_having) % group.size, note=note)
        elif n_having <= place < 2 * n_having:
            _received(x, group, source=(group.rank - n_having) % group.size, note=note)
        n_having *= 2
    return x


# --- around the ring ----------------------------------------------------------------------------


def _reduce_around(pieces: Sequence[Tensor], group: Messenger, *, note: str) -> None:
    """Adds up the pieces in place; at the end, `pieces[group.rank]` is the sum over the ranks."""
    n, rank = group.size, group.rank
    for step in range(n - 1):
        mine, theirs = pieces[(rank - step - 1) % n], pieces[(rank - step - 2) % n]
        arrived = _empty_like(theirs)
        _exchange(mine, arrived, group, to=(rank + 1) % n, source=(rank - 1) % n, note=note)
        theirs += arrived


def _gather_around(pieces: Sequence[Tensor], group: Messenger, *, note: str) -> None:
    """Fills in all pieces in place from the one that each rank holds, `pieces[group.rank]`."""
    n, rank = group.size, group.rank
    for step in range(n - 1):
        mine, theirs = pieces[(rank - step) % n], pieces[(rank - step - 1) % n]
        _exchange(mine, theirs, group, to=(rank + 1) % n, source=(rank - 1) % n, note=note)


def _exchange(
    outgoing: Tensor, incoming: Tensor, group: Messenger, *, to: int, source: int, note: str
) -> None:
    """Sends and receives at the same time: if all ranks sent first, all could wait forever."""
    sending = group.start_send(outgoing, to=to, note=note)
    group.receive(incoming, source=source, note=note)
    sending.wait()


def _received(x: Tensor, group: Messenger, *, source: int, note: str) -> Tensor:
    """Overwrites x, which need not be contiguous, with what arrives."""
    if x.is_contiguous():
        return group.receive(x, source=source, note=note)
    return x.copy_(group.receive(_empty_like(x), source=source, note=note))


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)

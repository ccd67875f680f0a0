"""What was sent, by whom, when: one entry for every collective that a rank has taken part in.

An entry counts bytes in two ways. `n_bytes` is the size of the tensor that the caller handed over.
`sent_bytes` is what one rank sends if the collective runs as a ring, which moves the least that is
possible. The formulas are from nccl-tests ("bus bandwidth"). A log also has spans: what a rank
computed meanwhile, so that a timeline shows whether sending and computing overlapped.

Notebook 40. Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of
workstations, 2009, section 3.
"""

import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction

from llama_from_scratch.config import record

SHARE_SENT = {
    "all_reduce": lambda n: Fraction(2 * (n - 1), n),
    "reduce_scatter": lambda n: Fraction(n - 1, n),
    "all_gather": lambda n: Fraction(n - 1, n),
    "all_to_all": lambda n: Fraction(n - 1, n),
    "broadcast": lambda n: Fraction(n - 1, n),
    "send": lambda n: Fraction(1),
    "receive": lambda n: Fraction(0),
    "barrier": lambda n: Fraction(0),
}
"""For each operation, what a rank sends, as a share of the whole tensor, with n ranks. The whole
tensor is what is reduced, what is gathered, or what one rank distributes. For `broadcast` it is the
mean over the ranks: all except one receive the tensor, and each of these was sent it by somebody. A
barrier sends no data."""


@record
class Call:
    """One collective, as one rank saw it.

    `group`, `size`: the group's name and its number of ranks. `n_bytes`: of the whole tensor, as in
    `SHARE_SENT`. `uneven_bytes`: what this rank sends, for an `all_to_all` that is not even; None
    for all others. `note`: what the tensor is, in the caller's words. The times are seconds of this
    rank's clock: `began_s` when it was started, `waited_s` when the caller began to wait for it,
    `ended_s` when the result was there, or where that is not known, when the caller had it. A GPU
    only queues collectives, and for it all three are the times of the processor that gave the
    orders.
    """

    op: str
    group: str
    size: int
    n_bytes: int
    note: str
    began_s: float
    waited_s: float
    ended_s: float
    uneven_bytes: int | None = None

    @property
    def sent_bytes(self) -> Fraction:
        """What one rank sends, see `SHARE_SENT`; a whole number if the size divides the tensor."""
        if self.uneven_bytes is not None:
            return Fraction(self.uneven_bytes)
        return self.n_bytes * SHARE_SENT[self.op](self.size)

    @property
    def exposed_s(self) -> float:
        """The seconds that the caller waited for this call."""
        return max(self.ended_s - self.waited_s, 0.0)


@record
class Span:
    """What a rank computed from `began_s` to `ended_s`."""

    name: str
    began_s: float
    ended_s: float


class CommLog:
    """All calls and spans of one rank, oldest first."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.spans: list[Span] = []

    def clear(self) -> None:
        """Forgets everything, for example after a step that warms up."""
        self.calls.clear()
        self.spans.clear()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Records the block as a span."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(name=name, began_s=began_s, ended_s=time.perf_counter()))

    def sent_bytes(self, op: str | None = None, *, group: str | None = None) -> Fraction:
        """Returns what this rank sent, in one operation or all, to one group or all."""
        return sum((call.sent_bytes for call in self.calls
                    if op in (None, call.op) and group in (None, call.group)), Fraction(0))

    def counts(self) -> dict[str, int]:
        """Returns how often each operation was called."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.op] = found.get(call.op, 0) + 1
        return found

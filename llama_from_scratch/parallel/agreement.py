"""A debug mode that finds ranks which disagree on the next collective, and names both call sites.

Ranks that call different collectives wait for each other forever, or exchange bytes that mean
something else. In this mode every rank first writes down what it is about to do, and reads what the
others are about to do. That costs some milliseconds for each collective, and one that is only
started waits here until all ranks have started it. So it is for finding an error.

Notebook 40.
"""

import datetime
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from llama_from_scratch.parallel.stacks import with_cells

if TYPE_CHECKING:
    from llama_from_scratch.parallel.comm import RankGroup

_INSIDE = {str(Path(__file__).with_name(name)) for name in (
    "agreement.py", "comm.py", "collectives.py", "differentiable.py")}
_TORCH = str(Path(torch.__file__).parent)
_TICK_S = 0.001


class Disagreement(RuntimeError):
    """Two ranks of a group were about to begin different collectives."""


class Agreement:
    """Compares the collectives of the ranks through `store`, to which all of them have access.

    `timeout_s`: how long to wait for a rank that does not come and has not ended.
    """

    def __init__(self, store: dist.Store, *, timeout_s: float) -> None:
        self._store, self._timeout_s = store, timeout_s
        self._function = 0
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        """A new function begins, on every rank."""
        self._function += 1
        self._counts.clear()

    def end(self, rank: int) -> None:
        """The function has returned on this rank, so that no rank must wait for it."""
        self._store.set(f"{self._function}/ended/{rank}", "")

    def check(self, group: "RankGroup", what: str) -> None:
        """Returns when all ranks of the group are about to begin `what`, a collective in words.

        Raises Disagreement if one of them is about to begin another one, has ended, or has not come
        to this group within the timeout.
        """
        number, place = self._next(f"{group.name}/{group.ranks}")
        mine = f"{what} in group {group.name!r}"
        site = self._write(f"{place}/{group.rank}", mine, group=group)
        for other in range(group.size):
            theirs, their_site = self._read(f"{place}/{other}", group=group, other=other, mine=mine,
                                            site=site)
            if theirs != mine:
                raise Disagreement(
                    "all ranks of a group must call the same collectives in the same order; as "
                    f"number {number}, rank {group.ranks[group.rank]} calls {mine} ({site}), and "
                    f"rank {group.ranks[other]} calls {theirs} ({their_site}). Look for a branch "
                    "that only some ranks take")

    def check_send(self, group: "RankGroup", what: str, *, to: int) -> None:
        """Writes down that `what` is sent to a rank of the group; does not wait."""
        _, place = self._next(f"{group.name}/{group.ranks}/{group.rank} to {to}")
        self._write(place, what, group=group)

    def check_receive(self, group: "RankGroup", what: str, *, source: int) -> None:
        """Returns when that rank is about to send the same. Raises Disagreement as `check` does."""
        number, place = self._next(f"{group.name}/{group.ranks}/{source} to {group.rank}")
        mine, me = f"receive from rank {group.ranks[source]}", group.ranks[group.rank]
        self._store.set(self._last(me), f"{mine} in group {group.name!r}, {call_site()}")
        theirs, site = self._read(place, group=group, other=source, mine=mine, site=call_site())
        if theirs != what:
            raise Disagreement(
                f"a rank receives tensors as they are sent; as number {number}, rank {me} receives "
                f"{what} ({call_site()}), and rank {group.ranks[source]} sends {theirs} ({site}). "
                "Make shape, dtype and order equal")

    def _next(self, key: str) -> tuple[int, str]:
        number = self._counts[key] = self._counts.get(key, 0) + 1
        return number, f"{self._function}/{key}/{number}"

    def _last(self, rank: int) -> str:
        return f"{self._function}/last/{rank}"

    def _write(self, place: str, what: str, *, group: "RankGroup") -> str:
        site = call_site()
        self._store.set(self._last(group.ranks[group.rank]), f"{what}, {site}")
        self._store.set(place, f"{what}\n{site}")
        return site

    def _read(
        self, place: str, *, group: "RankGroup", other: int, mine: str, site: str
    ) -> tuple[str, str]:
        me, rank = group.ranks[group.rank], group.ranks[other]
        deadline = time.monotonic() + self._timeout_s
        while not self._store.check([place]):
            has_ended = self._store.check([f"{self._function}/ended/{rank}"])
            is_late = time.monotonic() > deadline
            if (has_ended or is_late) and not self._store.check([place]):
                did = "has ended" if has_ended else f"did not come within {self._timeout_s:g} s"
                at = (f"its last call was {self._store.get(self._last(rank)).decode()}"
                      if self._store.check([self._last(rank)]) else "it called no collective")
                raise Disagreement(
                    f"all ranks of a group must call the same collectives; rank {me} calls {mine} "
                    f"({site}), and rank {rank} {did}: {at}")
            time.sleep(_TICK_S)
        what, their_site = self._store.get(place).decode().split("\n", 1)
        return what, their_site


def call_site() -> str:
    """Returns "file:line in function" of the code that calls the collective."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_code.co_filename):
        frame = frame.f_back
    found = traceback.extract_stack(frame, limit=1)[0]
    file = Path(with_cells(found.filename)).name
    return f"{file}:{found.lineno} in {found.name}"


def _is_inside(file: str) -> bool:
    """Returns whether a collective passes through this file, which does not decide to call it."""
    return file in _INSIDE or file.startswith(_TORCH)


def seconds(timeout_s: float) -> datetime.timedelta:
    """Returns the form in which torch.distributed takes a timeout."""
    return datetime.timedelta(seconds=timeout_s)

"""Runs a function on several ranks, each a process of this machine, also from a notebook cell.

Functions travel by value, so that one from a cell works. The ranks meet through a file, use one
thread each, and begin with PyTorch's seed 0.

    def add_up(world, x):
        return world.all_reduce(torch.tensor([x + world.rank])).item()

    launch(add_up, 4, 10)       # [46, 46, 46, 46]

Notebook 40. On GPUs and on several machines the same functions run under torchrun: `torchrun`.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from typing import Any

import torch

from llama_from_scratch.checkpoint.machine import free_bytes
from llama_from_scratch.parallel.output import Transcript
from llama_from_scratch.parallel.processes import context, main_hidden
from llama_from_scratch.parallel.stacks import Stack, stack_of, with_cells
from llama_from_scratch.parallel.travel import pack_call, unpack
from llama_from_scratch.parallel.worker import Raised, Start, serve
from llama_from_scratch.parallel.world import World

MAX_RANKS = 64
"""Each rank is connected to all others, and each connection is an open file."""
BYTES_PER_RANK = 32 << 20
"""At least what a rank needs for itself, before it holds a tensor."""
_MAX_TIMEOUT_S = 1e6
_CAUSES = {"SIGKILL": "; its memory may have run out",
           "SIGABRT": "; ranks may have sent different sizes, which is_debug=True would name"}
_GRACE_S = 0.3
"""How long to wait for other failures after the first: when one rank dies, its peers fail too."""


class RankFailed(RuntimeError):
    """A rank raised an error, died, or did not finish in time. All ranks have been ended."""


def launch(
    function: Callable[..., Any], n_ranks: int, *args: Any, timeout_s: float = 60.0,
    is_debug: bool = False, **kwargs: Any,
) -> list[Any]:
    """Returns what `function(world, *args, **kwargs)` returned on each of `n_ranks` new ranks.

    `world` is the `World` of that rank. What a rank prints is printed here, line by line, with its
    number (`output`). `is_debug`: ranks that disagree on the next collective raise `Disagreement`.
    Raises ValueError if something cannot be copied to a rank, and RankFailed if a rank raises,
    dies, or has not finished after `timeout_s` seconds. RankFailed says where, its cause is the
    rank's own error, and no process is left.
    """
    with Ranks(n_ranks, timeout_s=timeout_s, is_debug=is_debug) as ranks:
        return ranks.run(function, *args, **kwargs)


class Ranks:
    """Ranks that stay, so that what a function puts into `world.kept` is there for the next one.

    Use it as a context manager, or `close` it. The arguments are as in `launch`; the start and
    each call of `run` have `timeout_s` seconds.
    """

    def __init__(self, n_ranks: int, *, timeout_s: float = 60.0, is_debug: bool = False) -> None:
        self.n_ranks, self.timeout_s = n_ranks, timeout_s
        self._ranks: list[_Rank] = []
        self._ended = "they have been closed"
        _refuse(n_ranks, timeout_s)
        self._scratch = tempfile.TemporaryDirectory(prefix="llama-ranks-",
                                                    ignore_cleanup_errors=True)
        deadline = time.monotonic() + timeout_s
        try:
            how = context()
            for rank in range(n_ranks):
                self._ranks.append(_Rank(how, Start(
                    rank=rank, n_ranks=n_ranks, folder=self._scratch.name,
                    shared_folder=get_temp_dir(), path=list(sys.path), environment=dict(os.environ),
                    timeout_s=timeout_s, is_debug=is_debug)))
            self._collect("ready", deadline=deadline)
        except BaseException as error:  # an interrupt, too
            self._end(error)
            raise

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Returns what `function(world, *args, **kwargs)` returned on each rank, in their order.

        Errors as in `launch`. After a RankFailed all ranks have ended.
        """
        if not self._ranks:
            raise RankFailed(f"a function runs on ranks that are alive; these have ended, because "
                             f"{self._ended}. Start new ones with Ranks({self.n_ranks})")
        task = pack_call(function, args, kwargs)
        deadline = time.monotonic() + self.timeout_s
        try:
            for rank in self._ranks:
                with contextlib.suppress(OSError):  # it has died, which _collect will find
                    rank.connection.send_bytes(task)
            return [unpack(result) for result in self._collect("returned", deadline=deadline)]
        except BaseException as error:  # an interrupt, too
            self._end(error)
            raise

    def close(self) -> None:
        """Ends all ranks."""
        for rank in self._ranks:
            with contextlib.suppress(OSError):  # it has died
                rank.connection.send_bytes(b"")
        deadline = time.monotonic() + _GRACE_S
        for rank in self._ranks:
            rank.process.join(max(deadline - time.monotonic(), 0))
        self._end()

    def _end(self, why: BaseException | None = None) -> None:
        if why is not None:
            self._ended = (str(why) or type(why).__name__).split("\n")[0]
        for rank in self._ranks:
            rank.process.kill()
        for rank in self._ranks:
            rank.process.join()
            rank.process.close()
            rank.connection.close()
        self._ranks = []
        self._scratch.cleanup()

    def _collect(self, kind: str, *, deadline: float) -> list[Any]:
        """Returns the content of the message of this kind from every rank."""
        found: dict[int, Any] = {}
        failures: dict[int, Raised | str] = {}
        transcript, is_late = Transcript(), False
        try:
            while (unfinished := [rank for rank in self._ranks
                                  if rank.number not in found.keys() | failures.keys()]
                   ) and not is_late:
                ready = wait([rank.connection for rank in unfinished],
                             timeout=max(deadline - time.monotonic(), 0))
                is_late = time.monotonic() >= deadline  # what has come is read all the same
                for rank in unfinished:
                    if rank.connection not in ready:
                        continue
                    message, content = rank.next_message()
                    if message == "said":
                        transcript.add(rank.number, content)
                    elif message == kind:
                        found[rank.number] = content
                    else:
                        failures[rank.number] = content
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
        finally:
            transcript.finish()
        if failures:
            raise _failed(failures)
        if unfinished:
            raise RankFailed(self._late(unfinished))
        return [found[number] for number in range(self.n_ranks)]

    def _late(self, unfinished: list["_Rank"]) -> str:
        """Returns a message that tells which rank hangs and which only wait for it."""
        stacks = {rank.number: rank.stack(self._scratch.name) for rank in unfinished}
        waiting = [number for number, stack in stacks.items() if stack.is_waiting]
        busy = sorted(stacks.keys() - set(waiting))
        returned = sorted(set(range(self.n_ranks)) - stacks.keys())
        told = (f"every rank must finish within timeout_s={self.timeout_s:g} seconds; "
                f"{_ranks(busy or waiting)} did not")
        if busy and waiting:
            told += f", and {_ranks(waiting)} can only wait in a collective"
        elif waiting and returned:
            told += f": {_ranks(returned)} returned, without the collective that the rest wait in"
        elif waiting:
            told += ": they wait for each other in different collectives"
        told += (". is_debug=True names the two calls" if not busy else
                 ". If it only needs longer, raise timeout_s")
        return "\n\n".join([told, *(f"rank {number} is in\n{with_cells(str(stack))}"
                                    for number, stack in sorted(stacks.items()))])


class _Rank:
    """One process, seen from the process that started it."""

    def __init__(self, how: BaseContext, start: Start) -> None:
        self.number = start.rank
        self.connection, theirs = how.Pipe()
        with main_hidden():
            self.process: BaseProcess = how.Process(target=serve, args=(theirs, start),
                                                    daemon=True)
            self.process.start()
        theirs.close()

    def next_message(self) -> tuple[str, Any]:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_GRACE_S)
            return "died", self._last_words()

    def _last_words(self) -> str:
        status = self.process.exitcode
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            return f"its process was ended by {name}{_CAUSES.get(name, '')}"
        return f"its process ended with status {status}"

    def stack(self, folder: str) -> Stack:
        return stack_of(folder, self.number, pid=self.process.pid)


def _refuse(n_ranks: int, timeout_s: float) -> None:
    """Raises ValueError for what cannot be launched."""
    if not isinstance(n_ranks, int) or isinstance(n_ranks, bool) or n_ranks < 1:
        raise ValueError(f"the number of ranks must be a whole number of at least 1; got "
                         f"{n_ranks!r}")
    if n_ranks > MAX_RANKS:
        raise ValueError(f"one machine runs at most {MAX_RANKS} ranks, because each is a process "
                         f"that is connected to all others; got {n_ranks}. Launch fewer, or run "
                         "on several machines under torchrun")
    free = free_bytes(torch.device("cpu"))
    if free is not None and n_ranks * BYTES_PER_RANK > free:
        raise ValueError(f"a rank needs at least {BYTES_PER_RANK >> 20} MB of memory; got "
                         f"{n_ranks} ranks and {free >> 20} MB that are free. Launch fewer ranks")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not (
            0 < timeout_s <= _MAX_TIMEOUT_S) or math.isnan(timeout_s):
        raise ValueError(f"timeout_s must be above 0 and at most {_MAX_TIMEOUT_S:.0f} seconds; got "
                         f"{timeout_s!r}")
    if multiprocessing.current_process().daemon:
        raise ValueError("a rank cannot launch ranks; got a launch inside a function that runs on "
                         "a rank, or in a worker process. Launch from the program itself")


def _failed(failures: dict[int, Raised | str]) -> RankFailed:
    """Returns the error that explains the others: a death, or else the first error of its own."""
    def order(item: tuple[int, Raised | str]) -> tuple:
        number, failure = item
        return (isinstance(failure, Raised) and _is_consequence(failure),
                isinstance(failure, Raised), number)

    number, failure = min(failures.items(), key=order)
    if isinstance(failure, str):
        return RankFailed(f"rank {number} died: {failure}")
    error, shown = (packed and unpack(packed) for packed in failure.packed)
    # The sources of a notebook's cells are here, not on the rank.
    text = failure.traceback if shown is None else "".join(shown.format())
    failed = RankFailed(f"rank {number} raised {failure.kind}: {failure.message}\n\n"
                        f"{with_cells(text.rstrip())}")
    failed.__cause__ = error
    return failed


def _is_consequence(failure: Raised) -> bool:
    """Returns whether a rank failed only because a peer was gone."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return any(sign in failure.message for sign in signs)


def _ranks(numbers: list[int]) -> str:
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(map(str, numbers))


__all__ = ["RankFailed", "Ranks", "World", "launch"]

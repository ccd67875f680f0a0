"""Trains runs for another process: `python -m llama_from_scratch.experiments.worker`.

Tasks come through standard input: for each, eight bytes with its length, and then a pickle. The
progress goes to standard output, one JSON object per line. The store is written here. When the
input closes, or when the process that started this one is gone, the run in progress stops after its
step and is saved. What a part prints goes to standard error.

Notebook 09.
"""

import dataclasses
import io
import json
import os
import pickle
import queue
import sys
import threading
import time
from typing import Any

import torch

from llama_from_scratch.experiments.running import execute
from llama_from_scratch.experiments.store import Store
from llama_from_scratch.train.progress import TrainingMoment

LENGTH_BYTES = 8
_SEND_EVERY_S = 0.1


def main() -> int:
    """Trains every task that comes, until the input closes."""
    torch.set_num_threads(1)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a part prints must not come between the lines
    starter = Starter(os.fdopen(os.dup(0), "rb", buffering=0), output)
    while (task := starter.next_task()) is not None and not starter.is_gone():
        _train(task, starter)
    return 0


class Starter:
    """The process that started this one: its tasks, and its messages.

    `input` is read by a thread, without a buffer, because a buffered stream that another thread
    reads cannot be closed at the end of Python.
    """

    def __init__(self, input: io.RawIOBase, output: Any) -> None:
        self._output, self._parent = output, os.getppid()
        self._tasks: queue.Queue[bytes | None] = queue.Queue()
        self._is_closed = threading.Event()
        threading.Thread(target=self._read, args=(input,), daemon=True).start()

    def next_task(self) -> bytes | None:
        """Returns the next task when it comes, or None when no more can come."""
        return self._tasks.get()

    def is_gone(self) -> bool:
        """Returns whether the run must stop: the input is closed, or its process has ended."""
        return self._is_closed.is_set() or os.getppid() != self._parent

    def tell(self, **message: Any) -> None:
        try:
            self._output.write(json.dumps(message) + "\n")
            self._output.flush()
        except BrokenPipeError:
            self._is_closed.set()

    def _read(self, input: io.RawIOBase) -> None:
        while (head := _exactly(input, LENGTH_BYTES)) is not None:
            task = _exactly(input, int.from_bytes(head, "little"))
            if task is None:
                break
            self._tasks.put(task)
        self._is_closed.set()
        self._tasks.put(None)


def _exactly(input: io.RawIOBase, n_bytes: int) -> bytes | None:
    """Returns this many bytes, or None if the input ends before."""
    found = b""
    while len(found) < n_bytes:
        piece = input.read(n_bytes - len(found))
        if not piece:
            return None
        found += piece
    return found


def _train(task: bytes, starter: Starter) -> None:
    """Trains one run, and tells that it is done, or why it failed."""
    try:
        sys.path[:], inner = pickle.loads(task)
        experiment, base, folder = pickle.loads(inner)
        execute(experiment, base=base, kept_in=Store(folder), show=_show(starter))
    except Exception as error:  # the parts of a run are the reader's code
        starter.tell(kind="failed", error=f"{type(error).__name__}: {error}",
                     errno=getattr(error, "errno", None))
    else:
        starter.tell(kind="done")


def _show(starter: Starter):
    last_s = float("-inf")

    def show(moment: TrainingMoment) -> None:
        nonlocal last_s
        if starter.is_gone():
            raise KeyboardInterrupt  # `train` ends the run after this step, and saves it
        now = time.monotonic()
        if moment.is_kept or now - last_s > _SEND_EVERY_S:
            last_s = now
            starter.tell(kind="step", moment=dataclasses.asdict(moment))

    return show


if __name__ == "__main__":
    sys.exit(main())

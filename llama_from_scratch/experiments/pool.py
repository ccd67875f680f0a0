"""Worker processes that train runs, from the side of the process that starts them.

Each worker has at most one task at a time and one thread for its arithmetic, so that there are as
many busy threads as workers. A worker that ends in the middle of a task takes only that task with
it. The workers ignore Ctrl-C, which a terminal sends to them too; they stop when their input is
closed, and also when this process is killed.

Notebook 09.
"""

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_from_scratch
from llama_from_scratch.experiments.worker import LENGTH_BYTES
from llama_from_scratch.train.progress import TrainingMoment
from llama_from_scratch.train.records import Evaluation, Step

_TICK_S = 0.1
_PATIENCE_S = 20.0
"""How long an idle worker may take to end before it is killed."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Pool:
    """Processes for these tasks, each a pickle for `worker`. All have ended after the block."""

    def __init__(self, tasks: Sequence[bytes], *, n_workers: int) -> None:
        self._waiting = collections.deque(enumerate(tasks))
        self._n_workers, self._workers = n_workers, list[_Worker]()
        self._inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self.is_stopping = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.end(patience_s=_PATIENCE_S if kind is None else 0.0)

    def stop(self) -> None:
        """Begins no more tasks, and lets every worker save after the step in progress."""
        self.is_stopping = True
        self._waiting.clear()
        for worker in self._workers:
            worker.close()

    def messages(self, is_interrupted: Callable[[], bool]) -> Iterator[tuple[int, Mapping]]:
        """Yields (number of the task, message) until no task is left or in progress.

        A message has a `kind`: "step" with a `moment`; "done"; "failed" with the `error` and its
        `errno`; and "died" with an `error` if the process of the task has ended. After an interrupt
        it stops, and yields (-1, "stopping") once.
        """
        for _ in range(min(self._n_workers, len(self._waiting))):
            self._start()
        while any(worker.task is not None for worker in self._workers):
            if is_interrupted() and not self.is_stopping:
                self.stop()
                yield -1, {"kind": "stopping"}
            try:
                worker, message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            is_dead = message is None
            if is_dead:
                self._workers.remove(worker)
                worker.end(patience_s=_PATIENCE_S)
                message = {"kind": "died", "error": worker.last_words()}
            if worker.task is not None:
                yield worker.task, message  # the next task comes later, because this may stop all
            if is_dead and self._waiting:
                self._start()
            elif not is_dead and message["kind"] != "step":
                self._give(worker)

    def _start(self) -> None:
        worker = _Worker(self._inbox)
        self._workers.append(worker)
        self._give(worker)

    def _give(self, worker: "_Worker") -> None:
        worker.task = None
        if self._waiting:
            worker.task, task = self._waiting.popleft()
            worker.give(task)
        else:
            worker.close()


def moment_of(plain: Mapping[str, Any]) -> TrainingMoment:
    """Returns the moment that a worker has sent as JSON."""
    step = dict(plain["step"])
    if step["validation"] is not None:
        step["validation"] = Evaluation(**step["validation"])
    return TrainingMoment(**dict(plain) | {"step": Step(**step)})


class _Worker:
    """A process, and two threads that read what it writes."""

    def __init__(self, inbox: queue.Queue) -> None:
        self.task: int | None = None
        with _interrupts_held_back() as options:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llama_from_scratch.experiments.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=_environment(), **options)
        self._printed: collections.deque[str] = collections.deque(maxlen=20)
        self._threads = [threading.Thread(target=work, daemon=True, args=(inbox,))
                         for work in (self._listen, self._collect)]
        for thread in self._threads:
            thread.start()

    def give(self, task: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, which its output tells too
            self._process.stdin.write(len(task).to_bytes(LENGTH_BYTES, "little") + task)
            self._process.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self, *, patience_s: float) -> None:
        """Waits until the process has ended; kills it if that takes longer than `patience_s`."""
        self.close()
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(timeout=_PATIENCE_S)

    def last_words(self) -> str:
        """Returns why the process has ended, as far as that can be known."""
        status = self._process.returncode
        if status < 0:
            name = signal.Signals(-status).name
            why = ("; its memory may have run out" if -status == getattr(signal, "SIGKILL", None)
                   else "")
            return f"its process was ended by {name}{why}"
        printed = next((line for line in reversed(self._printed) if line.strip()), "no message")
        return f"its process ended with status {status}: {printed.strip()[:300]}"

    def _listen(self, inbox: queue.Queue) -> None:
        with self._process.stdout as output:
            for line in output:
                if line.endswith(b"\n"):  # a killed process may leave half a line
                    inbox.put((self, json.loads(line)))
        inbox.put((self, None))

    def _collect(self, inbox: queue.Queue) -> None:
        with self._process.stderr as output:
            for line in output:
                self._printed.append(line.decode(errors="replace"))


def _environment() -> dict[str, str]:
    root = str(Path(llama_from_scratch.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return os.environ | {name: "1" for name in _THREADS} | {"PYTHONPATH": path}


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[dict[str, Any]]:
    """Yields options for a process that gets no Ctrl-C; one that comes meanwhile is not lost."""
    if sys.platform == "win32":
        yield {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        return
    # The new process inherits what this thread blocks.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield {}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

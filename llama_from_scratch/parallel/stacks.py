"""Where a rank is: the lines of Python that it is executing, asked for from outside.

A rank that hangs cannot answer. So it gives a file to Python's faulthandler, which writes the stack
into it when a signal comes, even while the rank is inside C code.

Notebook 40.
"""

import contextlib
import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from llama_from_scratch.config import record

_MAX_LINES = 6
_PATIENCE_S = 1.0
_PARALLEL = str(Path(__file__).parent) + os.sep
_WAITS = (f'"{_PARALLEL}comm.py"', f'"{_PARALLEL}agreement.py"')
_CELL = re.compile(r"[^\s\"(]*ipykernel_\d+[/\\]\d+\.py")
_NOT_SHOWN = (*_WAITS, f"{os.sep}torch{os.sep}")


@record
class Stack:
    """`lines`: from the innermost outward. `is_waiting`: whether it waits for other ranks."""

    lines: tuple[str, ...]
    is_waiting: bool = False

    def __str__(self) -> str:
        return "\n".join(self.lines)


@contextlib.contextmanager
def stack_on_request(folder: str, rank: int) -> Iterator[None]:
    """In a rank: lets `stack_of` see it while the block runs."""
    if not hasattr(signal, "SIGUSR1"):  # Windows
        yield
        return
    with open(_file(folder, rank), "w") as file:
        faulthandler.register(signal.SIGUSR1, file=file)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGUSR1)


@contextlib.contextmanager
def stack_on_signal() -> Iterator[None]:
    """Lets SIGUSR1 write the stacks of this process to its standard error while the block runs."""
    file = sys.__stderr__
    if not hasattr(signal, "SIGUSR1") or file is None:  # Windows; a program without a terminal
        yield
        return
    faulthandler.register(signal.SIGUSR1, file=file)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR1)


def stack_of(folder: str, rank: int, *, pid: int) -> Stack:
    """Returns where the rank is. `pid`: its process, which must be alive."""
    file = _file(folder, rank)
    if not hasattr(signal, "SIGUSR1") or not file.exists():
        return Stack(lines=("  (unknown: it has not started, or this system has no signals)",))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if found := read_dump(file.read_text("utf-8", errors="replace")):
            return found
    return Stack(lines=("  (it does not answer)",))


def read_dump(dump: str) -> Stack | None:
    """Returns the stack of the thread that runs the function, without PyTorch and `comm`.

    None if the dump does not show that thread, whole.
    """
    for thread in dump.split("\n\n"):
        lines = [line for line in thread.splitlines() if line.startswith("  File ")]
        ends = [number for number, line in enumerate(lines)
                if f'{_PARALLEL}worker.py"' in line and line.endswith((" in _run", " in serve"))]
        if ends:
            lines = lines[: ends[0]]
            shown = [line for line in lines if not any(part in line for part in _NOT_SHOWN)]
            is_waiting = any(part in line for line in lines for part in _WAITS)
            return Stack(lines=tuple(shown or lines)[:_MAX_LINES], is_waiting=is_waiting)
    return None


def with_cells(text: str) -> str:
    """Returns text in which a notebook's cell is called <cell>, not by its file, which changes."""
    return _CELL.sub("<cell>", text)


def _file(folder: str, rank: int) -> Path:
    return Path(folder, f"stack-{rank}")

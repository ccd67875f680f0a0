"""What tests of sweeps share: a file of a reader with runs that wait at a gate, and patience."""

import contextlib
import os
import time

PATIENCE_S = 120

_MINE = '''
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, {tests!r})
from tiny_experiments import tiny

FOLDER = pathlib.Path({folder!r})
MINE = tiny(FOLDER, **{{"sample.n_tokens": 0}})


def schedule(step, *, n_steps, peak, n_warmup, final_ratio):
    if step == 3 and n_steps == 6:
        (FOLDER / f"at-the-gate-{{os.getpid()}}").touch()
        while not (FOLDER / "open").exists() and threading.active_count() > 1:
            time.sleep(0.01)
    return peak
'''


def write_mine(folder):
    """Writes the file of a reader, whose schedule waits at step 3.

    It goes on when `folder` has "open", or when the thread has ended that reads a worker's input,
    because then the worker has noticed that its input is closed.
    """
    file = folder / "mine.py"
    file.write_text(_MINE.format(folder=str(folder), tests=os.path.dirname(__file__)))
    return file


def wait_until(condition):
    """Waits until `condition()` is true, and returns its value."""
    end_s = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.02)
    return value


def at_the_gate(folder):
    """Returns the processes whose runs have come to the gate."""
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("at-the-gate-*")]


def is_there(process):
    """Returns whether a process runs, or has ended and is still listed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def locks(folder):
    """Returns the lock files in a folder and next to it."""
    return [*folder.rglob("*.lock"), *folder.parent.glob(f".{folder.name}.lock")]

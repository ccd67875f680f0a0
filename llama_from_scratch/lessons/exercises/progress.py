"""Which exercises this reader has passed: one small JSON file in the repository's `runs/` folder.

Two notebooks may finish an exercise at the same moment, so a change is read, made and written under a lock, and the file
is replaced in one step. A file that cannot be read is kept beside the new one. Used by `exercises`, in every notebook.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRESS = Path(__file__).resolve().parents[2] / "runs" / "progress.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The numbers of the exercises that are done, such as "12.1"."""

    passed: frozenset[str] = frozenset()
    note: str = ""
    """What the reader should know, if the file was damaged."""


def load(file: Path) -> Progress:
    """What a file says; nothing passed if there is none. A damaged one is renamed, and the note says to what."""
    try:
        return Progress(passed=_parse(file.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except ValueError:
        with _locked(file):
            return _load_or_set_aside(file)


def record(name: str, file: Path) -> Progress:
    """Adds one exercise to a file and returns what the file says now. Raises OSError where the disk refuses."""
    with _locked(file):
        before = _load_or_set_aside(file)
        after = Progress(passed=before.passed | {name}, note=before.note)
        unfinished = file.with_name(file.name + ".unfinished")
        content = {"format": FORMAT, "passed": sorted(after.passed)}
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, file)
    return after


def _parse(data: bytes) -> frozenset[str]:
    content = json.loads(data)
    passed = content.get("passed") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(passed, list) or not all(isinstance(name, str) for name in passed):
        raise ValueError(f"a progress file is a JSON object with format {FORMAT} and a list of numbers; got {data[:80]!r}")
    return frozenset(passed)


def _load_or_set_aside(file: Path) -> Progress:
    """To be called under the lock: another process may have mended the file since it was read."""
    try:
        return Progress(passed=_parse(file.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except ValueError:
        numbers = range(1, sys.maxsize)
        aside = next(path for i in numbers if not (path := file.with_name(f"{file.stem}.damaged-{i}{file.suffix}")).exists())
        os.rename(file, aside)
        return Progress(note=f"The record of your progress could not be read. It is kept as {aside.name}; a new one begins.")


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time; the system ends the lock with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(file.name + ".lock"), "a+b") as lock:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

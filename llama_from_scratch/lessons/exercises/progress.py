"""Which exercises this reader has passed: one small JSON file in the repository's `runs/` folder.

Two notebooks may finish an exercise at the same moment, so a change is read, made and written under
a lock, and the file is replaced in one step. A file that cannot be read is kept beside the new one.
Used by `exercises`, in every notebook.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.files import locked, replacing_file

PROGRESS = Path(__file__).resolve().parents[3] / "runs" / "progress.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The numbers of the exercises that are done, such as "12.1"."""

    passed: frozenset[str] = frozenset()
    note: str = ""
    """What the reader should know, if the file was damaged."""


def load(file: Path) -> Progress:
    """Returns the progress in a file, with nothing passed if there is no file.

    A damaged file is renamed, and the note gives its new name.
    """
    try:
        return Progress(passed=_parse(file.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except ValueError:
        with locked(file):
            return _load_or_set_aside(file)


def add(name: str, file: Path) -> Progress:
    """Adds one exercise to a file and returns the progress that the file now holds.

    Raises OSError if the disk refuses.
    """
    with locked(file):
        before = _load_or_set_aside(file)
        after = Progress(passed=before.passed | {name}, note=before.note)
        content = {"format": FORMAT, "passed": sorted(after.passed)}
        with replacing_file(file) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return after


def _parse(data: bytes) -> frozenset[str]:
    content = json.loads(data)
    passed = (content.get("passed") if isinstance(content, dict)
              and content.get("format") == FORMAT else None)
    if not isinstance(passed, list) or not all(isinstance(name, str) for name in passed):
        raise ValueError(f"a progress file is a JSON object with format {FORMAT} and a list of "
                         f"numbers; got {data[:80]!r}")
    return frozenset(passed)


def _load_or_set_aside(file: Path) -> Progress:
    """To be called under the lock: another process may have repaired the file since it was read."""
    try:
        return Progress(passed=_parse(file.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except ValueError:
        numbers = range(1, sys.maxsize)
        names = (file.with_name(f"{file.stem}.damaged-{i}{file.suffix}") for i in numbers)
        aside = next(path for path in names if not path.exists())
        os.rename(file, aside)
        return Progress(note="The record of your progress could not be read. It is kept as "
                             f"{aside.name}; a new one begins.")

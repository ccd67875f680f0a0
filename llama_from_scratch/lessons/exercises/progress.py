"""The reader's progress, in one small JSON file in the repository's `runs/` folder.

The file holds the exercises that are done, how often each was tried, which help was taken, the
guesses, and the milestones that were reached. Two notebooks may finish an exercise at the same
moment. So each change reads and writes the file under a lock, and the file is replaced in one step.
A file that cannot be read is kept under another name. Used by `exercises` and `learner`, in every
notebook.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_from_scratch.files import locked, replacing_file

PROGRESS = Path(__file__).resolve().parents[3] / "runs" / "progress.json"
FORMAT = 2
_OLD_FORMAT = 1
"""It held only the exercises that were done."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The record of one reader. Exercises are named by their numbers, such as "12.1"."""

    passed: frozenset[str] = frozenset()
    milestones: frozenset[str] = frozenset()
    """The numbers of the chapters whose milestones were reached."""
    tries: Mapping[str, int] = field(default_factory=dict)
    """Exercise -> how often it was checked with a wrong answer."""
    helped: Mapping[str, int] = field(default_factory=dict)
    """Exercise -> how many steps of help were taken: hints, then the solution."""
    guesses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Question -> {"guess": ..., "answer": ..., "surprise": ...}, the last two once known."""
    note: str = field(default="", compare=False)
    """A message for the reader if the file was damaged, else empty."""


def load(file: Path) -> Progress:
    """Returns the progress that a file holds, or an empty one if there is no file.

    A damaged file is renamed, and `note` gives its new name.
    """
    try:
        return _parse(file.read_bytes())
    except FileNotFoundError:
        return Progress()
    except ValueError:
        with locked(file):
            return _load_or_set_aside(file)


def add(name: str, file: Path) -> Progress:
    """Adds one exercise that is done, and returns the progress that the file now holds.

    Raises OSError if the file cannot be written.
    """
    return change(lambda now: dataclasses.replace(now, passed=now.passed | {name}), file)


def change(changed: Callable[[Progress], Progress], file: Path) -> Progress:
    """Replaces the progress in a file by `changed(progress)`, and returns the new progress.

    Raises OSError if the file cannot be written.
    """
    with locked(file):
        after = changed(_load_or_set_aside(file))
        content = {
            "format": FORMAT, "passed": sorted(after.passed),
            "milestones": sorted(after.milestones), "tries": dict(after.tries),
            "helped": dict(after.helped),
            "guesses": {question: dict(guess) for question, guess in after.guesses.items()},
        }
        with replacing_file(file) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return after


def _parse(data: bytes) -> Progress:
    content = json.loads(data)
    if not isinstance(content, dict) or content.get("format") not in (_OLD_FORMAT, FORMAT):
        _refuse(data)
    names = ("passed", "milestones") if content["format"] == FORMAT else ("passed",)
    tables = {"tries": int, "helped": int, "guesses": dict} if content["format"] == FORMAT else {}
    for name in names:
        listed = content.get(name)
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            _refuse(data)
    for name, kind in tables.items():
        table = content.get(name)
        if not isinstance(table, dict) or not all(isinstance(x, kind) for x in table.values()):
            _refuse(data)
    return Progress(**{name: frozenset(content[name]) for name in names},
                    **{name: content[name] for name in tables})


def _refuse(data: bytes) -> None:
    raise ValueError(f"a record of progress must be a JSON object of format {FORMAT} with lists "
                     f"and tables; got {data[:80]!r}")


def _load_or_set_aside(file: Path) -> Progress:
    """Returns the progress in a file, which is renamed if it is damaged.

    The caller holds the lock. It reads the file again, because another process may have repaired
    it in the meantime.
    """
    try:
        return _parse(file.read_bytes())
    except FileNotFoundError:
        return Progress()
    except ValueError:
        numbers = range(1, sys.maxsize)
        names = (file.with_name(f"{file.stem}.damaged-{i}{file.suffix}") for i in numbers)
        aside = next(path for path in names if not path.exists())
        os.rename(file, aside)
        return Progress(note="The record of your progress could not be read. The old file is kept "
                             f"as {aside.name}, and a new record is started.")

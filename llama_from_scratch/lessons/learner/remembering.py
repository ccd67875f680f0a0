"""Whether this kernel records what the reader does, and in which file.

The readers' copies of the notebooks call `remember` in their first cell. The originals do not, so
that authors and tests can run them without changing a reader's record.
"""

from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.progress import Progress

_kept: list[Path] = []
"""The path of the file that records this kernel's reader; empty if nothing is recorded."""


def remember(file: Path | None = None) -> None:
    """Records guesses, tries, hints and solved exercises in this kernel from now on.

    `file`: where to record them, by default `runs/progress.json` in the repository.
    """
    _kept[:] = [progress.PROGRESS if file is None else file]


def forget() -> None:
    """Records nothing from now on."""
    _kept.clear()


def kept_file() -> Path | None:
    """Returns the file that records the reader, or None if nothing is recorded."""
    return _kept[0] if _kept else None


def now() -> Progress:
    """Returns the record so far; it is empty if nothing is recorded."""
    return progress.load(_kept[0]) if _kept else Progress()


def note(changed: Callable[[Progress], Progress]) -> Progress | None:
    """Records a change and returns the record, or None if nothing is recorded.

    If the file cannot be written, the lesson goes on, and one line reports the error.
    """
    if not _kept:
        return None
    try:
        return progress.change(changed, _kept[0])
    except OSError as error:
        print(f"what you did could not be recorded: {error}")
        return None

"""Whether this kernel keeps what the reader does, and where.

The readers' copies of the notebooks call `remember` in their first cell. The originals do not, so
that a run of them by an author or a test changes no reader's record.
"""

from collections.abc import Callable
from pathlib import Path

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.progress import Progress

_kept: list[Path] = []
"""The file of this kernel's reader, or nothing."""


def remember(file: Path | None = None) -> None:
    """From here on, keeps the guesses, tries, hints and solved exercises of this kernel's reader.

    `file`: where, by default `runs/progress.json` in the repository.
    """
    _kept[:] = [progress.PROGRESS if file is None else file]


def forget() -> None:
    """From here on, keeps nothing."""
    _kept.clear()


def kept_file() -> Path | None:
    """The file that holds what the reader does, or None if nothing is kept."""
    return _kept[0] if _kept else None


def now() -> Progress:
    """What is kept so far; an empty record if nothing is kept."""
    return progress.load(_kept[0]) if _kept else Progress()


def note(changed: Callable[[Progress], Progress]) -> Progress | None:
    """Keeps a change, and returns the record; None if nothing is kept.

    A disk that refuses spoils no lesson: one line says so.
    """
    if not _kept:
        return None
    try:
        return progress.change(changed, _kept[0])
    except OSError as error:
        print(f"what you did could not be recorded: {error}")
        return None

"""Hints, solutions and progress: the functions that a reader calls about exercises."""

from collections.abc import Sequence
from pathlib import Path

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.reading import (
    NOTEBOOKS,
    Exercise,
    chapters,
    find,
    read_exercises,
)

HINT_NAMES = ("Hint", "Stronger hint", "Third hint")
"""The names of the hints of an exercise, in order."""


class Text(str):
    """Markdown that a notebook renders."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def hint(name: str | float, *, number: int = 1, folder: Path = NOTEBOOKS) -> Text:
    """Returns a hint for an exercise; a cell that ends with this call shows it.

    `number` counts from 1, and later hints are stronger. Raises ValueError if there are fewer.
    """
    exercise = find(name, folder=folder)
    hints = exercise.hints or ("there is none. Read the task again, and then the section before "
                               "it.",)
    if not 1 <= number <= len(hints):
        raise ValueError(f"{exercise.id} has {len(hints)} hint{'s' * (len(hints) != 1)}, counted "
                         f'from 1; got number={number}. exercises.solution("{exercise.id}") shows '
                         "a solution")
    words = HINT_NAMES[min(number, len(HINT_NAMES)) - 1]
    more = (f'  \n*There is a stronger one: `exercises.hint("{exercise.id}", number={number + 1})`*'
            if number < len(hints) else "")
    return Text(f"**{words} for {exercise.id}:** {hints[number - 1]}{more}")


def solution(name: str | float, *, folder: Path = NOTEBOOKS) -> Text:
    """Returns one solution of an exercise, from the original notebook.

    A cell that ends with this call shows the solution.
    """
    exercise = find(name, folder=folder)
    if exercise.cell is None:
        return Text(f"**{exercise.id}** has no code to write. Do what it says, and compare the "
                    "result with your prediction.")
    return Text(f"**One solution of {exercise.id}**\n\n```python\n{exercise.solution}\n```")


def passed(name: str | float, *, file: Path | None = None, folder: Path = NOTEBOOKS) -> None:
    """Records that an exercise without code is done, and prints one line.

    `file`: where to record this, by default `runs/progress.json` in the repository. In a terminal,
    `llama progress --done 12.4` does the same.
    """
    exercise = find(name, folder=folder)
    try:
        now = progress.add(exercise.id, progress.PROGRESS if file is None else file)
    except OSError as error:
        print(f"✓ exercise {exercise.id} is done, but this could not be recorded: {error}")
        return
    tell(exercise, now, folder=folder)


def tell(exercise: Exercise, now: progress.Progress, *, folder: Path = NOTEBOOKS) -> None:
    """Prints that an exercise is done, and how many of its chapter are."""
    mates = [mate.id for mate in read_exercises(folder / f"{exercise.chapter}.ipynb")]
    if now.note:
        print(now.note)
    print(f"✓ exercise {exercise.id} is done: {len(now.passed.intersection(mates))} of "
          f"{len(mates)} in this chapter")


def progress_table(*, file: Path | None = None, folder: Path = NOTEBOOKS) -> str:
    """Returns a text table: each chapter's milestone, how much of it is done, and the minutes left.
    """
    now = progress.load(progress.PROGRESS if file is None else file)
    rows = [(stem.replace("_", " "), found) for stem, found in chapters(folder).items()]
    width = max((len(title) for title, _ in rows), default=0)
    lines = [f"{title:<{width}}  {'⚑' if title.partition(' ')[0] in now.milestones else ' '} "
             f"{_bar(found, now.passed)}  {left(found, now.passed)}" for title, found in rows]
    everything = [exercise for _, found in rows for exercise in found]
    n_done = sum(exercise.id in now.passed for exercise in everything)
    total = (f"{n_done} of {len(everything)} exercises done; {left(everything, now.passed)}\n"
             f"⚑ {len(now.milestones)} of {len(rows)} milestones reached")
    return "\n".join([*([now.note, ""] if now.note else []), *lines, "", total])


def _bar(found: Sequence[Exercise], done: frozenset[str]) -> str:
    return "".join("■" if exercise.id in done else "□" for exercise in found).ljust(8)


def left(found: Sequence[Exercise], done: frozenset[str]) -> str:
    """Returns words for the minutes of the exercises that are not done."""
    minutes = sum(exercise.minutes or 0 for exercise in found if exercise.id not in done)
    if all(exercise.id in done for exercise in found):
        return "done"
    if minutes < 60:
        return f"{minutes} minutes left"
    rest = f" {minutes % 60} min" if minutes % 60 else ""
    return f"{minutes // 60} h{rest} left"

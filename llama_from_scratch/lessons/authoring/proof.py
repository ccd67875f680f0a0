"""Tests that the exercises work, and that a reader's copy differs only as it should.

Each solution must pass, each blank must print that it is not tried yet, and each known mistake must
be refused and named. The same run also runs every cell twice and compares what it shows with what
is stored, because to run a chapter is what takes the time.
"""

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.lessons import mistakes
from llama_from_scratch.lessons.authoring.copies import REMEMBER, student
from llama_from_scratch.lessons.authoring.executing import CELL_TIMEOUT_S, client
from llama_from_scratch.lessons.authoring.form import read_notebook, tags_of
from llama_from_scratch.lessons.authoring.stored import difference
from llama_from_scratch.lessons.authoring.twice import Pair, again
from llama_from_scratch.lessons.check.known import Mistake
from llama_from_scratch.lessons.exercises.reading import (
    HINT,
    Exercise,
    cells_of,
    read_exercises,
)

_ATTACK = """\
from {module} import {function} as {of}
{of}.__name__ = "{of}"
"""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """A cell that runs before a solution and must not pass."""

    cell: dict
    exercise: Exercise
    mistake: Mistake | None
    """None for the blank."""


def prove(path: Path) -> list[str]:
    """Returns a sentence for each problem of the exercises in a notebook.

    Runs the notebook once, in one kernel. For each exercise it runs first the blank, which must
    print that it is not tried yet, then each known mistake, which the check must refuse and name,
    and then the solution, which must pass. A reader runs them in this order, too. Every cell must
    show what is stored for it, as under nbval. It is run twice in a row and must show the same both
    times. A long cell is not run the second time if its first run changed nothing that it reads
    (`inputs`).
    """
    return prove_copy(path) + _prove_trials(path)


def prove_copy(path: Path) -> list[str]:
    """Returns a sentence for each wrong difference between a notebook and its copy.

    Runs nothing. The copy must have blanks instead of solutions, no hints and no outputs, and it
    must call `remember`.
    """
    with tempfile.TemporaryDirectory() as folder:
        readers = cells_of(student(path, Path(folder)))
    problems = []
    originals = [(position, cell) for position, cell in enumerate(cells_of(path))
                 if "teacher-only" not in tags_of(cell)]
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
    if len(readers) != len(originals):
        return [f"the copy has {len(readers)} cells, but the notebook has {len(originals)} cells "
                "for readers"]
    has_remembered = False
    for (position, original), cell in zip(originals, readers, strict=True):
        before, after = "".join(original["source"]), "".join(cell["source"])
        if cell["cell_type"] == "code" and not has_remembered:
            has_remembered, is_right = True, after == before + REMEMBER
        elif position in by_cell:
            is_right = _without_blanks(before) == _without_raises(after)
        elif "**Exercise" in before:
            is_right = HINT.sub("", before) == after
        else:
            is_right = before == after
        if not is_right:
            problems.append(f"cell {position + 1} of the copy differs in more than its blanks")
        if cell.get("outputs"):
            problems.append(f"cell {position + 1} of the copy has an output")
    return problems


def _without_blanks(source: str) -> list[str | None]:
    """Returns the lines outside solutions, and None for each blank.

    It does not use the code that makes the copy, so that it can find mistakes in it.
    """
    lines: list[str | None] = []
    is_inside = False
    for line in source.splitlines():
        if line.strip().startswith("### BEGIN SOLUTION"):
            is_inside = True
            lines.append(None)
        elif line.strip() == "### END SOLUTION":
            is_inside = False
        elif not is_inside:
            lines.append(line)
    return lines


def _without_raises(source: str) -> list[str | None]:
    return [None if line.strip().startswith('raise NotImplementedError("') else line
            for line in source.splitlines()]


def _prove_trials(path: Path) -> list[str]:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = read_notebook(path)
    stored = copy.deepcopy(nb.cells)
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
    cells, trials, pairs, problems = [], [], [], []
    for position, cell in enumerate(nb.cells):
        if position in by_cell and cell.cell_type == "code":
            exercise = by_cell[position]
            if exercise.opening not in exercise.source:
                problems.append(f"exercise {exercise.id} must check inside `{exercise.opening}`")
            else:
                here = [_trial(exercise, source, mistake) for source, mistake in _sources(exercise)]
                trials += here
                cells += [trial.cell for trial in here]
        cells.append(cell)
        if cell.cell_type == "code":
            pairs.append(Pair(position=position + 1, first=cell, again=again(cell)))
            cells.append(pairs[-1].again)
    with tempfile.TemporaryDirectory() as folder:
        nb.cells = [_watching(folder), *cells]
        try:
            client(nb, path.parent, CELL_TIMEOUT_S).execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return [*problems, "the notebook does not run to its end if blanks and mistakes are "
                               f"run before the solutions: {error}"]
    return [*problems, *filter(None, map(_verdict, trials)),
            *(f"cell {pair.position} shows something else than is stored: {words}" for pair in pairs
              if (words := difference(pair.first, stored[pair.position - 1]))),
            *filter(None, (pair.difference() for pair in pairs))]


def _watching(folder: str) -> dict:
    """Returns a cell that has the kernel pass over second runs that could show nothing else."""
    import nbformat

    return nbformat.v4.new_code_cell(
        "from llama_from_scratch.lessons.authoring import inputs as _inputs\n"
        f"_watch = _inputs.watch({folder!r})")


def _sources(exercise: Exercise) -> list[tuple[str, Mistake | None]]:
    """Returns the cell with its blank, and with each known mistake in place of the solution."""
    found: list[tuple[str, Mistake | None]] = [(exercise.stub, None)]
    for mistake in mistakes.of_chapter(exercise.chapter).get(exercise.id, ()):
        attack = _ATTACK.format(of=mistake.of, module=mistake.wrong.__module__,
                                function=mistake.wrong.__qualname__)
        found.append((exercise.source.replace(exercise.opening, attack + exercise.opening, 1),
                      mistake))
    return found


def _trial(exercise: Exercise, source: str, mistake: Mistake | None) -> _Trial:
    import nbformat

    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})
    return _Trial(cell=cell, exercise=exercise, mistake=mistake)


def _verdict(trial: _Trial) -> str | None:
    errors = [out for out in trial.cell.outputs if out.output_type == "error"]
    said = "".join(out.text for out in trial.cell.outputs if out.output_type == "stream")
    name = trial.exercise.id
    if trial.mistake is None:
        if not errors and f"{name} is not tried yet" in said:
            return None
        raised = errors[0].ename if errors else "nothing"
        return (f"the blank of exercise {name} must print that it is not tried yet, but it raised "
                f"{raised}. Call the reader's function inside `{trial.exercise.opening}`")
    if not errors:
        return f"exercise {name} accepts a known mistake: {trial.mistake.words}"
    if trial.mistake.words not in errors[0].evalue:
        return (f"exercise {name} refuses a mistake, but does not name it: {trial.mistake.words}. "
                f"Its message is {errors[0].ename}: {errors[0].evalue[:300]}")
    return None

"""The exercises of the course: read from the notebooks, handed out without solutions, proved, and ticked off.

One source holds an exercise: the markdown of its chapter says task, difficulty, minutes and hint, and the cell after it holds
stub and solution together. `student` makes the reader's copy of a chapter, in which a passed exercise is recorded.

    **Exercise 1 (★, 5 min).** Undo RoPE: given turned queries, return the originals. *Hint: which number turns back?*
    **Exercise 2 (★★, 10 min, change and rerun).** In section 5, set ... and rerun. What changes?
    **Exercise 3 (★★, 10 min, break it).** Turn the values, too. Which check catches it?
"""

import json
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.notebook import NOTEBOOKS, SOLUTION

KINDS = ("change and rerun", "break it")
FORM = ('an exercise opens with "**Exercise 1 (★★, 10 min).** task" and the like: a number counted from 1, one to three stars, '
        f"minutes, and, where it is one, {' or '.join(KINDS)}")
HEAD = re.compile(
    r"\*\*Exercise (?P<number>\d+) \((?P<stars>★{1,3})(?:, (?P<minutes>\d+) min)?(?:, (?P<kind>[^)\d]+))?\)\.\*\*[ \t]*"
    r"(?P<text>\S.*?)(?=\n+\*\*Exercise|\n+#|\s*\Z)", re.S)
# Code and formulas inside a hint may hold asterisks.
HINT = re.compile(r"\s*\*Hint: ((?:`[^`]*`|\$[^$]*\$|[^*`$])+)\*")
SENTENCE = re.compile(r"(?:`[^`]*`|\$[^$]*\$|[^`$])*?[.?!](?=\s|$)")
RECORD = """

# Reached only if everything above is right.
from llama_from_scratch.lessons import exercises

exercises.passed("{id}")"""


class Text(str):
    """Markdown that a notebook shows as such."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise of one chapter."""

    id: str
    """The chapter's number and its own: "12.1"."""
    chapter: str
    """The notebook's name: "12_rope"."""
    task: str
    """Markdown, without the hints."""
    stars: int
    minutes: int | None
    """None for some of those of a kind."""
    kind: str
    """One of KINDS, or "" for what is written or thought out."""
    hints: tuple[str, ...]
    cell: int | None = None
    """Which cell of the notebook holds it, counted from 0; None if there is no code to write."""
    source: str = ""
    """That cell, with the solution."""

    @property
    def title(self) -> str:
        """The first sentence of the task."""
        found = SENTENCE.match(self.task)
        return found[0] if found else self.task

    @property
    def stub(self) -> str:
        """What the reader gets: each solution replaced by a NotImplementedError with its task."""
        return SOLUTION.sub(_blank, self.source)

    @property
    def solution(self) -> str:
        """The lines that the reader is to write."""
        blocks = [textwrap.dedent("\n".join(found[0].splitlines()[1:-1])) for found in SOLUTION.finditer(self.source)]
        return "\n\n".join(blocks)


def _blank(found: re.Match) -> str:
    task = found["task"] or "your turn: write this part, then run the cell again"
    return f"{found['indent']}raise NotImplementedError({json.dumps(task, ensure_ascii=False)})"


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Exercise]:
    """The exercises of one notebook, in order. Raises ValueError for one that is not written in the fixed form."""
    found: list[Exercise] = []
    for position, cell in enumerate(_cells(path)):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heads = list(HEAD.finditer(source))
            if len(heads) != source.count("**Exercise"):
                bad = re.search(r"\*\*Exercise.*", HEAD.sub("", source))
                raise ValueError(f"{path.name}, cell {position + 1}: {FORM}; got {bad[0][:80] if bad else source[:80]!r}")
            for head in heads:
                found.append(_exercise(head, path, number=len(found) + 1))
        elif "exercise" in cell["metadata"].get("tags", []) or "### BEGIN SOLUTION" in source:
            _refuse_stray(path, position, cell, found[-1] if found else None)
            found[-1] = Exercise(**{**vars(found[-1]), "cell": position, "source": source})
    return found


def _cells(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path.name} is not a notebook; save it with JupyterLab") from None


def _exercise(head: re.Match, path: Path, *, number: int) -> Exercise:
    exercise_id = f"{path.stem.partition('_')[0]}.{head['number']}"
    if int(head["number"]) != number:
        raise ValueError(f"{path.name}: exercises are counted from 1 on; got {exercise_id} where {number} is due")
    kind = head["kind"] or ""
    if kind not in ("", *KINDS) or not (kind or head["minutes"]):
        raise ValueError(f"{path.name}: {FORM}; got {head[0][:80]!r}")
    return Exercise(
        id=exercise_id, chapter=path.stem, task=HINT.sub("", head["text"]).strip(), stars=len(head["stars"]),
        minutes=None if head["minutes"] is None else int(head["minutes"]), kind=kind, hints=tuple(HINT.findall(head["text"])))


def _refuse_stray(path: Path, position: int, cell: dict, owner: Exercise | None) -> None:
    place, source = f"{path.name}, cell {position + 1}", "".join(cell["source"])
    if "exercise" not in cell["metadata"].get("tags", []):
        raise ValueError(f"{place}: a cell with a solution has the tag `exercise`; add it")
    if not SOLUTION.search(source):
        raise ValueError(f"{place}: a cell tagged `exercise` has a block from `### BEGIN SOLUTION: task` to "
                         "`### END SOLUTION`; got none (a reader's copy has none any more: read the original)")
    if owner is None or owner.cell is not None:
        raise ValueError(f"{place}: {FORM}, each with one cell; got a cell without such an opening before it")


def chapters(folder: Path = NOTEBOOKS) -> dict[str, list[Exercise]]:
    """The exercises of every notebook that has some, by its name."""
    if not folder.is_dir():
        raise ValueError(f"the exercises are in the notebooks of the course's repository; there is no folder {folder}. "
                         "Work in a clone of the repository installed with `pip install -e .`")
    return {path.stem: found for path in sorted(folder.glob("*.ipynb")) if (found := read(path))}


def find(name: str | float, *, folder: Path = NOTEBOOKS) -> Exercise:
    """The exercise with a number such as "12.1". Raises ValueError, with those there are, if it is unknown."""
    number = name.partition(".")[0] if isinstance(name, str) else None
    paths = sorted(folder.glob(f"{number}_*.ipynb")) if number and number.isdigit() else []
    there = [exercise for path in paths for exercise in read(path)]
    for exercise in there:
        if exercise.id == name:
            return exercise
    ids = ", ".join(exercise.id for exercise in there) or ", ".join(stem.partition("_")[0] for stem in chapters(folder))
    what = f"chapter {number} has the exercises" if there else "there are exercises in the chapters"
    raise ValueError(f'an exercise is named by chapter and number, such as "12.1" with its quotes; got {name!r}, '
                     f"and {what} {ids}")


# --- what the reader asks for ----------------------------------------------------------------------------------------


def hint(name: str | float, *, folder: Path = NOTEBOOKS) -> Text:
    """The hint of an exercise, to be shown by a cell that ends with this call."""
    exercise = find(name, folder=folder)
    hints = exercise.hints or ("there is none in the text. Read the task again, then the section it comes from.",)
    return Text("\n\n".join(f"**Hint for {exercise.id}:** {words}" for words in hints))


def solution(name: str | float, *, folder: Path = NOTEBOOKS) -> Text:
    """One solution of an exercise, from the original notebook, to be shown by a cell that ends with this call."""
    exercise = find(name, folder=folder)
    if exercise.cell is None:
        return Text(f"**{exercise.id}** has no code to write: run it, and compare with what you predicted.")
    return Text(f"**One solution of {exercise.id}**\n\n```python\n{exercise.solution}\n```")


def passed(name: str | float, *, file: Path | None = None, folder: Path = NOTEBOOKS) -> None:
    """Records that an exercise is done, and prints one line. Readers' copies call it at the end of each exercise.

    `file`: where to record, by default `runs/progress.json` in the repository. Exercises without code are ticked off by
    hand: in a cell, or with `llama progress --done 12.4`.
    """
    exercise = find(name, folder=folder)
    mates = [mate.id for mate in read(folder / f"{exercise.chapter}.ipynb")]
    try:
        now = progress.record(exercise.id, progress.PROGRESS if file is None else file)
    except OSError as error:
        print(f"✓ exercise {exercise.id} is done, but this could not be recorded: {error}")
        return
    if now.note:
        print(now.note)
    print(f"✓ exercise {exercise.id} is done: {len(now.passed.intersection(mates))} of {len(mates)} in this chapter")


def progress_table(*, file: Path | None = None, folder: Path = NOTEBOOKS) -> str:
    """How much of each chapter is done, and the minutes left, as text."""
    now = progress.load(progress.PROGRESS if file is None else file)
    rows = [(stem.replace("_", " "), found) for stem, found in chapters(folder).items()]
    width = max((len(title) for title, _ in rows), default=0)
    lines = [f"{title:<{width}}  {_bar(found, now.passed)}  {left(found, now.passed)}" for title, found in rows]
    everything = [exercise for _, found in rows for exercise in found]
    n_done = sum(exercise.id in now.passed for exercise in everything)
    total = f"{n_done} of {len(everything)} exercises done; {left(everything, now.passed)}"
    return "\n".join([*([now.note, ""] if now.note else []), *lines, "", total])


def _bar(found: Sequence[Exercise], done: frozenset[str]) -> str:
    return "".join("■" if exercise.id in done else "□" for exercise in found).ljust(8)


def left(found: Sequence[Exercise], done: frozenset[str]) -> str:
    """The minutes of what is not done, in words."""
    minutes = sum(exercise.minutes or 0 for exercise in found if exercise.id not in done)
    if all(exercise.id in done for exercise in found):
        return "done"
    return f"{minutes} minutes left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"


# --- the reader's copy -----------------------------------------------------------------------------------------------


def student(path: Path, folder: Path) -> Path:
    """Writes the reader's copy: solutions become NotImplementedError, what follows from them has no output yet.

    A block opened by `### BEGIN SOLUTION: what to do` hands its words to the error. An exercise ends with the call that
    records it. Raises FileExistsError, and writes nothing, where the reader already has a copy and has worked in it.
    """
    import nbformat

    from llama_from_scratch.lessons import notebook

    nb = nbformat.reads(notebook.canonical(notebook.read(path)), as_version=4)
    by_cell = {exercise.cell: exercise for exercise in read(path)}
    is_open = False
    for position, cell in enumerate(nb.cells):
        if position in by_cell and cell.cell_type == "code":
            is_open = True
            cell.source = by_cell[position].stub + RECORD.format(id=by_cell[position].id)
        if is_open and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.cells = [cell for cell in nb.cells if "teacher-only" not in cell.metadata.get("tags", [])]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.resolve() == path.resolve():
        raise ValueError(f"a reader's copy needs a folder of its own; got {folder}, which holds the lesson itself")
    content = (nbformat.writes(nb) + "\n").encode()
    if target.exists() and target.read_bytes() != content:
        raise FileExistsError(f"{target} is there already and has work in it; it is kept. For a fresh copy rename it first")
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, target)  # a copy that was cut short would be taken for the reader's work
    return target


# --- the proof -------------------------------------------------------------------------------------------------------


def prove(path: Path) -> list[str]:
    """A sentence for each exercise whose solution fails or whose stub passes, and for each other change in the reader's copy.

    Runs the notebook once, in one kernel: before each exercise the stub, which must raise NotImplementedError, then the
    solution, which must not. That is also the order in which a reader runs them.
    """
    return prove_copy(path) + _prove_stubs(path)


def prove_copy(path: Path) -> list[str]:
    """A sentence for each difference between a notebook and its reader's copy that is no blank. Runs nothing."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = _cells(student(path, Path(folder)))
    problems = []
    originals = [(position, cell) for position, cell in enumerate(_cells(path))
                 if "teacher-only" not in cell["metadata"].get("tags", [])]
    by_cell = {exercise.cell: exercise for exercise in read(path)}
    if len(copy) != len(originals):
        return [f"the copy has {len(copy)} cells, the notebook has {len(originals)} for readers"]
    for (position, original), cell in zip(originals, copy):
        before, after = "".join(original["source"]), "".join(cell["source"])
        if position in by_cell:
            tail = RECORD.format(id=by_cell[position].id)
            is_right = after.endswith(tail) and _without_blanks(before) == _without_raises(after.removesuffix(tail))
        else:
            is_right = before == after
        if not is_right:
            problems.append(f"cell {position + 1} differs in more than its blanks")
        first = min((position for position in by_cell if position is not None), default=len(originals) + 1)
        if cell.get("outputs") and position >= first:
            problems.append(f"cell {position + 1} of the copy shows what follows from a solution")
    return problems


def _without_blanks(source: str) -> list[str | None]:
    """The lines outside of solutions, found line by line, without the pattern that made the copy; None for a blank."""
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
    return [None if line.strip().startswith('raise NotImplementedError("') else line for line in source.splitlines()]


def _prove_stubs(path: Path) -> list[str]:
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from llama_from_scratch.lessons import notebook

    nb = notebook.read(path)
    by_cell = {exercise.cell: exercise for exercise in read(path)}
    cells, stubs = [], {}
    for position, cell in enumerate(nb.cells):
        if position in by_cell and cell.cell_type == "code":
            exercise = by_cell[position]
            stub = nbformat.v4.new_code_cell(exercise.stub, metadata={"tags": ["raises-exception"]})
            stubs[exercise.id] = stub
            cells.append(stub)
        cells.append(cell)
    nb.cells = cells
    try:
        notebook.client(nb, path.parent, notebook.CELL_TIMEOUT_S).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [f"the notebook does not run to its end with stubs tried first: {error}"]
    problems = []
    for exercise_id, stub in stubs.items():
        errors = [out.ename for out in stub.outputs if out.output_type == "error"]
        if errors not in (["NotImplementedError"], ["NotWritten"]):
            problems.append(f"the stub of exercise {exercise_id} must raise NotImplementedError and raised "
                            f"{errors[0] if errors else 'nothing'}: call what is to be written after its definition")
    return problems

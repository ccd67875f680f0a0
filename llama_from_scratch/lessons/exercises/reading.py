"""The exercises of the course, read from the notebooks.

An exercise is written in one place. A Markdown cell of its chapter gives the task, difficulty,
minutes and hints, and the code cell after it holds the stub and the solution.

    **Exercise 1 (★, 5 min).** Undo RoPE: return the original queries. *Hint: what turns back?*
    **Exercise 2 (★★, 10 min, change and rerun).** In section 5, set ... and rerun. What changes?
    **Exercise 3 (★★, 10 min, break it).** Turn the values, too. Which check catches it?
"""

import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"
KINDS = ("change and rerun", "break it")
FORM = ('an exercise must open like "**Exercise 1 (★★, 10 min).** task": a number counted from 1, '
        f"one to three stars, minutes, and for some kinds {' or '.join(KINDS)}")
HEAD = re.compile(
    r"\*\*Exercise (?P<number>\d+) "
    r"\((?P<stars>★{1,3})(?:, (?P<minutes>\d+) min)?(?:, (?P<kind>[^)\d]+))?\)\.\*\*[ \t]*"
    r"(?P<text>\S.*?)(?=\n+\*\*Exercise|\n+#|\s*\Z)", re.S)
# Code and formulas inside a hint may hold asterisks.
HINT = re.compile(r"\s*\*(?:Hint|Stronger hint): ((?:`[^`]*`|\$[^$]*\$|[^*`$])+)\*")
SENTENCE = re.compile(r"(?:`[^`]*`|\$[^$]*\$|[^`$])*?[.?!](?=\s|$)")
SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION(?::[ \t]*(?P<task>.*?))?[ \t]*\n"
    r"(?:.*\n)*?[ \t]*### END SOLUTION[ \t]*$",
    re.M,
)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise of one chapter."""

    id: str
    """The numbers of the chapter and the exercise: "12.1"."""
    chapter: str
    """The notebook's name: "12_rope"."""
    task: str
    """Markdown, without the hints."""
    stars: int
    minutes: int | None
    """None for some exercises with a kind."""
    kind: str
    """One of KINDS, or "" if the reader writes code or an answer."""
    hints: tuple[str, ...]
    cell: int | None = None
    """The number of its code cell, counted from 0; None if there is no code to write."""
    source: str = ""
    """The source of that cell, with the solution."""

    @property
    def title(self) -> str:
        """The first sentence of the task."""
        found = SENTENCE.match(self.task)
        return found[0] if found else self.task

    @property
    def stub(self) -> str:
        """The reader's cell: each solution is replaced by a NotImplementedError with its task."""
        return SOLUTION.sub(_blank, self.source)

    @property
    def opening(self) -> str:
        """The line that opens the block with the exercise's checks."""
        return f'with attempt("{self.id}"):'

    @property
    def solution(self) -> str:
        """The lines that the reader has to write."""
        blocks = [textwrap.dedent("\n".join(found[0].splitlines()[1:-1]))
                  for found in SOLUTION.finditer(self.source)]
        return "\n\n".join(blocks)


def _blank(found: re.Match) -> str:
    task = found["task"] or "write this part, then run the cell again"
    return f"{found['indent']}raise NotImplementedError({json.dumps(task, ensure_ascii=False)})"


def read_exercises(path: Path) -> list[Exercise]:
    """Returns the exercises of one notebook, in order.

    Raises ValueError for an exercise that is not written in the fixed form.
    """
    found: list[Exercise] = []
    for position, cell in enumerate(cells_of(path)):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heads = list(HEAD.finditer(source))
            if len(heads) != source.count("**Exercise"):
                bad = re.search(r"\*\*Exercise.*", HEAD.sub("", source))
                raise ValueError(f"{path.name}, cell {position + 1}: {FORM}; got "
                                 f"{bad[0][:80] if bad else source[:80]!r}")
            for head in heads:
                found.append(_exercise(head, path, number=len(found) + 1))
        elif "exercise" in cell["metadata"].get("tags", []) or "### BEGIN SOLUTION" in source:
            _refuse_stray(path, position, cell, found[-1] if found else None)
            found[-1] = Exercise(**{**vars(found[-1]), "cell": position, "source": source})
    return found


def cells_of(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path.name} is not a notebook; save it with JupyterLab") from None


def _exercise(head: re.Match, path: Path, *, number: int) -> Exercise:
    exercise_id = f"{path.stem.partition('_')[0]}.{head['number']}"
    if int(head["number"]) != number:
        raise ValueError(f"{path.name}: exercises must be numbered from 1 without gaps; got "
                         f"{exercise_id} instead of number {number}")
    kind = head["kind"] or ""
    if kind not in ("", *KINDS) or not (kind or head["minutes"]):
        raise ValueError(f"{path.name}: {FORM}; got {head[0][:80]!r}")
    return Exercise(
        id=exercise_id, chapter=path.stem, task=HINT.sub("", head["text"]).strip(),
        stars=len(head["stars"]),
        minutes=None if head["minutes"] is None else int(head["minutes"]), kind=kind,
        hints=tuple(HINT.findall(head["text"])))


def _refuse_stray(path: Path, position: int, cell: dict, owner: Exercise | None) -> None:
    place, source = f"{path.name}, cell {position + 1}", "".join(cell["source"])
    if "exercise" not in cell["metadata"].get("tags", []):
        raise ValueError(f"{place}: a cell with a solution must have the tag `exercise`; add it")
    if not SOLUTION.search(source):
        raise ValueError(f"{place}: a cell tagged `exercise` must have a block from `### BEGIN "
                         "SOLUTION: task` to `### END SOLUTION`; got none. A reader's copy has no "
                         "solutions: use the original notebook")
    if owner is None or owner.cell is not None:
        raise ValueError(f"{place}: {FORM}, each with one cell; got "
                         "a cell without such an opening before it")


def chapters(folder: Path = NOTEBOOKS) -> dict[str, list[Exercise]]:
    """Returns the exercises of every notebook that has any, by the notebook's name."""
    if not folder.is_dir():
        raise ValueError("the exercises are in the notebooks of the course's repository, but "
                         f"there is no folder {folder}. Clone the repository and install the "
                         "clone with `pip install -e .`")
    return {path.stem: found
            for path in sorted(folder.glob("*.ipynb")) if (found := read_exercises(path))}


def find(name: str | float, *, folder: Path = NOTEBOOKS) -> Exercise:
    """Returns the exercise with a number such as "12.1".

    Raises ValueError, with the numbers that exist, if there is no such exercise.
    """
    number = name.partition(".")[0] if isinstance(name, str) else None
    paths = sorted(folder.glob(f"{number}_*.ipynb")) if number and number.isdigit() else []
    there = [exercise for path in paths for exercise in read_exercises(path)]
    for exercise in there:
        if exercise.id == name:
            return exercise
    ids = ", ".join([exercise.id for exercise in there]
                    or [stem.partition("_")[0] for stem in chapters(folder)])
    what = f"Chapter {number} has the exercises" if there else "There are exercises in the chapters"
    raise ValueError('an exercise is named by its chapter and number, such as "12.1" with the '
                     f"quotes; got {name!r}. {what} {ids}")

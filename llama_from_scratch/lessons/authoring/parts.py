"""The parts that every chapter must have: questions, drawings, exercises with help, and an end.

`missing_parts` lists what is missing in a chapter, without running it.
"""

import ast
import re
from pathlib import Path

from llama_from_scratch.lessons import mistakes
from llama_from_scratch.lessons.authoring.form import FOLDED, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import Exercise, read_exercises

MIN_HINTS, MIN_MISTAKES, MIN_DRAWINGS = 2, 3, 2
ASKED = re.compile(r"predict\.(?:number|choice|sketch|words)\(\s*\"(\w+\.\w+)\"")
COMPARED = re.compile(r"predict\.compare\(\s*\"(\w+\.\w+)\"")
_PLOTS = "grids?|tokens|style|png|token_boxes|letters|measured"
DRAWN = re.compile(rf"figures\.(?!(?:{_PLOTS})\b)[a-z_]+\.[a-z_]+\(")


def missing_parts(path: Path) -> list[str]:
    """Returns a sentence for each part that is missing in a chapter with exercises."""
    cells = read_notebook(path).cells
    number = path.stem.partition("_")[0]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return [*_of_questions(cells, code, number), *_of_exercises(path), *_of_end(code, number),
            *_of_pictures(cells, code)]


def _of_questions(cells: list[dict], code: str, number: str) -> list[str]:
    asked, compared = ASKED.findall(code), COMPARED.findall(code)
    problems = []
    for position, cell in enumerate(cells, start=1):
        after = cells[position].source if position < len(cells) else ""
        if cell.cell_type == "markdown" and "**Predict" in cell.source and not ASKED.search(after):
            problems.append(f"cell {position} asks for a prediction, but the next cell takes no "
                            "guess")
    letters = [f"{number}.{chr(ord('a') + i)}" for i in range(len(asked))]
    if asked != letters:
        problems.append(f"questions must be named {', '.join(letters)}; got {', '.join(asked)}")
    if asked != compared:
        problems.append("each question must be compared once, in order; asked are "
                        f"{', '.join(asked)}, compared are {', '.join(compared)}")
    return problems


def _of_exercises(path: Path) -> list[str]:
    problems = []
    for exercise in read_exercises(path):
        if exercise.cell is None:
            continue
        if len(exercise.hints) < MIN_HINTS:
            problems.append(f"{exercise.id} has {len(exercise.hints)} of {MIN_HINTS} hints")
        if exercise.opening not in exercise.source:
            problems.append(f"{exercise.id} must check inside `{exercise.opening}`")
        elif _has_bare_assert(exercise):
            problems.append(f"{exercise.id} ends in an assert without words: use check.equal, or "
                            "raise check.CheckFailed")
        known = mistakes.of_chapter(exercise.chapter).get(exercise.id, ())
        if len(known) < MIN_MISTAKES:
            problems.append(f"{exercise.id} lists {len(known)} of {MIN_MISTAKES} known mistakes")
    return problems


def _has_bare_assert(exercise: Exercise) -> bool:
    checks = exercise.source[exercise.source.index(exercise.opening):]
    return any(isinstance(node, ast.Assert) and node.msg is None
               for node in ast.walk(ast.parse(checks)))


def _of_end(code: str, number: str) -> list[str]:
    needed = {"check.numbers(": "numbers you should see",
              f'predict.surprises("{number}")': "the reader's surprises"}
    problems = [f"the end must have {words}: {call}" for call, words in needed.items()
                if call not in code]
    if not re.search(rf'milestones\.(?:models|reached)\(\s*"{number}"', code):
        problems.append("the end must have a milestone")
    return problems


def _of_pictures(cells: list[dict], code: str) -> list[str]:
    n_drawings = len(DRAWN.findall(code))
    problems = [] if n_drawings >= MIN_DRAWINGS else [
        f"a chapter must have {MIN_DRAWINGS} drawings; got {n_drawings}"]
    for position, cell in enumerate(cells, start=1):
        if FOLDED in tags_of(cell) and not cell.source.startswith("# "):
            problems.append(f"cell {position} is folded, so it must begin with a comment that says "
                            "what it shows")
    return problems

"""The parts that every chapter has: questions, drawings, exercises with help, and an end.

`missing_parts` names what a chapter lacks, without running it.
"""

import re
from pathlib import Path

from llama_from_scratch.lessons import mistakes
from llama_from_scratch.lessons.authoring.form import FOLDED, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import read_exercises

MIN_HINTS, MIN_MISTAKES, MIN_DRAWINGS = 2, 3, 2
ASKED = re.compile(r"predict\.(?:number|choice|sketch|words)\(\s*\"(\w+\.\w+)\"")
COMPARED = re.compile(r"predict\.compare\(\s*\"(\w+\.\w+)\"")
_PLOTS = "grids?|tokens|style|png|token_boxes|letters|measured"
DRAWN = re.compile(rf"figures\.(?!(?:{_PLOTS})\b)[a-z_]+\.[a-z_]+\(")


def missing_parts(path: Path) -> list[str]:
    """Returns a sentence for each part that a chapter with exercises lacks."""
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
            problems.append(f"cell {position} asks to predict, and the next cell takes no guess")
    letters = [f"{number}.{chr(ord('a') + i)}" for i in range(len(asked))]
    if asked != letters:
        problems.append(f"questions are named {', '.join(letters)}; got {', '.join(asked)}")
    if asked != compared:
        problems.append(f"each question is compared once, in order; asked {', '.join(asked)}, "
                        f"compared {', '.join(compared)}")
    return problems


def _of_exercises(path: Path) -> list[str]:
    problems = []
    for exercise in read_exercises(path):
        if exercise.cell is None:
            continue
        if len(exercise.hints) < MIN_HINTS:
            problems.append(f"{exercise.id} has {len(exercise.hints)} of {MIN_HINTS} hints")
        if exercise.opening not in exercise.source:
            problems.append(f"{exercise.id} checks inside of `{exercise.opening}`")
        known = mistakes.of_chapter(exercise.chapter).get(exercise.id, ())
        if len(known) < MIN_MISTAKES:
            problems.append(f"{exercise.id} lists {len(known)} of {MIN_MISTAKES} known mistakes")
    return problems


def _of_end(code: str, number: str) -> list[str]:
    needed = {"check.numbers(": "numbers you should see",
              f'predict.surprises("{number}")': "the reader's surprises"}
    problems = [f"the end has {words}: {call}" for call, words in needed.items()
                if call not in code]
    if not re.search(rf'milestones\.(?:models|reached)\(\s*"{number}"', code):
        problems.append("the end has a milestone")
    return problems


def _of_pictures(cells: list[dict], code: str) -> list[str]:
    n_drawings = len(DRAWN.findall(code))
    problems = [] if n_drawings >= MIN_DRAWINGS else [
        f"structure is drawn: {n_drawings} of {MIN_DRAWINGS} drawings"]
    for position, cell in enumerate(cells, start=1):
        if FOLDED in tags_of(cell) and not cell.source.startswith("# "):
            problems.append(f"cell {position} is folded and begins with a comment: what it shows")
    return problems

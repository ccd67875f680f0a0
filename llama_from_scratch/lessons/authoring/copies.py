"""The reader's copy of a chapter: blanks for solutions, no outputs, hints on demand.

The copy says in its first cell of code that it remembers what the reader does.
"""

from pathlib import Path

from llama_from_scratch.files import replacing_file
from llama_from_scratch.lessons.authoring.form import canonical, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import HINT, read_exercises

REMEMBER = """

from llama_from_scratch.lessons import remember

remember()  # keeps your guesses and what you solve in runs/progress.json"""


def student(path: Path, folder: Path) -> Path:
    """Writes the reader's copy: solutions become NotImplementedError, and nothing has an output.

    A block opened by `### BEGIN SOLUTION: what to do` gives its words to the error. Hints are taken
    out of the text: a click shows them. Raises FileExistsError, and writes nothing, where the
    reader already has a copy and has worked in it.
    """
    import nbformat

    nb = nbformat.reads(canonical(read_notebook(path)), as_version=4)
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
    for position, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown" and "**Exercise" in cell.source:
            cell.source = HINT.sub("", cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if position in by_cell:
                cell.source = by_cell[position].stub
    if codes := [cell for cell in nb.cells if cell.cell_type == "code"]:
        codes[0].source += REMEMBER
    nb.cells = [cell for cell in nb.cells if "teacher-only" not in tags_of(cell)]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.resolve() == path.resolve():
        raise ValueError("a reader's copy needs a folder of its own; "
                         f"got {folder}, which holds the lesson itself")
    content = (nbformat.writes(nb) + "\n").encode()
    if target.exists() and target.read_bytes() != content:
        raise FileExistsError(f"{target} is there already and has work in it; it is kept. For a "
                              "fresh copy rename it first")
    # a copy that was cut short would be taken for the reader's work
    with replacing_file(target) as unfinished:
        unfinished.write_bytes(content)
    return target

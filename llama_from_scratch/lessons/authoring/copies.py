"""The reader's copy of a chapter: blanks instead of solutions, no outputs, hints on demand.

The first code cell of the copy turns on the record of what the reader does.
"""

from pathlib import Path

from llama_from_scratch.files import replacing_file
from llama_from_scratch.lessons.authoring.form import canonical, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import HINT, read_exercises

REMEMBER = """

from llama_from_scratch.lessons import remember

remember()  # keeps your guesses and what you solve in runs/progress.json"""


def student(path: Path, folder: Path) -> Path:
    """Writes the reader's copy and returns its path.

    Each solution becomes a NotImplementedError, with the words after `### BEGIN SOLUTION:` as its
    message. Outputs are removed, and so are hints, which a click shows. Raises FileExistsError, and
    writes nothing, if the reader already has a copy and has worked in it.
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
        raise ValueError("a reader's copy must be in another folder than the original; "
                         f"got {folder}, which has the original")
    content = (nbformat.writes(nb) + "\n").encode()
    if target.exists() and target.read_bytes() != content:
        raise FileExistsError(f"{target} already exists and has work in it, so it is not replaced. "
                              "Rename it to get a new copy")
    # an incomplete copy would look like the reader's work
    with replacing_file(target) as unfinished:
        unfinished.write_bytes(content)
    return target

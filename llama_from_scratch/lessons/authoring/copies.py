"""The reader's copy of a chapter: blanks for solutions, and a line that records what passes."""

from pathlib import Path

from llama_from_scratch.files import replacing_file
from llama_from_scratch.lessons.authoring.form import canonical, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import read_exercises

RECORD = """

# Reached only if everything above is right.
from llama_from_scratch.lessons import exercises

exercises.passed("{id}")"""


def student(path: Path, folder: Path) -> Path:
    """Writes the reader's copy: solutions become NotImplementedError; what follows has no output.

    A block opened by `### BEGIN SOLUTION: what to do` hands its words to the error. An exercise
    ends with the call that records it. Raises FileExistsError, and writes nothing, where the reader
    already has a copy and has worked in it.
    """
    import nbformat

    nb = nbformat.reads(canonical(read_notebook(path)), as_version=4)
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
    is_open = False
    for position, cell in enumerate(nb.cells):
        if position in by_cell and cell.cell_type == "code":
            is_open = True
            cell.source = by_cell[position].stub + RECORD.format(id=by_cell[position].id)
        if is_open and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
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

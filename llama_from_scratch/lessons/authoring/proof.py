"""The proof that every solution passes, every stub fails, and a copy differs only in its blanks."""

from pathlib import Path

from llama_from_scratch.lessons.authoring.copies import RECORD, student
from llama_from_scratch.lessons.authoring.executing import CELL_TIMEOUT_S, client
from llama_from_scratch.lessons.authoring.form import read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import cells_of, read_exercises


def prove(path: Path) -> list[str]:
    """A sentence for each solution that fails, stub that passes, or other change in the copy.

    Runs the notebook once, in one kernel: before each exercise the stub, which must raise
    NotImplementedError, then the solution, which must not. That is also the order in which a reader
    runs them.
    """
    return prove_copy(path) + _prove_stubs(path)


def prove_copy(path: Path) -> list[str]:
    """A sentence for each difference between a notebook and its copy but blanks. Runs nothing."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = cells_of(student(path, Path(folder)))
    problems = []
    originals = [(position, cell) for position, cell in enumerate(cells_of(path))
                 if "teacher-only" not in tags_of(cell)]
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
    if len(copy) != len(originals):
        return [f"the copy has {len(copy)} cells, the notebook has {len(originals)} for readers"]
    for (position, original), cell in zip(originals, copy, strict=True):
        before, after = "".join(original["source"]), "".join(cell["source"])
        if position in by_cell:
            tail = RECORD.format(id=by_cell[position].id)
            is_right = (after.endswith(tail)
                        and _without_blanks(before) == _without_raises(after.removesuffix(tail)))
        else:
            is_right = before == after
        if not is_right:
            problems.append(f"cell {position + 1} differs in more than its blanks")
        first = min((position for position in by_cell if position is not None),
                    default=len(originals) + 1)
        if cell.get("outputs") and position >= first:
            problems.append(f"cell {position + 1} of the copy shows what follows from a solution")
    return problems


def _without_blanks(source: str) -> list[str | None]:
    """The lines outside of solutions, by another way than the copy was made; None for a blank."""
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


def _prove_stubs(path: Path) -> list[str]:
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = read_notebook(path)
    by_cell = {exercise.cell: exercise for exercise in read_exercises(path)}
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
        client(nb, path.parent, CELL_TIMEOUT_S).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [f"the notebook does not run to its end with stubs tried first: {error}"]
    problems = []
    for exercise_id, stub in stubs.items():
        errors = [out.ename for out in stub.outputs if out.output_type == "error"]
        if errors not in (["NotImplementedError"], ["NotWritten"]):
            problems.append(f"the stub of exercise {exercise_id} must raise NotImplementedError "
                            f"and raised {errors[0] if errors else 'nothing'}: call what is to be "
                            "written after its definition")
    return problems

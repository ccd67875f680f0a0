"""Tests that every cell of a chapter shows the same when it is run twice.

Readers often run a cell again, for example after they undid a change. A cell that advances a random
generator, appends to a list or deletes what it needs then shows something else, and so do the cells
after it.
"""

from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.lessons.authoring.executing import CELL_TIMEOUT_S, client
from llama_from_scratch.lessons.authoring.form import canonical_outputs, read_notebook, tags_of
from llama_from_scratch.lessons.authoring.stored import IGNORED, is_close

RAISES = "raises-exception"
REL_TOL, ABS_TOL = 1e-5, 1e-6
"""The last digits of a sum can differ from run to run if several threads compute it."""


def repeat(path: Path) -> list[str]:
    """Returns a sentence for each code cell that shows something else when it is run again.

    Runs the notebook once, in one kernel, with every cell twice. Text on stderr, cells tagged `gpu`
    and cells tagged `nbval-ignore-output` are not compared.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = read_notebook(path)
    doubled, pairs = [], []
    for position, cell in enumerate(nb.cells, start=1):
        doubled.append(cell)
        if cell.cell_type == "code":
            pairs.append(Pair(position=position, first=cell, again=again(cell)))
            doubled.append(pairs[-1].again)
    nb.cells = doubled
    problems = []
    try:
        client(nb, path.parent, CELL_TIMEOUT_S).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        problems.append(f"the notebook does not run to its end if every cell is run twice: {error}")
    return problems + [words for pair in pairs if (words := pair.difference())]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A cell and its copy, which are compared after both were run."""

    position: int
    """The position of the cell in the notebook, counted from 1."""
    first: dict
    again: dict

    def difference(self) -> str | None:
        """Returns a sentence if the second run shows something else than the first, else None."""
        if not self.again.outputs or {IGNORED, "gpu"} & set(tags_of(self.first)):
            return None
        words = _difference(_shown(self.first), _shown(self.again))
        return (f"cell {self.position} shows something else when it is run again: {words}"
                if words else None)


def again(cell: dict) -> dict:
    """Returns a copy of a cell; an error in it does not stop the notebook."""
    import nbformat

    tags = [*{*tags_of(cell), RAISES}]
    return nbformat.from_dict({**cell, "id": f"{cell.id}-again", "outputs": [],
                               "metadata": {"tags": tags}})


def _shown(cell: dict) -> list[str]:
    """Returns the outputs of a cell that a reader sees, each as the text that notebooks store."""
    return [_text(out) for out in canonical_outputs(cell)
            if out.output_type != "stream" or out.name != "stderr"]


def _text(out: dict) -> str:
    if out.output_type == "stream":
        return out.text
    if out.output_type == "error":
        return f"{out.ename}: {out.evalue}"
    return "\n".join(f"{kind}\n{out.data[kind]}" for kind in sorted(out.data))


def _difference(first: list[str], second: list[str]) -> str:
    """Returns words for the first difference, or "" if there is none."""
    if len(first) != len(second):
        last = max(first, second, key=len)[-1]
        return f"{len(first)} outputs, then {len(second)}; the last is {last[:80]!r}"
    for before, after in zip(first, second, strict=True):
        if not _is_close(before, after):
            lines = zip(before.splitlines(), after.splitlines(), strict=False)
            one, other = next(((a, b) for a, b in lines if not _is_close(a, b)), (before, after))
            return f"{one[:80]!r}, then {other[:80]!r}"
    return ""


def _is_close(first: str, second: str) -> bool:
    return is_close(first, second, rel_tol=REL_TOL, abs_tol=ABS_TOL)

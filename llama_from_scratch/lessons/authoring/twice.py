"""The proof that any cell of a chapter may be run twice and then gives the same again.

A reader runs a cell again after looking at it once more, or after a change that was taken back. A
cell that moves a generator, appends to a list or deletes what it needs then shows something else,
and so does every cell after it.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.lessons.authoring.executing import CELL_TIMEOUT_S, client
from llama_from_scratch.lessons.authoring.form import canonical, read_notebook, tags_of

IGNORED, RAISES = "nbval-ignore-output", "raises-exception"
FLOAT = re.compile(r"(?<![\w.])[-+]?\d+\.\d*(?:e[-+]?\d+)?")
REL_TOL, ABS_TOL = 1e-5, 1e-6
"""Sums that several threads share may differ in their last digits from run to run."""


def repeat(path: Path) -> list[str]:
    """Returns a sentence for each code cell that shows something else when it is run again.

    Runs the notebook once, in one kernel, with every cell twice. Text on stderr, what `gpu` cells
    show without a GPU, and cells tagged `nbval-ignore-output` are not compared.
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
        problems.append(f"the notebook does not run to its end with every cell twice: {error}")
    return problems + [words for pair in pairs if (words := pair.difference())]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A cell and the same cell again; both are compared after they were run."""

    position: int
    """In the notebook, counted from 1."""
    first: dict
    again: dict

    def difference(self) -> str | None:
        """What the second run shows that the first did not, in words, or None."""
        if not self.again.outputs or {IGNORED, "gpu"} & set(tags_of(self.first)):
            return None
        words = _difference(_shown(self.first), _shown(self.again))
        return (f"cell {self.position} shows something else when it is run again: {words}"
                if words else None)


def again(cell: dict) -> dict:
    """The same cell once more; an error in it does not end the notebook."""
    import nbformat

    tags = [*{*tags_of(cell), RAISES}]
    return nbformat.from_dict({**cell, "id": f"{cell.id}-again", "outputs": [],
                               "metadata": {"tags": tags}})


def _shown(cell: dict) -> list[str]:
    """What a reader sees of a cell's outputs, one text each, as notebooks store them."""
    import nbformat

    alone = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell)])
    [plain] = nbformat.reads(canonical(alone), as_version=4).cells
    return [_text(out) for out in plain.outputs
            if out.output_type != "stream" or out.name != "stderr"]


def _text(out: dict) -> str:
    if out.output_type == "stream":
        return out.text
    if out.output_type == "error":
        return f"{out.ename}: {out.evalue}"
    return "\n".join(f"{kind}\n{out.data[kind]}" for kind in sorted(out.data))


def _difference(first: list[str], second: list[str]) -> str:
    """The first lines that differ, or nothing."""
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
    if FLOAT.sub("#", first) != FLOAT.sub("#", second):
        return False
    pairs = zip(FLOAT.findall(first), FLOAT.findall(second), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=REL_TOL, abs_tol=ABS_TOL)
               for a, b in pairs)

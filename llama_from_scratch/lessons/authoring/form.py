"""The canonical form in which every notebook is stored, so that a second run changes no byte.

A notebook is stored with its outputs. So a reader sees the figures before running anything, and a
test can compare a new run with the stored one. Therefore everything that varies from run to run is
left out: widget ids, time stamps, split streams, temporary paths.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

FOLDED = "folded"
"""The tag of a cell whose code JupyterLab hides until a click, because it is not the lesson."""

SLUG = re.compile(r"[a-z0-9_]+-\d{2,}")
KERNEL_FILE = re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py")


def read_notebook(path: Path) -> dict:
    """Returns the notebook in a file, with a stable name as each cell's id and texts as strings."""
    import nbformat

    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.get("nbformat") != 4:
        raise ValueError(f"{path.name} must have nbformat 4; got "
                         f"{raw.get('nbformat')}; save it with JupyterLab")
    raw["nbformat_minor"] = 5
    _name_cells(raw["cells"], re.sub(r"^\d+_", "", path.stem))
    return nbformat.reads(json.dumps(raw), as_version=4)


def canonical(nb: dict) -> str:
    """Returns the text in which this notebook is stored; the same notebook gives the same bytes."""
    import nbformat

    nb = nbformat.from_dict(json.loads(json.dumps(nb)))
    nb.nbformat, nb.nbformat_minor = 4, 5
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nb.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    count = 0
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict(
            ({"tags": tags} if tags else {})
            | ({"jupyter": {"source_hidden": True}} if FOLDED in tags else {}))
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [_plain_output(out, count) for out in _merge_streams(cell.outputs)]
            cell.outputs = [out for out in cell.outputs if out.get("data") != {}]
    return nbformat.writes(nb) + "\n"


def canonical_outputs(cell: dict) -> list[dict]:
    """Returns the outputs of a cell in the form in which notebooks store them."""
    import nbformat

    alone = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell)])
    [plain] = nbformat.reads(canonical(alone), as_version=4).cells
    return plain.outputs


def tags_of(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _name_cells(cells: list[dict], topic: str) -> None:
    """Gives the next number to each cell without a stable name, such as a new one of JupyterLab."""
    kept, unnamed = set(), []
    for cell in cells:
        if SLUG.fullmatch(cell.get("id", "")) and cell["id"] not in kept:
            kept.add(cell["id"])
        else:
            unnamed.append(cell)
    last = max((int(name.rpartition("-")[2]) for name in kept), default=0)
    for number, cell in enumerate(unnamed, start=last + 1):
        cell["id"] = f"{topic}-{number:02d}"


def _merge_streams(outputs: Sequence[dict]) -> list[dict]:
    merged: list[dict] = []
    for out in outputs:
        if (merged and out.output_type == "stream" == merged[-1].output_type
            and out.name == merged[-1].name):
            merged[-1].text += out.text
        else:
            merged.append(out)
    return merged


def _plain_output(out: dict, count: int) -> dict:
    if out.output_type == "stream":
        out.text = _stable(out.text)
    elif out.output_type == "error":
        out.evalue = _stable(out.evalue)
        out.traceback = [f"{out.ename}: {out.evalue}"]
    else:
        out.metadata = {}
        out.data.pop(WIDGET_VIEW, None)
        for kind, value in out.data.items():
            if kind.startswith("text/"):
                out.data[kind] = _stable(value)
            elif kind == "image/png":
                out.data[kind] = value.replace("\n", "")
        if out.output_type == "execute_result":
            out.execution_count = count
    return out


def _stable(text: str) -> str:
    """Returns the text that a terminal shows at the end, without the kernel's temporary file names.
    """
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return KERNEL_FILE.sub("<cell>", "\n".join(lines))

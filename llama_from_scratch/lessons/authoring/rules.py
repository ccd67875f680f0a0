"""Runs, checks, shows and strips the course's notebooks, and writes them all in one canonical form.

A notebook is stored with its outputs, so that a reader sees the figures before running anything and a test can compare
a fresh run with what is stored. That only works if a second run changes no byte: everything that varies from run to
run (widget ids, time stamps, split streams, temporary paths) is therefore left out, and `check` refuses what would vary
in a way that no form can hide. Used for every notebook; `python -m llama_from_scratch.lessons.notebook --help`.

The text view for git (`show`) needs nothing but the standard library, so the rest is imported where it is used.
"""

import argparse
import ast
import base64
import hashlib
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
COMMAND = "python -m llama_from_scratch.lessons.notebook"

TAGS = {"nbval-ignore-output", "raises-exception", "gpu", "slow", "exercise", "teacher-only", "parameters"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

CELL_TIMEOUT_S = 120
SLOW_CELL_TIMEOUT_S = 600

MAX_NOTEBOOK_BYTES = 500_000
GOOD_FIGURE_CHARS, MAX_FIGURE_CHARS = 60_000, 100_000
GOOD_CODE_LINES, MAX_CODE_LINES = 25, 40
MAX_OUTPUT_LINES = 60
CELLS_PER_IGNORED = 10

# Below this root-mean-square error of a colour channel (0..255) figures with thin lines and text looked the same.
MAX_PALETTE_ERROR = 4.0

SLUG = re.compile(r"[a-z0-9_]+-\d{2,}")
SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION(?::[ \t]*(?P<task>.*?))?[ \t]*\n(?:.*\n)*?[ \t]*### END SOLUTION[ \t]*$",
    re.M,
)
KERNEL_FILE = re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
ABSOLUTE_PATH = re.compile(r"(?<![\w./])/(?:home|root|Users|tmp|usr|opt|var|mnt|work|private)/\w|\b[A-Z]:\\\w")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken rule: where, what was found, and what to do about it."""

    path: Path
    cell: int | None
    """Position in the notebook, counted from 1 and over all cells; None for the file as a whole."""
    rule: str
    cure: str
    is_error: bool = True

    def __str__(self) -> str:
        place = f"{self.path.name}" if self.cell is None else f"{self.path.name}, cell {self.cell}"
        return f"{'error' if self.is_error else 'hint'}: {place}: {self.rule}. {self.cure}."


class CellFailed(Exception):
    """A cell raised without the tag `raises-exception`, or ran out of time; nothing was written."""


# --- the canonical form ----------------------------------------------------------------------------------------------


def read(path: Path) -> dict:
    """The notebook of a file, with every cell id a stable slug and every text one string."""
    import nbformat

    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.get("nbformat") != 4:
        raise ValueError(f"{path.name} must have nbformat 4; got {raw.get('nbformat')}; save it with JupyterLab")
    raw["nbformat_minor"] = 5
    _name_cells(raw["cells"], re.sub(r"^\d+_", "", path.stem))
    return nbformat.reads(json.dumps(raw), as_version=4)


def canonical(nb: dict) -> str:
    """The one text by which this notebook is stored; writing it twice gives the same bytes."""
    import nbformat

    nb = nbformat.from_dict(json.loads(json.dumps(nb)))
    nb.nbformat, nb.nbformat_minor = 4, 5
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nb.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    count = 0
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [_plain_output(out, count) for out in _merge_streams(cell.outputs)]
            cell.outputs = [out for out in cell.outputs if out.get("data") != {}]
    return nbformat.writes(nb) + "\n"


def _name_cells(cells: list[dict], topic: str) -> None:
    """Gives each cell without a slug of its own, such as one that JupyterLab just made, the next free number."""
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
        if merged and out.output_type == "stream" == merged[-1].output_type and out.name == merged[-1].name:
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
    """`text` as a terminal would end up showing it, without the kernel's temporary file names."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return KERNEL_FILE.sub("<cell>", "\n".join(lines))


# --- run -------------------------------------------------------------------------------------------------------------


def run(path: Path, *, timeout_s: int = CELL_TIMEOUT_S) -> bool:
    """Executes a notebook in a fresh kernel of this very Python and stores it; True if that changed the file.

    Cells tagged `gpu` are left as they are on a machine without CUDA; cells tagged `slow` get more time.
    Raises CellFailed, with the file untouched, if a cell fails.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = read(path)
    for cell in nb.cells:
        if cell.cell_type == "code" and not _is_skipped(cell):
            cell.outputs = []
    try:
        client(nb, path.parent, timeout_s).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise CellFailed(f"{path.name}: {error}") from error
    for cell in nb.cells:
        for out in cell.get("outputs", ()):
            if "image/png" in out.get("data", {}):
                out.data["image/png"] = shrink_png(out.data["image/png"])
    return _write_if_changed(path, canonical(nb))


def client(nb: dict, folder: Path, timeout_s: int):
    """An executor of this notebook in a fresh kernel of this very Python."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    class Flat(NotebookClient):
        """Keeps what an Output widget prints in the cell, and the frames that `clear_output` would take away.

        nbval sees the same, so even the cells of `interact` compare; and plain nbclient can lose a reply and hang
        while it copies Output widgets.
        """

        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.owns_km = True   # nbclient leaves a kernel whose manager it was handed running until this process ends
            self.comm_open_handlers = {}

        def clear_output(self, outs, msg, cell_index):
            pass

    # Without kernel folders "python3" can only mean the interpreter that runs this line.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    return Flat(
        nb,
        km=manager,
        timeout_func=lambda cell: SLOW_CELL_TIMEOUT_S if "slow" in _tags(cell) else timeout_s,
        record_timing=False,
        skip_cells_with_tag="" if not _wants_gpu(nb) or _has_cuda() else "gpu",
        extra_arguments=["--log-level=ERROR"],
        shutdown_kernel="immediate",  # a cell that never ends would not hear a polite request
        resources={"metadata": {"path": str(folder)}},
    )


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _wants_gpu(nb: dict) -> bool:
    return any("gpu" in _tags(cell) for cell in nb["cells"])


def _is_skipped(cell: dict) -> bool:
    return "gpu" in _tags(cell) and not _has_cuda()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def shrink_png(png: str) -> str:
    """The picture (base64 in and out) with a palette of 64 or 256 colours where the eye cannot tell the difference.

    Figures have few colours, so this saves more than half of most of them; a photograph is kept as it is.
    """
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    if picture.mode == "RGBA" and picture.getextrema()[3] != (255, 255):
        return png
    rgb = picture.convert("RGB")
    smallest = png
    for n_colours in (64, 256):
        palette = rgb.quantize(n_colours, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        error = np.asarray(palette.convert("RGB"), dtype=float) - np.asarray(rgb, dtype=float)
        if np.sqrt((error**2).mean()) <= MAX_PALETTE_ERROR:
            buffer = io.BytesIO()
            palette.save(buffer, "png", optimize=True)
            smallest = min(smallest, base64.b64encode(buffer.getvalue()).decode(), key=len)
            break
    return smallest


def _write_if_changed(path: Path, text: str) -> bool:
    if path.exists() and path.read_bytes() == text.encode():
        return False
    path.write_bytes(text.encode())
    return True


# --- check -----------------------------------------------------------------------------------------------------------


def check(path: Path) -> list[Finding]:
    """Every rule of the course that this stored notebook breaks, found without running it."""
    nb = read(path)
    cells = list(enumerate(nb.cells, start=1))
    findings = list(_check_file(path, nb))
    for number, cell in cells:
        for rule, cure, is_error in (*_check_tags(cell), *(_check_code(cell) if cell.cell_type == "code" else ())):
            findings.append(Finding(path=path, cell=number, rule=rule, cure=cure, is_error=is_error))
    return findings


def _check_file(path: Path, nb: dict) -> Iterator[Finding]:
    def finding(rule: str, cure: str, cell: int | None = None) -> Finding:
        return Finding(path=path, cell=cell, rule=rule, cure=cure)

    rerun = f"Run `{COMMAND} run {path.name}`"
    raw = json.loads(path.read_text(encoding="utf-8"))
    code = [(number, cell) for number, cell in enumerate(raw["cells"], start=1) if cell["cell_type"] == "code"]
    for expected, (number, cell) in enumerate(code, start=1):
        if cell.get("execution_count") != expected:
            yield finding(f"execution_count must be {expected}, it is {cell.get('execution_count')}", rerun, number)
            break  # one is enough to say that the notebook was not run from start to end
    if path.read_bytes() != canonical(nb).encode():
        yield finding("the file is not in canonical form", rerun)
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        yield finding(
            f"a notebook has at most {MAX_NOTEBOOK_BYTES // 1000} kB, this one {path.stat().st_size // 1000} kB",
            "Draw fewer or smaller figures",
        )
    first = nb.cells[0] if nb.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield finding("the first cell must be markdown that opens with a title", 'Start it with "# "', 1)
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    if not any(isinstance(node, ast.Assert) for source in sources for node in _nodes(source)):
        yield finding("no cell has an assert", "Prove that what was built equals the library's")
    n_ignored = sum("nbval-ignore-output" in _tags(cell) for cell in nb.cells)
    if n_ignored * CELLS_PER_IGNORED > max(len(sources), CELLS_PER_IGNORED):
        yield finding(
            f"at most one code cell in {CELLS_PER_IGNORED} may be ignored, here {n_ignored} of {len(sources)}",
            "Print something that a second run repeats",
        )


def _check_tags(cell: dict) -> Iterator[tuple[str, str, bool]]:
    for tag in _tags(cell):
        if tag not in TAGS:
            yield f"unknown tag {tag!r}", f"Use one of {', '.join(sorted(TAGS))}", True


def _check_code(cell: dict) -> Iterator[tuple[str, str, bool]]:
    n_lines = sum(bool(line.strip()) for line in cell.source.splitlines())
    if n_lines > GOOD_CODE_LINES:
        rule = f"{n_lines} lines of code, {GOOD_CODE_LINES} are enough for one idea"
        yield rule, "Split the cell", n_lines > MAX_CODE_LINES
    if cell.source.count("### BEGIN SOLUTION") != len(SOLUTION.findall(cell.source)):
        yield "a solution block is not closed", "End it with a line `### END SOLUTION`", True
    for rule, cure in _check_source(cell):
        yield rule, cure, True
    yield from _check_outputs(cell)


def _check_outputs(cell: dict) -> Iterator[tuple[str, str, bool]]:
    text, n_figures = [], 0
    for out in cell.outputs:
        data = out.get("data", {})
        if out.output_type == "error":
            text.append(out.evalue)
            if "raises-exception" not in _tags(cell):
                yield f"an error is stored: {out.ename}: {out.evalue}", "Mend it, or tag it raises-exception", True
        if out.output_type == "stream":
            text.append(out.text)
            if out.name == "stderr":
                yield f"a warning is stored: {out.text.strip().splitlines()[0][:80]}", "Remove its cause", True
        text += [value for kind, value in data.items() if kind.startswith("text/")]
        figure = data.get("image/png")
        n_figures += figure is not None
        if figure is None and data.get("text/plain", "").startswith("<Figure size"):
            yield "a figure has lost its picture", f"Run `{COMMAND} run`", True
        elif figure is not None and len(figure) > GOOD_FIGURE_CHARS:
            yield (
                f"a figure takes {len(figure) // 1000} kB, {GOOD_FIGURE_CHARS // 1000} are enough",
                "Draw it smaller, or with image.interpolation nearest",
                len(figure) > MAX_FIGURE_CHARS,
            )
    if "raises-exception" in _tags(cell) and not any(out.output_type == "error" for out in cell.outputs):
        yield "the cell is tagged raises-exception and raised nothing", "Remove the tag or raise", True
    if "plt.show()" in cell.source and not n_figures:
        yield "the cell shows a figure and none is stored", f"Run `{COMMAND} run`", True
    shown = "\n".join(text)
    n_lines = len(shown.splitlines())
    if n_lines > MAX_OUTPUT_LINES:
        yield f"{n_lines} lines of output, at most {MAX_OUTPUT_LINES}", "Show the part that matters", True
    if "nbval-ignore-output" not in _tags(cell):
        for pattern, what in ((ADDRESS, "a memory address"), (ABSOLUTE_PATH, "an absolute path")):
            if found := pattern.search(shown):
                yield f"{what} is printed: {found[0]}", "Print something that another machine repeats", True


def _nodes(source: str) -> list[ast.AST]:
    """The syntax tree of a cell, IPython's magic lines blanked out."""
    plain = re.sub(r"^[ \t]*[%!].*$", "pass", source, flags=re.M)
    try:
        return list(ast.walk(ast.parse(plain)))
    except SyntaxError:
        return []


NETWORK = {"urllib", "requests", "httpx", "http", "socket", "aiohttp", "huggingface_hub", "ftplib"}
LIVE_OUTPUT = {"clear_output", "display_id", "update_display"}


def _check_source(cell: dict) -> Iterator[tuple[str, str]]:
    for line in cell.source.splitlines():
        if re.match(r"\s*(%%?time(it)?\b)", line):
            yield f"`{line.strip()}` prints what no second run repeats", "Measure, and say the conclusion in markdown"
        if re.match(r"\s*[!%]\s*pip\b", line):
            yield f"`{line.strip()}`: a lesson installs nothing", "Add the package to pyproject.toml"
    if _ends_with_semicolon(cell.source):
        yield "the cell ends with `;`, which hides nothing from the test", "End with plt.show() or assign to _"
    for node in _nodes(cell.source):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=name) if name in LIVE_OUTPUT:
                yield f"`{name}` rewrites output that the stored notebook keeps", "Print each line once"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="time")):
                yield "`time.time()` is a clock that can be set back", "Use time.perf_counter() and print no time"
            case ast.Call(func=ast.Name(id="input")):
                yield "`input()` waits for a person", "Use a widget, or a variable to edit"
            case ast.ImportFrom(module="tqdm"):
                yield "a text progress bar prints its speed", "Print every k steps, or use the library's own bar"
            case ast.Import(names=names) if found := NETWORK & {name.name.split(".")[0] for name in names}:
                yield f"`{found.pop()}` reaches for the network", "Use the bundled data"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in NETWORK:
                yield f"`{module}` reaches for the network", "Use the bundled data"
            case ast.Constant(value=str(text)) if ABSOLUTE_PATH.match(text):
                yield f"an absolute path: {text!r}", "Use bundled.path(...) or a temporary folder"


def _ends_with_semicolon(source: str) -> bool:
    plain = re.sub(r"^[ \t]*[%!].*$", "pass", source, flags=re.M)
    blank = {tokenize.COMMENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.DEDENT}
    try:
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(plain).readline) if t.type not in blank]
    except (tokenize.TokenError, SyntaxError):
        return False
    return bool(tokens) and tokens[-1].string == ";"


# --- show ------------------------------------------------------------------------------------------------------------


def show(path: Path) -> str:
    """The notebook as text for `git diff`: sources, text outputs, and one short line for each picture."""
    lines = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], start=1):
        tags = " ".join(_tags(cell))
        lines.append(f"--- {number} {cell['cell_type']}{' ' + tags if tags else ''}")
        lines.append(_joined(cell["source"]))
        for out in cell.get("outputs", ()):
            if "ename" in out:
                lines.append(f"=> {out['ename']}: {_joined(out['evalue'])}")
            elif "text" in out:
                lines.append(f"=> {_joined(out['text'])}")
            for kind, value in sorted(out.get("data", {}).items()):
                text = _joined(value) if isinstance(value, str | list) else json.dumps(value, sort_keys=True)
                digest = hashlib.sha256(text.encode()).hexdigest()[:8]
                lines.append(f"=> {text}" if kind.startswith("text/") else f"=> <{kind} {len(text)} chars {digest}>")
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


# --- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of one command: 0, or 1 if a cell failed or a rule is broken."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("run", "execute and store"), ("check", "find broken rules without executing")):
        commands.add_parser(name, help=words).add_argument("files", nargs="*", type=Path, help="default: all notebooks")
    commands.add_parser("show", help="print as text, for git diff").add_argument("file", type=Path)
    copy = commands.add_parser("student", help="write copies without the solutions")
    copy.add_argument("folder", type=Path)
    copy.add_argument("files", nargs="*", type=Path, help="default: all notebooks")
    arguments = parser.parse_args(argv)
    if arguments.command == "show":
        sys.stdout.write(show(arguments.file))
        return 0
    files = arguments.files or sorted(NOTEBOOKS.glob("*.ipynb"))
    match arguments.command:
        case "run":
            return _run_all(files)
        case "check":
            findings = [finding for path in files for finding in check(path)]
            print("\n".join([*map(str, findings), f"{len(files)} notebooks checked"]))
            return int(any(finding.is_error for finding in findings))
        case "student":
            _copy_all(files, arguments.folder)
    return 0


def _copy_all(files: Sequence[Path], folder: Path) -> None:
    from llama_from_scratch.lessons.exercises import student

    for path in files:
        try:
            print(student(path, folder))
        except FileExistsError as kept:
            print(kept)


def _run_all(files: Sequence[Path]) -> int:
    status = 0
    for path in files:
        try:
            print(f"{path.name}: {'written' if run(path) else 'unchanged'}", flush=True)
        except CellFailed as error:
            print(f"error: {error}\n{path.name}: left as it was", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())

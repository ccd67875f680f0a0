"""The rules for a stored notebook: `check` lists the broken rules, without running anything.

The stored form keeps a second run from changing any byte. Outputs that vary from run to run, and
that this form cannot hide, break a rule.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_from_scratch.lessons.authoring.form import FOLDED, canonical, read_notebook, tags_of
from llama_from_scratch.lessons.exercises.reading import SOLUTION

COMMAND = "python -m llama_from_scratch.lessons.authoring"

TAGS = {"nbval-ignore-output", "raises-exception", "gpu", "slow", "exercise", "teacher-only",
        "parameters", FOLDED}

MAX_NOTEBOOK_BYTES = 500_000
GOOD_FIGURE_CHARS, MAX_FIGURE_CHARS = 60_000, 100_000
GOOD_CODE_LINES, MAX_CODE_LINES = 25, 40
MAX_OUTPUT_LINES = 60
CELLS_PER_IGNORED = 10

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./])/(?:home|root|Users|tmp|usr|opt|var|mnt|work|private)/\w|\b[A-Z]:\\\w")

NETWORK = {"urllib", "requests", "httpx", "http", "socket", "aiohttp", "huggingface_hub", "ftplib"}
LIVE_OUTPUT = {"clear_output", "display_id", "update_display"}


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """One broken rule: the place, the problem and its cure."""

    path: Path
    cell: int | None
    """Its position among all cells, counted from 1; None for the whole file."""
    rule: str
    cure: str
    is_error: bool = True

    def __str__(self) -> str:
        place = f"{self.path.name}" if self.cell is None else f"{self.path.name}, cell {self.cell}"
        return f"{'error' if self.is_error else 'hint'}: {place}: {self.rule}. {self.cure}."


def check(path: Path) -> list[Complaint]:
    """Returns a complaint for each rule that this stored notebook breaks, without running it."""
    nb = read_notebook(path)
    cells = list(enumerate(nb.cells, start=1))
    complaints = list(_check_file(path, nb))
    for number, cell in cells:
        of_code = _check_code(cell) if cell.cell_type == "code" else ()
        for rule, cure, is_error in (*_check_tags(cell), *of_code):
            complaints.append(Complaint(path=path, cell=number, rule=rule, cure=cure,
                                        is_error=is_error))
    return complaints


def _check_file(path: Path, nb: dict) -> Iterator[Complaint]:
    def complaint(rule: str, cure: str, cell: int | None = None) -> Complaint:
        return Complaint(path=path, cell=cell, rule=rule, cure=cure)

    rerun = f"Run `{COMMAND} run {path.name}`"
    raw = json.loads(path.read_text(encoding="utf-8"))
    code = [(number, cell)
            for number, cell in enumerate(raw["cells"], start=1) if cell["cell_type"] == "code"]
    for expected, (number, cell) in enumerate(code, start=1):
        if cell.get("execution_count") != expected:
            yield complaint(f"execution_count must be {expected}; got "
                            f"{cell.get('execution_count')}", rerun, number)
            break  # one complaint is enough: the notebook was not run from start to end
    if path.read_bytes() != canonical(nb).encode():
        yield complaint("the file is not in canonical form", rerun)
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        yield complaint(
            f"a notebook must have at most {MAX_NOTEBOOK_BYTES // 1000} kB; got "
            f"{path.stat().st_size // 1000} kB",
            "Draw fewer or smaller figures",
        )
    first = nb.cells[0] if nb.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield complaint("the first cell must be a Markdown cell that begins with a title",
                        'Start it with "# "', 1)
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    if not any(isinstance(node, ast.Assert) for source in sources for node in _nodes(source)):
        yield complaint("no cell has an assert",
                        "Assert that what the reader built equals the library's result")
    n_ignored = sum("nbval-ignore-output" in tags_of(cell) for cell in nb.cells)
    if n_ignored * CELLS_PER_IGNORED > max(len(sources), CELLS_PER_IGNORED):
        yield complaint(
            f"at most one code cell in {CELLS_PER_IGNORED} may have the tag nbval-ignore-output; "
            f"got {n_ignored} of {len(sources)}",
            "Print something that is the same in a second run",
        )


def _check_tags(cell: dict) -> Iterator[tuple[str, str, bool]]:
    for tag in tags_of(cell):
        if tag not in TAGS:
            yield f"unknown tag {tag!r}", f"Use one of {', '.join(sorted(TAGS))}", True


def _check_code(cell: dict) -> Iterator[tuple[str, str, bool]]:
    n_lines = sum(bool(line.strip()) for line in cell.source.splitlines())
    if n_lines > GOOD_CODE_LINES:
        rule = f"{n_lines} lines of code; {GOOD_CODE_LINES} are enough for one idea"
        yield rule, "Split the cell", n_lines > MAX_CODE_LINES
    if cell.source.count("### BEGIN SOLUTION") != len(SOLUTION.findall(cell.source)):
        yield "a solution block has no end", "End it with a line `### END SOLUTION`", True
    for rule, cure in _check_source(cell):
        yield rule, cure, True
    yield from _check_outputs(cell)


def _check_outputs(cell: dict) -> Iterator[tuple[str, str, bool]]:
    text, n_figures = [], 0
    for out in cell.outputs:
        data = out.get("data", {})
        if out.output_type == "error":
            text.append(out.evalue)
            if "raises-exception" not in tags_of(cell):
                yield (f"an error is stored: {out.ename}: {out.evalue}",
                       "Fix it, or give the cell the tag raises-exception", True)
        if out.output_type == "stream":
            text.append(out.text)
            if out.name == "stderr":
                yield (f"a warning is stored: {out.text.strip().splitlines()[0][:80]}",
                       "Remove its cause", True)
        text += [value for kind, value in data.items() if kind.startswith("text/")]
        figure = data.get("image/png")
        n_figures += figure is not None
        if figure is None and data.get("text/plain", "").startswith("<Figure size"):
            yield "the picture of a figure is missing", f"Run `{COMMAND} run`", True
        elif figure is not None and len(figure) > GOOD_FIGURE_CHARS:
            yield (
                f"a figure takes {len(figure) // 1000} kB; {GOOD_FIGURE_CHARS // 1000} are enough",
                "Draw it smaller, or with image.interpolation nearest",
                len(figure) > MAX_FIGURE_CHARS,
            )
    has_error = any(out.output_type == "error" for out in cell.outputs)
    if "raises-exception" in tags_of(cell) and not has_error:
        yield ("the cell has the tag raises-exception but raised nothing",
               "Remove the tag, or raise an error", True)
    if "plt.show()" in cell.source and not n_figures:
        yield "the cell shows a figure, but none is stored", f"Run `{COMMAND} run`", True
    shown = "\n".join(text)
    n_lines = len(shown.splitlines())
    if n_lines > MAX_OUTPUT_LINES:
        yield (f"{n_lines} lines of output; at most {MAX_OUTPUT_LINES} are allowed",
               "Show only the part that matters", True)
    if "nbval-ignore-output" not in tags_of(cell):
        for pattern, what in ((ADDRESS, "a memory address"), (ABSOLUTE_PATH, "an absolute path")):
            if found := pattern.search(shown):
                yield (f"{what} is printed: {found[0]}",
                       "Print something that is the same on another machine", True)


def _nodes(source: str) -> list[ast.AST]:
    """Returns the syntax tree of a cell, without IPython's magic lines."""
    plain = re.sub(r"^[ \t]*[%!].*$", "pass", source, flags=re.M)
    try:
        return list(ast.walk(ast.parse(plain)))
    except SyntaxError:
        return []


def _check_source(cell: dict) -> Iterator[tuple[str, str]]:
    for line in cell.source.splitlines():
        if re.match(r"\s*(%%?time(it)?\b)", line):
            yield (f"`{line.strip()}` prints something else in every run",
                   "Measure, and write the conclusion in Markdown")
        if re.match(r"\s*[!%]\s*pip\b", line):
            yield (f"`{line.strip()}` installs packages, which a lesson must not do",
                   "Add the package to pyproject.toml")
    if _ends_with_semicolon(cell.source):
        yield ("the cell ends with `;`, which does not hide its output from the test",
               "End with plt.show(), or assign to _")
    for node in _nodes(cell.source):
        match node:
            case (ast.Name(id=name) | ast.Attribute(attr=name)
                  | ast.keyword(arg=name)) if name in LIVE_OUTPUT:
                yield (f"`{name}` changes output that the stored notebook keeps",
                       "Print each line once")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="time")):
                yield ("`time.time()` reads a clock that can be set back",
                       "Use time.perf_counter(), and print no time")
            case ast.Call(func=ast.Name(id="input")):
                yield "`input()` waits for a person", "Use a widget, or a variable to edit"
            case ast.ImportFrom(module="tqdm"):
                yield ("a text progress bar prints its speed",
                       "Print every k steps, or use the library's own bar")
            case ast.Import(names=names) if found := NETWORK & {
                    name.name.split(".")[0] for name in names}:
                yield f"`{found.pop()}` uses the network", "Use the bundled data"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in NETWORK:
                yield f"`{module}` uses the network", "Use the bundled data"
            case ast.Constant(value=str(text)) if ABSOLUTE_PATH.match(text):
                yield (f"an absolute path is used: {text!r}",
                       "Use bundled.path(...) or a temporary folder")


def _ends_with_semicolon(source: str) -> bool:
    plain = re.sub(r"^[ \t]*[%!].*$", "pass", source, flags=re.M)
    blank = {tokenize.COMMENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.DEDENT}
    try:
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(plain).readline)
                  if t.type not in blank]
    except (tokenize.TokenError, SyntaxError):
        return False
    return bool(tokens) and tokens[-1].string == ";"

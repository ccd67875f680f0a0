"""The map of the course in CONTRIBUTING.md is complete and true, and the README lists its chapters.

Every notebook has its row, and what a row names exists.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["number", "notebook", "module", "test", "paper"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Row(NamedTuple):
    """One line of the map; each column as the paths or addresses it names."""

    number: str
    notebook: list[str]
    module: list[str]
    test: list[str]
    paper: list[str]


def read_map(text):
    """The rows of the one table whose columns are COLUMNS, in this order; ValueError without it."""
    lines = [[cell.strip() for cell in line.strip().strip("|").split("|")]
             for line in text.splitlines()]
    starts = [n for n, cells in enumerate(lines)
              if [cell.strip("*` ").lower() for cell in cells] == COLUMNS]
    if len(starts) != 1:
        raise ValueError(f"CONTRIBUTING.md must hold one table with the columns {COLUMNS}; "
                         f"found {len(starts)}")
    rows = []
    for cells in lines[starts[0] + 2 :]:
        if len(cells) != len(COLUMNS):
            break
        rows.append(Row(re.sub(r"\D", "", cells[0]), *map(named, cells[1:])))
    return rows


def named(cell):
    """What a cell names: the targets of its links and the words in backticks outside of them."""
    return re.findall(r"`([^`]+)`", LINK.sub(r"`\1`", cell))


def problems(rows, root=ROOT):
    """A sentence for each thing in the map that is missing or untrue."""
    found = []
    listed = [Path(name).stem for row in rows for name in row.notebook]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if listed.count(path.stem) != 1:
            found.append(f"{path.name} has {listed.count(path.stem)} rows, it needs one")
    for row in rows:
        label = f"row {row.number}"
        if len(row.notebook) != 1:
            found.append(f"{label} names {len(row.notebook)} notebooks, it needs one")
            continue
        number, _, topic = Path(row.notebook[0]).stem.partition("_")
        if number != row.number:
            found.append(f"{label} has the number {row.number} and the notebook {row.notebook[0]}")
        found += [f"{label}: {path} does not exist"
                  for path in (*row.notebook, *row.module, *row.test) if not exists(path, root)]
        if number == "00":
            continue
        for column in ("module", "test", "paper"):
            if not getattr(row, column):
                found.append(f"{label} names no {column}")
        names = {topic, *topic.split("_")}  # a chapter on two modules carries both names
        modules = {part for path in row.module for part in Path(path).with_suffix("").parts}
        if row.module and not names & modules:
            found.append(f"{label}: no module is called {topic}, as its notebook is")
    return found


def exists(path, root):
    folders = ("", "notebooks", "llama_from_scratch", "tests")
    return any((root / folder / path).exists() for folder in folders)


def test_course_map_is_complete_and_true():
    assert problems(read_map((ROOT / "CONTRIBUTING.md").read_text())) == []


def test_readme_lists_every_chapter_in_order_with_its_minutes():
    rows = re.findall(r"^\| (\d\d) \| \[[^\]]+\]\(notebooks/([^)]+)\) \| [^|]+\? \| (\d+) \|$",
                      (ROOT / "README.md").read_text(), re.MULTILINE)
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [name for _, name, _ in rows] == [path.name for path in paths]
    assert [number for number, _, _ in rows] == [path.name[:2] for path in paths]


# --- the reader itself ----------------------------------------------------------------------------

TABLE = """\
# Course

| Number | Notebook | Module | Test | Paper |
|---:|---|---|---|---|
| 00 | [A tour](notebooks/00_tour.ipynb) | - | - | - |
| 12 | [RoPE](notebooks/12_rope.ipynb) | [`rope`](llama_from_scratch/rope.py), `mask.py` \
| `test_rope.py` | [RoFormer](x) |

Words after it | with a bar.
"""


@pytest.fixture
def course(tmp_path):
    for path in ("notebooks/00_tour.ipynb", "notebooks/12_rope.ipynb", "tests/test_rope.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "llama_from_scratch").mkdir()
    for name in ("rope.py", "mask.py"):
        (tmp_path / "llama_from_scratch" / name).touch()
    return tmp_path


def test_rows_are_read_with_their_links_and_words(course):
    tour, rope = read_map(TABLE)
    assert tour == Row("00", ["notebooks/00_tour.ipynb"], [], [], [])
    assert rope.module == ["llama_from_scratch/rope.py", "mask.py"] and rope.paper == ["x"]
    assert problems([tour, rope], course) == []


@pytest.mark.parametrize(("old", "new", "words"), [
    ("notebooks/12_rope.ipynb", "notebooks/12_ropes.ipynb", "12_rope.ipynb has 0 rows"),
    ("| 12 |", "| 13 |", "row 13 has the number 13"),
    ("`mask.py`", "`masks.py`", "row 12: masks.py does not exist"),
    ("`test_rope.py`", "`test_ropes.py`", "row 12: test_ropes.py does not exist"),
    ("`test_rope.py`", "-", "row 12 names no test"),
    ("[RoFormer](x)", "-", "row 12 names no paper"),
    ("[`rope`](llama_from_scratch/rope.py), `mask.py`", "`mask.py`", "no module is called rope"),
    ("[RoPE](notebooks/12_rope.ipynb)", "RoPE", "row 12 names 0 notebooks"),
])
def test_untrue_map_is_seen(course, old, new, words):
    assert any(words in line for line in problems(read_map(TABLE.replace(old, new)), course))


def test_text_without_the_map_is_refused():
    with pytest.raises(ValueError, match="must hold one table"):
        read_map("# Llama\n")

"""The proof finds blanks that pass, solutions that fail, mistakes that no check names, and copies
that differ in more than their blanks.
"""

import json
from pathlib import Path

import pytest
import turn_mistakes
from turn_chapter import BEFORE, CELLS, CODE, MARKDOWN, cell, swapped, write

from llama_from_scratch.lessons.authoring import proof
from llama_from_scratch.lessons.authoring.executing import run
from llama_from_scratch.lessons.authoring.proof import prove, prove_copy
from llama_from_scratch.lessons.check.known import Mistake
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_proof_runs_stub_and_solution_in_one_kernel(chapter):
    assert prove(chapter) == []


@pytest.mark.parametrize(("old", "new", "words"), [
    ("    assert turned(3) == -3", "    pass",
     "must print that it is not tried yet, but it raised nothing"),
    ("    assert turned(3) == -3", "    try: turned(3)\n    except NotImplementedError: pass",
     "12.1 must print that it is not tried yet"),
    ("    assert turned(3) == -3", "    assert not turned.__code__.co_names",
     "12.1 must print that it is not tried yet, but it raised AssertionError"),
    ("\n\nwith attempt", "\n\nturned(3)\nwith attempt",
     "but it raised NotImplementedError. Call the"),
    ("\n    assert turned", "\n    assert no_such_name or turned", "does not run to its end"),
    ("def turned(x):\n", "def turned(x, y):\n", "does not run to its end"),
    ('with attempt("12.1"):', "if True:",
     'exercise 12.1 must check inside `with attempt("12.1"):`'),
])
def test_proof_finds_a_blank_that_passes_and_a_solution_that_fails(tmp_path, old, new, words):
    cells = swapped(old, new)[:5]
    [problem] = prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert words in problem


@pytest.mark.parametrize(("check", "words"), [
    ("assert turned(3) == -3", "refuses a mistake, but does not name it: the sign is left out"),
    ("assert abs(turned(3)) == 3", "accepts a known mistake: the sign is left out"),
    ("check.function(turned, lambda x: -x, inputs=[3])", None),
])
def test_proof_shows_each_known_mistake_to_the_check(tmp_path, monkeypatch, check, words):
    mistake = Mistake(of="turned", words="the sign is left out", wrong=turn_mistakes.sign_left_out)
    monkeypatch.setattr(proof.mistakes, "of_chapter", lambda chapter: {"12.1": [mistake]})
    cells = [cell | {"source": cell["source"].replace("assert turned(3) == -3", check)}
             for cell in CELLS[:5]]
    folder = str(Path(turn_mistakes.__file__).parent)
    cells[1] = cells[1] | {"source": f"import sys\nsys.path.append({folder!r})\n" + BEFORE
                           + turn_mistakes.KNOWN_IN_THE_KERNEL}
    problems = prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert len(problems) == (words is not None) and all(words in problem for problem in problems)


def test_proof_notices_a_blank_that_spoils_what_the_solution_needs(tmp_path):
    cells = [cell(MARKDOWN, markdown=True), cell(BEFORE + "\nbox = [1]"),
             cell("box.pop()\n" + CODE, tags=["exercise"])]
    [problem] = prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert "does not run to its end if blanks and mistakes are run" in problem


def test_proof_notices_a_cell_that_shows_something_else_again(tmp_path, tmp_path_factory):
    times = tmp_path_factory.mktemp("outside") / "times"
    slow = "import time\ntime.sleep(1.1)\n"
    cells = [*CELLS[:5], cell("import itertools\ncount = globals().get('count') or "
                              "itertools.count()\nprint(next(count))"),
             cell(slow + "print(next(count))"),
             # a long cell that reads what it did not change is passed over
             cell(slow + "with open(FILE, 'a') as file:\n    print(file.write('x'))".replace(
                 "FILE", repr(str(times))))]
    assert prove(write(tmp_path / "12_turn.ipynb", *cells)) == [
        "cell 6 shows something else when it is run again: '0', then '1'",
        "cell 7 shows something else when it is run again: '2', then '3'"]
    assert times.read_text() == "x"


def test_proof_notices_a_cell_that_shows_something_else_than_is_stored(chapter):
    run(chapter)
    assert prove(chapter) == []
    content = json.loads(chapter.read_text())
    content["cells"][7]["outputs"][0]["text"] = "before\n"
    chapter.write_text(json.dumps(content))
    assert prove(chapter) == [
        "cell 8 shows something else than is stored: 'after', stored 'before'"]


@pytest.mark.parametrize("change", ["a line outside", "forgets", "solution left", "markdown",
                                    "cell lost", "output left"])
def test_proof_notices_a_copy_that_differs_in_more_than_its_blanks(chapter, monkeypatch, change):
    run(chapter)
    plain = proof.student

    def careless(path, folder):
        copy = plain(path, folder)
        content = json.loads(copy.read_text())
        cells = content["cells"]
        source = cells[3]["source"] = "".join(cells[3]["source"])
        match change:
            case "a line outside":
                cells[3]["source"] = source.replace("turned(3) == -3", "turned(3) == 3")
            case "forgets":
                cells[1]["source"] = BEFORE
            case "solution left":
                cells[3]["source"] = source.replace("    raise", "    return -x\n    raise")
            case "markdown":
                cells[2]["source"] = "".join(cells[2]["source"]).replace("easy", "hard")
            case "cell lost":
                del cells[1]
            case "output left":
                cells[6]["outputs"] = [{"name": "stdout", "output_type": "stream",
                                        "text": "after\n"}]
        copy.write_text(json.dumps(content))
        return copy

    monkeypatch.setattr(proof, "student", careless)
    assert len(prove_copy(chapter)) == 1


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_copy_of_each_chapter_differs_only_in_its_blanks(path):
    assert prove_copy(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_outputs_are_as_stored_blanks_wait_mistakes_are_named_and_cells_run_twice(path):
    assert prove(path) == []

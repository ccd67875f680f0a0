"""The proof finds stubs that pass, solutions that fail, and copies that differ in more than their
blanks.
"""

import json

import pytest
from turn_chapter import CODE, MARKDOWN, cell, swapped, write

from llama_from_scratch.lessons.authoring import proof
from llama_from_scratch.lessons.authoring.executing import run
from llama_from_scratch.lessons.authoring.proof import prove, prove_copy
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS, read_exercises

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_proof_runs_stub_and_solution_in_one_kernel(chapter):
    assert prove(chapter) == []


@pytest.mark.parametrize(("old", "new", "words"), [
    ("assert turned(3) == -3", "", "the stub of exercise 12.1 must raise "
                                   "NotImplementedError and raised nothing"),
    ("assert turned(3) == -3", "try: turned(3)\nexcept NotImplementedError: "
                               "pass", "12.1 must raise NotImplementedError"),
    ("assert turned(3) == -3", "assert not turned.__code__.co_names", "12.1 must raise "
                                                                      "NotImplementedError "
                                                                      "and raised Assert"),
    ("\nassert turned", "\nassert no_such_name or turned", "does not run to its end"),
    ("def turned(x):\n", "def turned(x, y):\n", "does not run to its end"),
    ("assert turned(3) == -3", "turned(3, 4)", "does not run to its end"),
])
def test_proof_finds_a_stub_that_passes_and_a_solution_that_fails(tmp_path, old, new, words):
    cells = swapped(old, new)[:5]
    [problem] = prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert words in problem


def test_proof_notices_a_stub_that_spoils_what_the_solution_needs(tmp_path):
    cells = [cell(MARKDOWN, markdown=True), cell("box = [1]"),
             cell("box.pop()\n" + CODE, tags=["exercise"])]
    [problem] = prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert "does not run to its end with stubs tried first" in problem


@pytest.mark.parametrize("change", ["a line outside", "no recording", "solution left", "markdown",
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
            case "no recording":
                cells[3]["source"] = source.partition("\n\n#")[0]
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
@pytest.mark.parametrize("path", [path for path in ALL if read_exercises(path)],
                         ids=lambda path: path.stem)
def test_each_stub_fails_and_each_solution_passes(path):
    assert prove(path) == []

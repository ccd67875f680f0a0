"""Each missing part of a chapter is named."""

import pytest
from turn_chapter import CELLS, cell, write

from llama_from_scratch.lessons.authoring.form import canonical, read_notebook
from llama_from_scratch.lessons.authoring.parts import missing_parts
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS

MODEL = NOTEBOOKS / "13_attention.ipynb"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[1-9]*.ipynb")), ids=lambda p: p.stem)
def test_every_chapter_has_all_its_parts(path):
    assert missing_parts(path) == []


@pytest.mark.parametrize(("old", "new", "words"), [
    ('predict.number("13.a"', 'predict.count("13.a"', "the next cell takes no guess"),
    ('predict.choice("13.b"', 'predict.choice("13.x"', "questions must be named 13.a, 13.b"),
    ('predict.compare("13.c"', 'predict.compare("13.d"', "each question must be compared once"),
    ("*Stronger hint: divide", "*divide", "13.1 has 1 of 2 hints"),
    ('with attempt("13.2"):', "if True:", "13.2 must check inside"),
    ("    check.gradients(multi_query", "    assert multi_query\n    check.gradients(multi_query",
     "13.3 ends in an assert without words"),
    ("check.numbers(", "print(", "numbers you should see"),
    ('predict.surprises("13")', "pass", "surprises"),
    ('milestones.models("13"', 'milestones.models("12"', "must have a milestone"),
    ("figures.", "pictures.", "must have 2 drawings; got 0"),
    ("# The largest weight", "fig = 1 # The largest", "is folded, so it must begin with a comment"),
])
def test_each_part_that_is_missing_is_named(tmp_path, old, new, words):
    nb = read_notebook(MODEL)
    assert any(old in cell.source for cell in nb.cells)
    for each in nb.cells:
        each.source = each.source.replace(old, new)
    path = tmp_path / MODEL.name
    path.write_text(canonical(nb), encoding="utf-8")
    found = missing_parts(path)
    assert any(words in problem for problem in found), found


def test_exercises_without_listed_mistakes_are_named(tmp_path):
    path = write(tmp_path / "notebooks" / "98_turn.ipynb", *CELLS, cell("pass"))
    assert "98.1 lists 0 of 3 known mistakes" in missing_parts(path)

"""Exercises are read from the notebooks, and one that is not in the fixed form is refused."""

import pytest
from turn_chapter import CELLS, CODE, cell, swapped, write

from llama_from_scratch.lessons import exercises


def test_exercise_is_read_with_all_that_the_notebook_says(chapter):
    first, second, third = exercises.read_exercises(chapter)
    assert (first.id, first.chapter, first.stars, first.minutes) == ("12.1", "12_turn", 1, 5)
    assert (first.kind, first.cell, third.cell) == ("", 4, 6)
    assert first.task == "Turn *back*. It takes one line, $a * b$."
    assert first.title == "Turn *back*."
    assert first.hints == ("what does `-x * 1` do?",)
    assert first.solution == "if x:\n    return -x\nreturn x"
    assert first.stub == ('def turned(x):\n    raise NotImplementedError("return minus x")\n\n'
                          'with attempt("12.1"):\n    assert turned(3) == -3')
    assert first.opening == 'with attempt("12.1"):'
    assert (second.minutes, second.kind, second.cell) == (None, "change and rerun", None)
    assert second.hints == ("look.", "look twice.")
    assert second.task == "Put 3 for 2: what\nchanges? And why?"
    assert second.title == "Put 3 for 2: what\nchanges?"
    assert (third.id, third.stars, third.minutes, third.kind) == ("12.3", 3, 20, "break it")
    assert 'raise NotImplementedError("write this part' in third.stub


@pytest.mark.parametrize(("old", "new", "words"), [
    ("(★, 5 min)", "(5 min)",
     r"cell 3: an exercise must open like .*; got '\*\*Exercise 1 \(5 min\)"),
    ("(★, 5 min)", "(★)", "minutes"),
    ("(★★, change", "(★★, sing", "got .*sing and rerun"),
    ("Exercise 1", "Exercise 2", "got 12.2 instead of number 1"),
    ("**Exercise", "**Example", "each with one cell; got a cell without such an opening"),
    ("### BEGIN", "# BEGIN", "got none. A reader's copy"),
])
def test_exercise_in_another_form_is_refused(tmp_path, old, new, words):
    path = write(tmp_path / "12_turn.ipynb", *swapped(old, new))
    with pytest.raises(ValueError, match=words):
        exercises.read_exercises(path)


def test_solution_without_tag_and_file_without_cells_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must have the tag `exercise`; add it"):
        exercises.read_exercises(write(tmp_path / "12_turn.ipynb", CELLS[2], cell(CODE)))
    (tmp_path / "13_bad.ipynb").write_text("{")
    with pytest.raises(ValueError, match="is not a notebook"):
        exercises.read_exercises(tmp_path / "13_bad.ipynb")


@pytest.mark.parametrize("name", ["12.9", "99.1", "12", "", "..", 12.1, "12.1 "])
def test_unknown_exercise_is_refused_with_those_there_are(place, name):
    with pytest.raises(ValueError, match=r'such as "12.1" with the quotes; got .* 12'):
        exercises.find(name, folder=place["folder"])


def test_course_without_its_repository_is_told_apart(tmp_path):
    with pytest.raises(ValueError, match="Clone the repository"):
        exercises.find("12.1", folder=tmp_path / "nowhere")


def test_every_chapter_has_three_to_six_exercises_and_one_that_changes_something():
    for stem, found in exercises.chapters().items():
        assert 3 <= len(found) <= 6, stem
        assert any(exercise.kind for exercise in found), stem

"""What a reader asks for: hints, solutions, to be ticked off, and how much is done."""

import dataclasses
import json

import pytest

from llama_from_scratch.lessons import exercises
from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.passing import left
from llama_from_scratch.lessons.exercises.reading import find


def test_hints_and_solution_are_shown_on_demand_as_markdown(place):
    folder = place["folder"]
    assert (exercises.hint("12.1", folder=folder)._repr_markdown_() == "**Hint for 12.1:** "
                                                                       "what does `-x * 1` do?")
    first, second = (exercises.hint("12.2", number=n, folder=folder) for n in (1, 2))
    assert "look." in first and "stronger one" in first and "twice" not in first
    assert second == "**Stronger hint for 12.2:** look twice."
    with pytest.raises(ValueError, match=r'has 2 hints.*exercises.solution\("12.2"\)'):
        exercises.hint("12.2", number=3, folder=folder)
    assert "there is none" in exercises.hint("12.3", folder=folder)
    code = "```python\nif x:\n    return -x\nreturn x\n```"
    assert code in exercises.solution("12.1", folder=folder)
    assert "no code to write" in exercises.solution("12.2", folder=folder)


def test_passed_exercise_is_recorded_once_and_shown(place, capsys):
    assert "0 of 3 exercises done; 25 minutes left" in exercises.progress_table(**place)
    for name in ("12.2", "12.1", "12.1"):
        assert exercises.passed(name, **place) is None
    assert capsys.readouterr().out.splitlines() == [
        "✓ exercise 12.2 is done: 1 of 3 in this chapter",
        "✓ exercise 12.1 is done: 2 of 3 in this chapter",
        "✓ exercise 12.1 is done: 2 of 3 in this chapter"]
    assert exercises.progress_table(**place).splitlines() == [
        "12 turn    ■■□       20 minutes left", "", "2 of 3 exercises done; 20 minutes left",
        "⚑ 0 of 1 milestones reached"]
    content = json.loads(place["file"].read_text())
    assert (content["format"], content["passed"]) == (2, ["12.1", "12.2"])
    exercises.passed("12.3", **place)
    assert exercises.progress_table(**place).splitlines()[0].endswith("■■■       done")
    progress.change(lambda now: dataclasses.replace(now, milestones=frozenset({"12"})),
                    place["file"])
    table = exercises.progress_table(**place)
    assert table.startswith("12 turn  ⚑ ■■■") and "⚑ 1 of 1 milestones reached" in table


def test_unknown_exercise_is_not_recorded(place):
    with pytest.raises(ValueError, match="12.7"):
        exercises.passed("12.7", **place)
    assert not place["file"].exists()


def test_looking_at_progress_writes_nothing(place):
    exercises.progress_table(**place)
    assert not place["file"].parent.exists()


def test_record_that_cannot_be_written_spoils_no_right_answer(place, capsys):
    place["file"].parent.write_text("a file where the folder should be")
    exercises.passed("12.1", **place)
    assert "✓ exercise 12.1 is done, but this could not be recorded" in capsys.readouterr().out


@pytest.mark.parametrize(("minutes", "words"), [
    (55, "55 minutes left"), (60, "1 h left"), (135, "2 h 15 min left")])
def test_the_time_that_is_left_has_no_zeros(place, minutes, words):
    exercise = dataclasses.replace(find("12.1", folder=place["folder"]), minutes=minutes)
    assert left([exercise], frozenset()) == words
    assert left([exercise], frozenset({"12.1"})) == "done"

"""The record of what is done survives damage, crashes and two writers."""

import multiprocessing
from pathlib import Path

import pytest

from llama_from_scratch import files
from llama_from_scratch.lessons import exercises
from llama_from_scratch.lessons.exercises import progress


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1, "passed": [12.1]}',
    b'{"format": 2, "passed": []}', b'{"format": 1}', b'{"format": 3, "passed": []}',
    b'{"passed": ["12.1"]}',
    b'{"format": 2, "passed": [], "milestones": [], "tries": {"12.1": "x"}, "helped": {}, '
    b'"guesses": {}}',
])
def test_damaged_record_is_kept_aside_and_a_new_one_begins(place, capsys, content):
    file = place["file"]
    file.parent.mkdir()
    file.write_bytes(content)
    exercises.passed("12.1", **place)
    words = "could not be read. The old file is kept as progress.damaged-1.json"
    assert words in capsys.readouterr().out
    assert (file.parent / "progress.damaged-1.json").read_bytes() == content
    assert progress.load(file).passed == {"12.1"}
    file.write_bytes(content)
    assert words.replace("-1", "-2") in exercises.progress_table(**place)
    assert (file.parent / "progress.damaged-2.json").read_bytes() == content
    assert "damaged" not in exercises.progress_table(**place)


def test_a_record_of_the_first_edition_is_read_and_goes_on(place):
    file = place["file"]
    file.parent.mkdir()
    file.write_text('{"format": 1, "passed": ["12.1"]}')
    assert progress.load(file) == progress.Progress(passed=frozenset({"12.1"}))
    assert progress.add("12.2", file).passed == {"12.1", "12.2"}
    assert progress.load(file).passed == {"12.1", "12.2"}


def test_everything_that_is_recorded_comes_back(place):
    now = progress.Progress(
        passed=frozenset({"12.1"}), milestones=frozenset({"12"}), tries={"12.1": 3},
        helped={"12.1": 1}, guesses={"12.a": {"guess": 4.0, "answer": 8, "surprise": 0.7}})
    place["file"].parent.mkdir()
    assert progress.change(lambda _: now, place["file"]) == now == progress.load(place["file"])


def test_crash_while_writing_loses_nothing(place, monkeypatch):
    exercises.passed("12.1", **place)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            exercises.passed("12.2", **place)
    assert progress.load(place["file"]).passed == {"12.1"}


def add_many(file, first):
    for number in range(first, first + 40):
        progress.add(f"12.{number}", file)


def test_two_processes_at_once_lose_nothing(tmp_path):
    file = tmp_path / "progress.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(file, first)) for first in (0, 1000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(progress.load(file).passed) == 80
    assert [path.name for path in Path(tmp_path).iterdir()] == ["progress.json"]

"""Nothing is kept before `remember`, and a disk that refuses spoils no lesson."""

import dataclasses

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.learner import remembering


def with_one(now):
    return dataclasses.replace(now, passed=now.passed | {"13.1"})


def test_nothing_is_kept_until_asked(tmp_path):
    assert remembering.kept_file() is None and remembering.note(with_one) is None
    assert remembering.now() == progress.Progress()


def test_changes_are_kept_in_the_file(reader):
    assert remembering.note(with_one).passed == {"13.1"}
    assert progress.load(reader) == remembering.now() == progress.Progress(
        passed=frozenset({"13.1"}))


def test_the_default_is_the_record_of_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "PROGRESS", tmp_path / "p.json")
    try:
        remembering.remember()
        assert remembering.kept_file() == tmp_path / "p.json"
    finally:
        remembering.forget()


def test_disk_that_refuses_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file where the folder should be")
    try:
        remembering.remember(tmp_path / "runs" / "progress.json")
        assert remembering.note(with_one) is None
    finally:
        remembering.forget()
    assert capsys.readouterr().out.startswith("what you did could not be recorded: ")

from llama_from_scratch.__main__ import main


def test_progress_shows_the_exercises_and_ticks_off_by_hand(tmp_path, capsys, monkeypatch):
    from llama_from_scratch.lessons.exercises import progress

    monkeypatch.setattr(progress, "PROGRESS", tmp_path / "progress.json")
    assert main(["progress"]) == 0
    before = capsys.readouterr().out
    assert "12 rope" in before and "0 of " in before
    assert main(["progress", "--done", "12.4"]) == 0
    after = capsys.readouterr().out
    assert after.startswith("✓ exercise 12.4 is done")
    assert "1 of " in after and after.count("■") == 1
    assert main(["progress", "--done", "12.99"]) == 2
    assert "Chapter 12 has the exercises 12.1" in capsys.readouterr().err

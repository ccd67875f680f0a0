"""The command: what it prints, and its exit status."""

from tiny_notebooks import edit

from llama_from_scratch.lessons.authoring.__main__ import main


def test_command_check_fails_on_a_broken_rule_and_says_where(tiny, capsys):
    assert main(["check", str(tiny)]) == 0
    edit(tiny, lambda nb: nb["cells"][1].update(execution_count=None))
    assert main(["check", str(tiny)]) == 1
    assert "12_tiny.ipynb, cell 2: execution_count must be 1" in capsys.readouterr().out


def test_command_makes_the_copy(chapter, tmp_path, capsys):
    assert main(["student", str(tmp_path / "out"), str(chapter)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / '12_turn.ipynb'}\n"

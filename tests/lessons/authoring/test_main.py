"""The command: what it prints, and its exit status."""

from tiny_notebooks import cell, edit, write

from llama_from_scratch.lessons.authoring.__main__ import main


def test_command_check_fails_on_a_broken_rule_and_says_where(tiny, capsys):
    assert main(["check", str(tiny)]) == 0
    edit(tiny, lambda nb: nb["cells"][1].update(execution_count=None))
    assert main(["check", str(tiny)]) == 1
    assert "12_tiny.ipynb, cell 2: execution_count must be 1" in capsys.readouterr().out


def test_command_makes_the_copy(chapter, tmp_path, capsys):
    assert main(["student", str(tmp_path / "out"), str(chapter)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / '12_turn.ipynb'}\n"


def test_command_twice_names_the_cell_that_shows_something_else(tmp_path, capsys):
    good = write(tmp_path / "good.ipynb", cell("x = 1\nprint(x)"))
    bad = write(tmp_path / "bad.ipynb", cell("y = [0]"), cell("y.append(1)\nprint(y)"))
    before = bad.read_bytes()
    assert main(["twice", str(good)]) == 0
    assert main(["twice", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "good.ipynb: each cell can be run twice\nbad.ipynb: cell 2 shows something else" in out
    assert bad.read_bytes() == before

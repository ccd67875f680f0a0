import shutil

import pytest

from llama_from_scratch.__main__ import main


def test_inspect_prints_the_table(talker, capsys):
    assert main(["inspect", talker]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["format"] == "Hugging Face" and rows["chat format"] == "Llama 3.1"
    assert "llama-3.1" in rows["family"]


def test_inspect_tells_of_a_license_and_lets_it_say_nothing_to_the_terminal(
    talker, tmp_path, capsys
):
    shutil.copytree(talker, tmp_path / "m")
    (tmp_path / "m" / "LICENSE.txt").write_text("\x1b]0;X\x07 MIT License\n")
    assert main(["inspect", str(tmp_path / "m")]) == 0
    shown = capsys.readouterr().out
    assert r"LICENSE.txt: \x1b]0;X\x07 MIT License" in shown and "\x1b" not in shown


@pytest.mark.parametrize(("command", "message"), [
    (["inspect", "nowhere"], "an existing path or a name"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)

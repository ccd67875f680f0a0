import pytest

from llama_from_scratch.__main__ import main


def test_inspect_prints_the_table(talker, capsys):
    assert main(["inspect", talker]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["format"] == "Hugging Face" and rows["chat format"] == "Llama 3.1"
    assert "llama-3.1" in rows["family"]


@pytest.mark.parametrize(("command", "message"), [
    (["inspect", "nowhere"], "as a path it is not there"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)

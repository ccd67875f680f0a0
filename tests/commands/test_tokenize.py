import pytest
from tiny_checkpoints import tokenizer_for

from llama_from_scratch.__main__ import main
from llama_from_scratch.checkpoint import native


def test_tokenize_reads_the_tokenizer_of_any_format(talker, capsys):
    assert main(["tokenize", "the cat", "--model", talker]) == 0
    ids = [int(row.split()[0]) for row in capsys.readouterr().out.splitlines()[:-1]]
    assert ids == tokenizer_for("llama-3.1").encode("the cat")


def test_tokenize_shows_each_piece_and_its_id(trained, capsys):
    tokenizer = native.load_tokenizer(trained / "run")
    (trained / "note.txt").write_bytes("The cat é".encode())
    for source in (["The cat é"], ["--file", str(trained / "note.txt")]):
        assert main(["tokenize", *source, "--model", str(trained / "run")]) == 0
        *rows, total = capsys.readouterr().out.splitlines()
        ids = tokenizer.encode("The cat é")
        assert [int(row.split()[0]) for row in rows] == ids
        assert total == f"{len(ids)} tokens for 10 bytes: {10 / len(ids):.2f} bytes per token"
        assert rows[-1].endswith(r"b'\xa9'"), "half a character is shown as bytes"


@pytest.mark.parametrize(("command", "message"), [
    (["tokenize", "--file", "nowhere.txt", "--model", "{run}"],
     "a text file at nowhere.txt; it is missing"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)

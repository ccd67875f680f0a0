import os
import subprocess
import sys

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


def test_tokenize_reads_files_of_tokenizers_by_themselves(talker, tmp_path, capsys):
    ranks, pieces = tokenizer_for("llama-3.1"), tokenizer_for("llama-2")
    pieces.save_llama2c(tmp_path / "tok520.bin")
    pieces.save(tmp_path / "tokenizer.model")
    ranks.save(tmp_path / "ranks.model")
    for arguments, tokenizer in ((["tok520.bin"], pieces), (["tokenizer.model"], pieces),
                                 (["ranks.model", "--ranks", "264"], ranks),
                                 ([f"{talker}/tokenizer.json"], ranks)):
        path, *more = arguments
        assert main(["tokenize", "the cat", "--model", str(tmp_path / path), *more]) == 0
        ids = [int(row.split()[0]) for row in capsys.readouterr().out.splitlines()[:-1]]
        assert ids == tokenizer.encode("the cat")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_tokens_reach_any_terminal_and_never_as_control_sequences(encoding, tmp_path):
    tokenizer_for("llama-2").save(tmp_path / "t")  # has ¡ to þ as pieces
    text = "é \x1b]0;X\x07 \u4e2d"
    done = subprocess.run(
        [sys.executable, "-m", "llama_from_scratch", "tokenize", text, "--model", tmp_path / "t"],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True)
    shown = done.stdout.decode(encoding)
    assert ("'é'" in shown) == (encoding != "ascii") and ("'\\xe9'" in shown) == (
        encoding == "ascii")
    assert b"\x1b" not in done.stdout and b"\x07" not in done.stdout
def test_names_of_special_tokens_are_tokens_only_if_asked_for(talker, capsys):
    command = ["tokenize", "a<|eot_id|>", "--model", talker]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "contains <|eot_id|>, read as plain text" in shown.err
    assert main([*command, "--special"]) == 0
    shown = capsys.readouterr()
    tokenizer = tokenizer_for("llama-3.1")
    assert shown.err == "" and shown.out.splitlines()[1].split() == [
        str(tokenizer.special_ids["<|eot_id|>"]), "<|eot_id|>"]


@pytest.mark.parametrize(("command", "message"), [
    (["tokenize", "--file", "nowhere.txt", "--model", "{run}"],
     "a text file at nowhere.txt; it is missing"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(command, message, refused):
    refused(command, message)

import pytest
from command_line import SMALL, TEXT
from tiny_checkpoints import chat_tokenizer_for, tiny

from llama_from_scratch.__main__ import main
from llama_from_scratch.checkpoint.convert import write


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a text and, in run/, what `llama train` made of it."""
    folder = tmp_path_factory.mktemp("main")
    (folder / "text.txt").write_text(TEXT)
    arguments = ["--data", str(folder / "text.txt"), "--out", str(folder / "run"), *SMALL]
    assert main(["train", *arguments]) == 0
    return folder


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    """A checkpoint with a chat format, of random weights."""
    folder = tmp_path_factory.mktemp("talker") / "model"
    write(folder, tiny("llama-3.1"), tokenizer=chat_tokenizer_for("llama-3.1"),
          format="hugging-face")
    return str(folder)


@pytest.fixture
def refused(trained, tmp_path, monkeypatch, capsys):
    """Checks that a command ends with status 2 and one line that holds a message, and makes no x.

    In the command, {text}, {run} and {empty} become a text, a trained model, and a text of spaces.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    names = dict(text=trained / "text.txt", run=trained / "run", empty=tmp_path / "empty.txt")

    def check(command, message):
        assert main([part.format(**names) for part in command]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.startswith("llama: ") and shown.count("\n") == 1
        assert not (tmp_path / "x").exists()

    return check

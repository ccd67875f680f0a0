import dataclasses

import numpy as np
import pytest
from command_line import SMALL, TEXT
from PIL import Image
from seeing_twin import TEXT as TEXT_MODEL
from seeing_twin import loud
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


@pytest.fixture(scope="session")
def looker():
    """A model that sees and its tokenizer, for chats in Llama 3.2 Vision's format."""
    text = dataclasses.replace(TEXT_MODEL, vocab_size=519, max_seq_len=256)
    return loud(text).double(), chat_tokenizer_for("llama-3.2-vision")


@pytest.fixture
def photos(tmp_path):
    """A folder with two photos, a text that is called one, and a moving picture."""
    rng = np.random.default_rng(0)
    for name, size in (("cat.png", (20, 30, 3)), ("my dog's.png", (40, 25, 3))):
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "words.png").write_text("a cat")
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    return tmp_path

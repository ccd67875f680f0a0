"""The tokenizer of a checkpoint, or of a file of it."""

import pytest
from tiny_checkpoints import tiny, tokenizer_for

from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.checkpoint.vocabulary import read_tokenizer

TEXT = "the cat sat, naïve 😀"
FILES = [("meta", "llama-3", "tokenizer.model"), ("meta", "llama-2", "tokenizer.model"),
         ("native", "llama-3.1", "tokenizer.model"), ("native", "llama-2", "tokenizer.model"),
         ("hugging-face", "llama-3.1", "tokenizer.json"), ("llama2c", "llama-2", "tokenizer.bin"),
         ("hugging-face", "llama-2", "tokenizer.model")]


@pytest.mark.parametrize(("format", "generation", "name"), FILES)
def test_a_folder_and_the_file_of_its_tokenizer_give_the_same_ids(
    format, generation, name, tmp_path
):
    written = tokenizer_for(generation)
    write(tmp_path / "m", tiny(generation), tokenizer=written, format=format)
    for path in (tmp_path / "m", tmp_path / "m" / name, str(tmp_path / "m" / name)):
        found = read_tokenizer(path)
        assert found.encode(TEXT, bos=True) == written.encode(TEXT, bos=True)
        assert found.special_ids == written.special_ids


def test_a_named_tokenizer_takes_the_place_of_the_checkpoints(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, tiny(), tokenizer=tokenizer_for("llama-3.1"), format="meta")
    (tmp_path / "a" / "tokenizer.model").unlink()
    found = read_tokenizer(tmp_path / "a", tokenizer=tmp_path / "b" / "tokenizer.model")
    assert found.special_ids == tokenizer_for("llama-3.1").special_ids
    with pytest.raises(ValueError, match="is not. Give one"):
        read_tokenizer(tmp_path / "a", tokenizer=tmp_path / "a" / "params.txt")


def test_what_holds_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "text").write_text("the cat")
    for path in ("text", "nothing"):
        with pytest.raises(ValueError, match="a checkpoint must be"):
            read_tokenizer(tmp_path / path)

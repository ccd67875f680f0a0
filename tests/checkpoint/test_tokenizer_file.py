"""Files of tokenizers by themselves are known by their content."""

import gguf as reference
import pytest
from tiny_checkpoints import tiny, tokenizer_for

from llama_from_scratch.checkpoint import gguf, gguf_file, gguf_tokenizer
from llama_from_scratch.checkpoint.tokenizer_file import read_file
from llama_from_scratch.tokenizer import hugging_face, released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

TEXT = "the cat sat, naïve 😀"
PIECES, RANKS = tokenizer_for("llama-2"), tokenizer_for("llama-3.1")


def vocabulary_alone(path, tokenizer, config):
    facts = {"general.architecture": ("str", "llama")}
    gguf_file.write(path, facts | gguf_tokenizer.facts_of(tokenizer, config), [])


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "x.dat"])
def test_every_kind_of_file_is_read_under_any_name(name, tmp_path):
    file = tmp_path / name
    for tokenizer, generation in ((PIECES, "llama-2"), (RANKS, "llama-3.1")):
        ids = tokenizer.encode(TEXT)
        hugging_face.write(file, tokenizer)
        assert read_file(file).encode(TEXT) == ids
        file.write_bytes(b"\n  " + file.read_bytes())
        assert read_file(file).encode(TEXT) == ids
        vocabulary_alone(file, tokenizer, tiny(generation).config)
        found = read_file(file)
        assert found.encode(TEXT) == ids and found.special_ids == tokenizer.special_ids
    PIECES.save(file)
    assert read_file(file).pieces == PIECES.pieces
    PIECES.save_llama2c(file)
    assert read_file(file).pieces == PIECES.pieces
    RANKS.save(file)
    assert read_file(file, n_ranks=264).encode(TEXT) == RANKS.encode(TEXT)


def test_a_rank_file_by_itself_has_a_published_length_or_a_length_that_is_said(tmp_path):
    file = tmp_path / "tokenizer.model"
    RANKS.save(file)
    with pytest.raises(ValueError, match="must have 128,000 or 200,000 ranks, .* got 264 in .*"
                                         r"It may have lost lines: .*--ranks 264"):
        read_file(file)
    with pytest.raises(ValueError, match="must have 265 ranks"):
        read_file(file, n_ranks=265)
    tokens = [bytes([i]) for i in range(256)] + [i.to_bytes(4, "big") for i in range(127_744)]
    Tokenizer({token: i for i, token in enumerate(tokens)}).save(file)
    assert read_file(file).special_ids["<|eot_id|>"] == 128_009
    assert tuple(read_file(file).special_ids) == released.LLAMA_3_1


def test_a_vocabulary_that_llama_cpps_package_writes_alone_is_read(tmp_path):
    writer = reference.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in PIECES.pieces])
    writer.add_token_scores([piece.score for piece in PIECES.pieces])
    writer.add_token_types([int(piece.kind) for piece in PIECES.pieces])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert read_file(tmp_path / "v.gguf").encode(TEXT) == PIECES.encode(TEXT)


def test_what_is_no_file_of_a_tokenizer_is_left_to_others(tmp_path):
    gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=RANKS)
    (tmp_path / "text").write_text("the cat")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("m.gguf", "text", "empty", "nothing", "."):
        assert read_file(tmp_path / name) is None
    PIECES.save(tmp_path / "tokenizer.model")
    assert read_file(tmp_path).pieces == PIECES.pieces

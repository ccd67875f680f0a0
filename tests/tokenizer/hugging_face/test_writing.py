"""Files as they are written, against the tokenizers library."""

import json
import random

import pytest
import tokenizers
from tokenizer_json_reference import assert_same_ids
from tokenizer_texts import BYTES, CORPUS, FIRST_PIECES, random_text

from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.pieces import Kind, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def test_a_file_of_llama_3_or_4_gives_the_same_ids_here_and_there(byte_bpe, path):
    hugging_face.write(path, byte_bpe)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    assert (ours.ranks, ours.special_ids) == (byte_bpe.ranks, byte_bpe.special_ids)
    assert ours.pattern == byte_bpe.pattern
    assert_same_ids(ours, theirs)
    assert theirs.encode("hi").ids == ours.encode("hi", bos=True)
    pair = ours.encode("hi", bos=True) + ours.encode("the", bos=True)
    assert theirs.encode("hi", "the").ids == pair
    text = CORPUS + "<|begin_of_text|>"
    ids = ours.encode(text, allowed_special="all")
    assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("prefix", ["always", "if missing", "first if missing", "never"])
def test_a_file_of_llama_1_or_2_gives_the_same_ids_and_text_here_and_there(pieces, path, prefix):
    tok = SentencePiece(pieces.pieces, prefix=prefix)
    hugging_face.write(path, tok)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    assert ours.prefix == prefix and ours.special_ids == tok.special_ids
    assert_same_ids(ours, theirs)
    assert_same_ids(tok, theirs, n_texts=300)
    assert theirs.encode("hi").ids == ours.encode("hi", bos=True)
    rng = random.Random(1)
    for text in (random_text(rng, ["a"]) for _ in range(500)):
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text))


def test_a_vocabulary_without_bytes_joins_unknown_characters_as_there(path):
    letters = [Piece(char, -9.0) for char in "abc"]
    made = [Piece("ab", -1.0), Piece("▁ab", -2.0)]
    pieces = [*FIRST_PIECES[:3], Piece("▁"), *letters, *made]
    hugging_face.write(path, SentencePiece(pieces))
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    for text in ("abxyzab", "xéy ab", "é", "a é é b"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "extra, message",
    [
        ([Piece("<x>", 0.0, Kind.USER_DEFINED)], "no user-defined pieces"),
        ([Piece("aa", -1.0), Piece("ab", -1.0), Piece("a"), Piece("b")], "equal scores"),
        (
            [Piece("ab", -1.0), Piece("a")],
            "'ab' is made of .*which is missing; make each letter a piece",
        ),
    ],
)
def test_pieces_that_the_format_cannot_say_are_refused(path, extra, message):
    with pytest.raises(ValueError, match=message):
        hugging_face.write(path, SentencePiece([*FIRST_PIECES, *extra]))
    assert not path.exists()


def written(path, tokenizer) -> tuple[dict, dict]:
    """The file as we write it, and as the tokenizers library writes what it has read of it."""
    hugging_face.write(path, tokenizer)
    again = json.loads(tokenizers.Tokenizer.from_file(str(path)).to_str())
    again["model"]["merges"] = [" ".join(pair) for pair in again["model"]["merges"]]
    return json.loads(path.read_text()), again


def test_a_file_of_bytes_has_each_field_that_the_library_writes(byte_bpe, path):
    for tokenizer in (byte_bpe, Tokenizer(byte_bpe.ranks, pattern=byte_bpe.pattern)):
        ours, theirs = written(path, tokenizer)
        assert ours == theirs


@pytest.mark.parametrize("prefix", ["always", "if missing", "first if missing", "never"])
def test_a_file_of_pieces_has_each_field_that_the_library_writes(pieces, path, prefix):
    for bos in ("<s>", "none"):
        ours, theirs = written(path, SentencePiece(pieces.pieces, prefix=prefix, bos=bos))
        assert ours == theirs


def test_special_tokens_are_never_split_stripped_or_normalized(byte_bpe, pieces, path):
    for tokenizer in (byte_bpe, pieces):
        ours, _ = written(path, tokenizer)
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        assert ours["added_tokens"] == [
            {"id": i, "content": name, "special": True} | flags
            for name, i in tokenizer.special_ids.items()
        ]


def test_bos_comes_before_a_text_and_before_each_of_a_pair(pieces, path):
    ours, _ = written(path, pieces)
    first, second = (
        [{"SpecialToken": {"id": "<s>", "type_id": n}}, {"Sequence": {"id": name, "type_id": n}}]
        for n, name in enumerate("AB")
    )
    assert ours["post_processor"] == {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }


def test_the_steps_of_a_file_of_bytes_are_those_that_meta_published(path):
    ours, _ = written(path, Tokenizer(BYTES))
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}
    assert ours["decoder"] == byte_level | {"trim_offsets": True}
    assert ours["post_processor"]["processors"] == [byte_level | {"trim_offsets": False}]
    assert ours["pre_tokenizer"]["pretokenizers"][1] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }

"""tokenizer.model read and written, against the sentencepiece library."""

import random

import pytest
import sentencepiece
from sentencepiece_reference import (
    ODD,
    assert_damaged_files_are_refused_or_read,
    theirs_of,
    trained_by_them,
)
from tokenizer_texts import CORPUS, FIRST_PIECES, random_text

from llama_from_scratch.tokenizer.pieces import Kind, Piece
from llama_from_scratch.tokenizer.protobuf import fields
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.fixture(scope="module")
def tok() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 3, 460)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False, "vocab_size": 180},
        {"split_digits": False},
        {"user_defined_symbols": "<x>,<xy>,▁[,  "},
        {"add_dummy_prefix": False},
        {"split_by_unicode_script": False},
        {"split_by_whitespace": False},
    ],
)
def test_a_vocabulary_that_sentencepiece_trained_is_read_and_gives_its_ids(options, tmp_path):
    data = trained_by_them(**options)
    (tmp_path / "tokenizer.model").write_bytes(data)
    tok = SentencePiece.load(tmp_path / "tokenizer.model")
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    ids = range(theirs.vocab_size())
    assert [piece.text for piece in tok.pieces] == [theirs.id_to_piece(i) for i in ids]
    assert [piece.score for piece in tok.pieces] == [theirs.get_score(i) for i in ids]
    rng = random.Random(1)
    texts = [random_text(rng, ODD) for _ in range(1000)]
    texts += ["<xy><x>y<x", " [a  [ [x", "12 123 1234", "éé\x01\x02é", CORPUS]
    for text in texts:
        ids = tok.encode(text)
        assert ids == theirs.encode(text), text
        assert tok.decode(ids) == theirs.decode(ids), text


@pytest.fixture(scope="module")
def theirs(tok, tmp_path_factory) -> sentencepiece.SentencePieceProcessor:
    return theirs_of(tok, tmp_path_factory.mktemp("theirs"))


def test_a_saved_tokenizer_loads_as_it_was_and_leaves_no_other_file(tok, theirs, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("an old file")
    tok.save(path)
    again = SentencePiece.load(path)
    assert (again.pieces, again.prefix) == (tok.pieces, tok.prefix)
    assert again.special_ids == tok.special_ids
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.model"]
    assert (theirs.bos_id(), theirs.eos_id(), theirs.unk_id(), theirs.pad_id()) == (1, 2, 0, -1)


def test_a_prefix_the_format_cannot_say_is_refused(tok, tmp_path):
    with pytest.raises(ValueError, match="always or never; got prefix='if missing'"):
        SentencePiece(tok.pieces, prefix="if missing").save(tmp_path / "t")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_type": "unigram", "vocab_size": 360}, "the model is BPE, type 2, got type 1"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"not normalized, got a table of \d+ bytes"),
        ({"remove_extra_whitespaces": True}, "spaces are kept, got remove_extra_whitespaces"),
        ({"treat_whitespace_as_suffix": True}, "a space belongs to the word after it"),
        ({"unk_surface": "??"}, "unk_surface is ' ⁇ '"),
    ],
)
def test_a_model_of_another_kind_is_refused(options, message, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained_by_them(**options))
    message = rf"tokenizer.model cannot be read as a SentencePiece model: .*{message}"
    with pytest.raises(ValueError, match=message):
        SentencePiece.load(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "it is empty"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes and 0 are left"),
        (b"\x0a\x02", "has 2 bytes and 0 are left"),
        (b"\x0a", "a number must end before the message"),
        (b"\xff" * 20, "at most ten bytes"),
        (b"\x08\x01", "fit its values; got 0 for field 1"),
        (b"\x03", "fit its values; got 3 for field 0"),
        (b"\x33", "4 or 8 bytes long; got wire type 3"),
        (b"\x0a\x03\x0a\x01\xff", "a piece must be UTF-8"),
        (b"\x0a\x05\x0a\x01a\x18\x07", "the kind of a piece must be 1 to 6; got 7 for piece 0"),
        (b"not a model, but a text of some length", "SentencePiece model"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        SentencePiece.load(tmp_path / "t")


def test_a_damaged_file_is_refused_or_read_and_never_breaks_the_reader(tmp_path):
    assert_damaged_files_are_refused_or_read(
        tmp_path / "t", SentencePiece.save, SentencePiece.load
    )


# --- the settings in a file ---------------------------------------------------------------------

TRAINER = {3: "model_type", 4: "vocab_size", 24: "treat_whitespace_as_suffix", 35: "byte_fallback",
           40: "unk_id", 41: "bos_id", 42: "eos_id", 43: "pad_id",
           45: "unk_piece", 46: "bos_piece", 47: "eos_piece"}
NORMALIZER = {1: "name", 3: "add_dummy_prefix", 4: "remove_extra_whitespaces",
              5: "escape_whitespaces"}
# What sentencepiece_model.proto gives a field that is not in the file.
DEFAULTS = {
    "model_type": 1, "vocab_size": 8000, "treat_whitespace_as_suffix": 0, "byte_fallback": 0,
    "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": 2**64 - 1,
    "unk_piece": b"<unk>", "bos_piece": b"<s>", "eos_piece": b"</s>",
    "name": b"", "add_dummy_prefix": 1, "remove_extra_whitespaces": 1, "escape_whitespaces": 1,
}  # fmt: skip


def settings_in(path) -> dict:
    """The settings in a tokenizer.model, by their names in sentencepiece_model.proto."""
    found = {}
    for number, value in fields(path.read_bytes(), {2: bytes, 3: bytes}):
        name_of = TRAINER if number == 2 else NORMALIZER
        types = {n: type(DEFAULTS[name]) for n, name in name_of.items()}
        found |= {name_of[n]: setting for n, setting in fields(value, types)}
    return found


UNKNOWN = Piece("[U]", 0.0, Kind.UNKNOWN)
BEGIN, END = Piece("[B]", 0.0, Kind.CONTROL), Piece("[E]", 0.0, Kind.CONTROL)


@pytest.mark.parametrize(
    "pieces, prefix, ids",
    [
        ([BEGIN, Piece("a"), END, Piece("▁"), UNKNOWN], "always", (4, 0, 2)),
        ([Piece("a"), UNKNOWN, END, *FIRST_PIECES[3:]], "never", (1, -1, 2)),
        ([BEGIN, UNKNOWN, Piece("a")], "never", (1, 0, -1)),
    ],
)
def test_every_setting_is_in_a_saved_file(tmp_path, pieces, prefix, ids):
    SentencePiece(pieces, prefix=prefix, bos="[B]", eos="[E]").save(tmp_path / "t")
    unknown, bos, eos = (i % 2**64 for i in ids)
    assert settings_in(tmp_path / "t") == {
        "model_type": 2,
        "vocab_size": len(pieces),
        "treat_whitespace_as_suffix": 0,
        "byte_fallback": len(pieces) > 256,
        "unk_id": unknown,
        "bos_id": bos,
        "eos_id": eos,
        "pad_id": 2**64 - 1,
        "unk_piece": b"[U]",
        "bos_piece": b"[B]",
        "eos_piece": b"[E]",
        "name": b"identity",
        "add_dummy_prefix": prefix == "always",
        "remove_extra_whitespaces": 0,
        "escape_whitespaces": 1,
    }


@pytest.mark.parametrize(
    "pieces, ids",
    [
        ([BEGIN, Piece("a"), END, Piece("▁"), UNKNOWN], (4, 0, 2)),
        ([Piece("a"), UNKNOWN, END, *FIRST_PIECES[3:]], (1, -1, 2)),
        ([BEGIN, UNKNOWN, Piece("a")], (1, 0, -1)),
    ],
)
def test_sentencepiece_finds_the_ids_of_a_saved_file(tmp_path, pieces, ids):
    theirs = theirs_of(SentencePiece(pieces, bos="[B]", eos="[E]"), tmp_path)
    assert (theirs.unk_id(), theirs.bos_id(), theirs.eos_id()) == ids
    assert theirs.pad_id() == -1 and theirs.vocab_size() == len(pieces)
    assert [theirs.id_to_piece(i) for i in range(len(pieces))] == [p.text for p in pieces]
    assert [theirs.is_byte(i) for i in range(len(pieces))] == [p.kind == Kind.BYTE for p in pieces]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unk_id": 2, "bos_id": 0, "eos_id": 1, "unk_piece": "[U]", "bos_piece": "[B]",
         "eos_piece": "[E]"},
        {"bos_id": -1, "byte_fallback": False, "vocab_size": 180},
        {"add_dummy_prefix": False},
    ],
)  # fmt: skip
def test_a_file_of_sentencepiece_that_is_saved_again_keeps_its_settings(tmp_path, options):
    (tmp_path / "theirs").write_bytes(trained_by_them(**options))
    SentencePiece.load(tmp_path / "theirs").save(tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == DEFAULTS | settings_in(tmp_path / "theirs")


def test_a_file_that_was_cut_between_two_records_is_noticed(tmp_path):
    SentencePiece.train([CORPUS] * 3, 460).save(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    ends, at = [], 0
    while at < len(data):  # every record is a key, a length of one or two bytes, and its content
        length, at = data[at + 1] & 127, at + 2
        if data[at - 1] & 128:
            length, at = length | data[at] << 7, at + 1
        at += length
        ends.append(at)
    assert len(ends) == 462 and ends[-1] == len(data)
    for end in [*ends[1:40], *ends[-5:-1]]:
        (tmp_path / "cut").write_bytes(data[:end])
        with pytest.raises(ValueError, match="The file lost a part: download it again"):
            SentencePiece.load(tmp_path / "cut")
    lost = data[: ends[300]] + data[ends[310] :]
    (tmp_path / "cut").write_bytes(lost)
    with pytest.raises(ValueError, match="which count 460, .* got 450 pieces"):
        SentencePiece.load(tmp_path / "cut")

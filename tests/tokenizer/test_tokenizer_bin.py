"""llama2.c's tokenizer.bin, read and written."""

import re
import struct

import pytest
from sentencepiece_reference import assert_damaged_files_are_refused_or_read
from tokenizer_texts import CORPUS, FIRST_PIECES

from llama_from_scratch.tokenizer.pieces import BLANK, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.fixture(scope="module")
def tok() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 3, 460)


def test_a_tokenizer_bin_loads_as_it_was(tok, tmp_path):
    tok.save_llama2c(tmp_path / "tokenizer.bin")
    assert SentencePiece.load_llama2c(tmp_path / "tokenizer.bin").pieces == tok.pieces
    data = (tmp_path / "tokenizer.bin").read_bytes()
    longest = max(len(piece.text.encode()) for piece in tok.pieces if BLANK not in piece.text)
    assert struct.unpack_from("<IfI", data) == (max(longest, 16), 0.0, 5)
    assert data[12:] .startswith(b"<unk>" + struct.pack("<fI", 0.0, 5) + b"\n<s>\n")
    assert struct.pack("<fI", -1e9, 2) + b"  " in data


def test_a_tokenizer_bin_of_the_first_version_has_bytes_as_characters(tok, tmp_path):
    learned = [piece.text.replace(BLANK, " ") for piece in tok.pieces[259:]]
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *map(chr, range(256)), *learned]
    records = (
        struct.pack("<fI", piece.score, len(text.encode())) + text.encode()
        for piece, text in zip(tok.pieces, texts, strict=True)
    )
    (tmp_path / "t").write_bytes(struct.pack("<I", 16) + b"".join(records))
    assert SentencePiece.load_llama2c(tmp_path / "t").pieces == tok.pieces


def test_only_a_vocabulary_laid_out_as_llamas_has_a_tokenizer_bin(tok, tmp_path):
    unknown, bos, *rest = FIRST_PIECES
    for other in (SentencePiece([bos, unknown, *rest]), SentencePiece(tok.pieces, prefix="never")):
        message = "a tokenizer.bin must have <unk>, <s>, </s> and then the 256 bytes"
        with pytest.raises(ValueError, match=message):
            other.save_llama2c(tmp_path / "t")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x01\x00", "in 4 bytes; got 2 bytes"),
        (struct.pack("<I", 5) + b"1234567", "begin with 8 bytes; got 7 for piece 0"),
        (
            struct.pack("<IfI", 5, 0, 2**32 - 1) + b"<unk>",
            "piece 0 has 4294967295 bytes, the longest has 5, and 5 are left",
        ),
        (
            struct.pack("<IfI", 4, 0, 5) + b"<unk>",
            "piece 0 has 5 bytes, the longest has 4, and 5 are left",
        ),
        (struct.pack("<IfI", 5, 0, 5) + b"<unk" + b"?", "piece 0 must be <unk>; got '<unk?'"),
        (struct.pack("<I", 5), "got 0 pieces and none of that length"),
        (struct.pack("<I", 0), "one unknown piece; got 0"),
    ],
)
def test_a_forged_tokenizer_bin_is_refused(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)):
        SentencePiece.load_llama2c(tmp_path / "t")


def test_a_file_that_lost_its_longest_piece_is_noticed(tok, tmp_path):
    longest = Piece("▁" + "x" * 40, -500.0)
    SentencePiece([*tok.pieces, longest]).save_llama2c(tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(data[: -8 - 41])
    with pytest.raises(ValueError, match="the longest piece must have 41 bytes, .* got 460 pieces"):
        SentencePiece.load_llama2c(tmp_path / "t")


def test_a_damaged_tokenizer_bin_is_refused_or_read_and_never_breaks_the_reader(tmp_path):
    assert_damaged_files_are_refused_or_read(
        tmp_path / "t", SentencePiece.save_llama2c, SentencePiece.load_llama2c
    )

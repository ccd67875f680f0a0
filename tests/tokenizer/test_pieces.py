"""Vocabularies of pieces, and those that cannot be."""

import pytest
from tokenizer_texts import FIRST_PIECES

from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, byte_name, is_byte_name
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.mark.parametrize(
    "pieces, message",
    [
        ([*FIRST_PIECES, Piece("a"), Piece("a")], "differ; got 'a' 2 times, first as piece 259"),
        ([*FIRST_PIECES, Piece("")], "non-empty texts that differ; got '' 1 times, first as"),
        (FIRST_PIECES[1:], "one unknown piece; got 0"),
        ([*FIRST_PIECES, Piece("?", 0.0, Kind.UNKNOWN)], "one unknown piece; got 2"),
        (FIRST_PIECES[:-1], r"<0x00> to <0xFF>, each once; got \['<0xFF>'\]"),
        (
            [*FIRST_PIECES, Piece("<0xff>", 0.0, Kind.BYTE)],
            r"<0x00> to <0xFF>, each once; got \['<0xff>'\]",
        ),
        ([*FIRST_PIECES, Piece("a", float("nan"))], "finite score"),
        ([*FIRST_PIECES, Piece("a", 0.0, Kind.UNUSED)], "a kind that Llama uses"),
    ],
)
def test_impossible_vocabularies_are_refused(pieces, message):
    with pytest.raises(ValueError, match=message):
        SentencePiece(pieces)


def test_a_piece_has_the_bytes_of_its_kind():
    assert Piece(f"{BLANK}a").data == b" a" and Piece("<0x0A>", 0.0, Kind.BYTE).data == b"\n"
    assert Piece("<s>", 0.0, Kind.CONTROL).data == b""
    assert Piece("<unk>", 0.0, Kind.UNKNOWN).data == " ⁇ ".encode()
    assert Piece("<0x0A>").data == b"<0x0A>"


def test_bytes_have_names_with_two_capital_digits():
    assert [byte_name(0), byte_name(255)] == ["<0x00>", "<0xFF>"]
    assert all(map(is_byte_name, map(byte_name, range(256))))
    assert not any(map(is_byte_name, ["<0xff>", "<0x0>", "<0x000>", "0x00", "<0x00> "]))

"""Vocabularies of pieces, and those that cannot be."""

import pytest
from tokenizer_texts import FIRST_PIECES

from llama_from_scratch.tokenizer.pieces import Kind, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.mark.parametrize(
    "pieces, message",
    [
        ([*FIRST_PIECES, Piece("a"), Piece("a")], "pieces are texts that differ, got 'a' 2 times, first as piece 259"),
        ([*FIRST_PIECES, Piece("")], "pieces are texts that differ, got '' 1 times, first as piece 259"),
        (FIRST_PIECES[1:], "one unknown piece, got 0"),
        ([*FIRST_PIECES, Piece("?", 0.0, Kind.UNKNOWN)], "one unknown piece, got 2"),
        (FIRST_PIECES[:-1], r"<0x00> to <0xFF>, each once, got \['<0xFF>'\]"),
        ([*FIRST_PIECES, Piece("<0xff>", 0.0, Kind.BYTE)], r"<0x00> to <0xFF>, each once, got \['<0xff>'\]"),
        ([*FIRST_PIECES, Piece("a", float("nan"))], "finite score"),
        ([*FIRST_PIECES, Piece("a", 0.0, Kind.UNUSED)], "a kind that Llama uses"),
    ],
)
def test_impossible_vocabularies_are_refused(pieces, message):
    with pytest.raises(ValueError, match=message):
        SentencePiece(pieces)

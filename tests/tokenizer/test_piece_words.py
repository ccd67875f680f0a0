"""Words apart and runs of blanks give the ids of the text whole, and quickly."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_reference import theirs_of
from tokenizer_texts import CORPUS, FIRST_PIECES

from llama_from_scratch.tokenizer.pieces import Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.fixture(scope="module")
def tok() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 3, 460)


def test_a_piece_across_words_is_found_although_words_are_encoded_apart():
    for across in ("a▁", "a1", "1a", "a.", ".a", "12", "é.", "\n\n", "\x01▁"):
        tok = SentencePiece([*FIRST_PIECES, Piece(across)])
        assert 259 in tok.encode("x" + across + "x"), across


def test_a_long_word_is_cut_only_where_no_piece_can_go_on():
    tok = SentencePiece([*FIRST_PIECES, Piece("ab", -1.0), Piece("abc", -2.0), Piece("ca", -3.0)])
    # first the blank, in three bytes
    assert tok.encode("abcabd" * 20)[3:] == [260, 259, ord("d") + 3] * 20


@settings(max_examples=300, deadline=None)
@given(text=st.text("aé日 ▁\uac00\U0001f600-]^\\", max_size=60))
@pytest.mark.parametrize("has_bytes", [True, False])
def test_characters_of_no_piece_give_the_ids_of_sentencepiece(tmp_path_factory, has_bytes, text):
    folder = tmp_path_factory.getbasetemp() / f"unknown {has_bytes}"
    folder.mkdir(exist_ok=True)
    first = FIRST_PIECES if has_bytes else FIRST_PIECES[:3]
    tok = SentencePiece([*first, *map(Piece, ["a", "^", "aa", "日a", "▁"])])
    assert tok.encode(text) == theirs_of(tok, folder).encode(text)


def test_characters_of_no_piece_take_no_merging(tok):
    text = "".join(map(chr, range(0xAC00, 0xAC00 + 10_000)))
    SentencePiece(tok.pieces).encode(text[:10])
    start = time.process_time()
    ids = SentencePiece(tok.pieces).encode(text)
    assert time.process_time() - start < 0.1
    assert ids[1:] == [3 + value for value in text.encode()]


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "é" * 500_000, "ab" * 500_000])
def test_a_megabyte_of_one_repeated_character_takes_less_than_a_second(tok, text):
    start = time.process_time()
    ids = tok.encode(text)
    assert time.process_time() - start < 1
    assert tok.decode(ids) == text


def test_a_repeated_character_with_many_pieces_gives_the_ids_of_sentencepiece(tmp_path):
    tok = SentencePiece.train("a" * 5000 + " " + "ab" * 3000, 259 + 16 + 2 + 20)
    theirs = theirs_of(tok, tmp_path)
    mixed = ("a" * 500 + "b" + "a" * 777, " " * 500 + "a" * 500)
    for text in ("a" * 3001, "ab" * 1501, " " * 999, *mixed):
        assert tok.encode(text) == theirs.encode(text)

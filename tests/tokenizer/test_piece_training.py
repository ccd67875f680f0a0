"""Pieces that are learned from text, laid out as Llama's."""

import pytest
from tokenizer_texts import CORPUS, FIRST_PIECES

from llama_from_scratch.tokenizer.piece_training import learn_pieces
from llama_from_scratch.tokenizer.pieces import BLANK, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def test_training_lays_out_pieces_as_llama_does():
    pieces = learn_pieces([CORPUS] * 3, 460)
    assert len(pieces) == 460 and pieces[:259] == FIRST_PIECES
    assert pieces[259:275] == [Piece(BLANK * n, -1e9) for n in range(1, 17)]
    learned = pieces[275:]
    assert [piece.score for piece in learned] == [float(-i) for i in range(len(learned))]
    n_merged = sum(len(piece.text) > 1 for piece in learned)
    assert all(len(piece.text) > 1 for piece in learned[:n_merged]) and n_merged > 50
    assert {piece.text for piece in learned[n_merged:]} == set(CORPUS) - {" "}


def test_training_merges_the_commonest_pair_first():
    tok = SentencePiece.train(["abab ab", "ab cd cd"], 259 + 16 + 4 + 3)
    assert [piece.text for piece in tok.pieces[275:]] == ["ab", "▁ab", "▁c", "a", "b", "c", "d"]
    assert tok.encode("ab cd") == [276, 277, 281]


def test_training_keeps_the_256_commonest_characters_and_leaves_the_rest_bytes():
    text = "".join(chr(0x4E00 + i) * (2 if i < 255 else 1) for i in range(300))
    tok = SentencePiece.train(text, 259 + 16 + 255)
    assert tok.encode(chr(0x4E00 + 254))[1:] == [529]
    assert tok.encode(chr(0x4E00 + 255))[1:] == [3 + value for value in chr(0x4E00 + 255).encode()]
    assert tok.decode(tok.encode(text)) == text


def test_training_refuses_a_vocabulary_without_room_or_beyond_the_text():
    message = "275 fixed pieces and 2 characters; got 276. Give at least 277"
    with pytest.raises(ValueError, match=message):
        learn_pieces("ab", 276)
    message = "none left at 279 pieces; got vocab_size=300. Give more text, or vocab_size=279"
    with pytest.raises(ValueError, match=message):
        learn_pieces("ab", 300)
    assert SentencePiece.train("ab", 279).encode("ab") == [276]

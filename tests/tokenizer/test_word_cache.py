"""What is remembered changes no ids and stays small."""

import random

import pytest
from tokenizer_texts import BOS, BYTES, CORPUS, EOS, EOT, random_text

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.word_cache import Memo


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


def test_the_memory_is_bounded_and_changes_no_result(tok, monkeypatch):
    rng = random.Random(2)
    texts = [random_text(rng) for _ in range(300)]
    expected = [tok.encode(text) for text in texts]
    assert [tok.encode(text) for text in texts] == expected
    monkeypatch.setattr("llama_from_scratch.tokenizer.word_cache._MEMO_TEXTS", 5)
    small = Tokenizer(tok.ranks, special_tokens=list(tok.special_ids))
    for text, ids in zip(texts, expected, strict=True):
        assert small.encode(text) == ids
        assert len(small._words._ids_of) <= 5 and len(small._words._ids_after_blank) <= 5


def test_the_memory_keeps_no_long_text():
    memo = Memo(lambda text: (len(text),))
    assert [memo["a" * 64], memo["b" * 65]] == [(64,), (65,)]
    assert list(memo) == ["a" * 64]


def test_a_pattern_of_ones_own_is_not_cut_at_blanks():
    tok = Tokenizer(BYTES | {"é é".encode(): 256}, pattern=r"[\s\S]+")
    assert tok.encode("é é") == [256]

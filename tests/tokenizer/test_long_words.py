"""Long words merge as short ones, and in no more than n log n steps."""

import time

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import BYTES

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.merges import merge_word


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(
        st.binary(min_size=2, max_size=4).map(lambda b: bytes(97 + v % 2 for v in b)), unique=True
    ),
    word=st.text("ab", min_size=1, max_size=40).map(str.encode),
)
def test_long_words_merge_as_short_ones(tokens, word):
    ranks = BYTES | {token: 256 + i for i, token in enumerate(tokens)}
    theirs = tiktoken.Encoding(
        "random", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={}
    )
    for text in (word, word * 20):  # 20 times as long is past the change to the heap
        expected = theirs.encode(text.decode())
        assert ([ranks[text]] if text in ranks else merge_word(text, ranks)) == expected


@pytest.mark.parametrize(
    "text", ["a" * 25_000, " " * 25_000, "ab" * 12_500, "é" * 12_500, "\n\t" * 12_000 + "é"]
)
def test_a_very_long_run_takes_no_quadratic_time(text):
    tok = Tokenizer.train([text[:64]] * 2, 258)
    start = time.process_time()
    ids = tok.encode(text)
    assert time.process_time() - start < 1
    assert tok.decode(ids) == text

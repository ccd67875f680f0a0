"""Counts that are kept up to date, against a trainer that recounts everything."""

import random
import time
from collections import Counter
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_texts import CORPUS

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.merges import learn_merges
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, Splitter


def recount_merges(counts: dict[bytes, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """The slow reference: count every pair in every word again before each merge."""
    tokens = [bytes([value]) for value in range(256)]
    words, merges = [(list(word), n) for word, n in counts.items()], []
    while len(merges) < n_merges:
        pairs = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                pairs[pair] += n
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for ids, _ in words:
            i = 0
            while i < len(ids) - 1:
                if ids[i] == left and ids[i + 1] == right:
                    ids[i : i + 2] = [len(tokens)]
                i += 1
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def test_merges_equal_those_of_a_full_recount():
    words = {word.encode(): n for word, n in Counter(Splitter(LLAMA3_PATTERN)(CORPUS)).items()}
    assert learn_merges(words, 400) == recount_merges(words, 400)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.text("ab", min_size=1, max_size=12).map(str.encode), st.integers(1, 4), max_size=6
    )
)
@example({b"aaaaa": 1, b"aaa": 1})
@example({b"ababab": 1, b"abab": 2})
def test_merges_equal_those_of_a_full_recount_where_pairs_overlap_and_tie(words):
    assert learn_merges(words, 30) == recount_merges(words, 30)


def test_a_tie_goes_to_the_smallest_left_id_and_then_the_smallest_right_id():
    merges = learn_merges({b"zb": 2, b"ya": 2, b"yb": 2}, 3)
    assert merges == [(b"y", b"a"), (b"y", b"b"), (b"z", b"b")]
    assert learn_merges({b"abab": 1, b"ab": 3}, 5) == [(b"a", b"b"), (b"ab", b"ab")]


def test_training_time_does_not_explode_on_one_endless_word():
    letters = "".join(random.Random(0).choices("ACGT", k=200_000))
    start = time.process_time()
    Tokenizer.train(letters, 400)
    assert time.process_time() - start < 3

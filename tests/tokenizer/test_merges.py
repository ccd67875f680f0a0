"""The algorithm against its definition, word by word, on tables that can be read."""

from llama_from_scratch.tokenizer.merges import learn_merges, merge, merge_word

BYTES = {bytes([value]): value for value in range(256)}


def test_the_most_frequent_pair_merges_first_and_counts_go_on_from_there():
    assert learn_merges({b"abab": 1, b"ab": 3}, 9) == [(b"a", b"b"), (b"ab", b"ab")]


def test_among_equally_frequent_pairs_the_smallest_ids_merge_first():
    assert learn_merges({b"cd": 2, b"ab": 2, b"ac": 2}, 2) == [(b"a", b"b"), (b"a", b"c")]


def test_each_merge_is_reported_with_its_rank_and_count():
    seen = []
    learn_merges({b"abab": 1, b"ab": 3}, 1, on_merge=lambda *merge: seen.append(merge))
    assert seen == [(256, b"a", b"b", 5)]


def test_the_lowest_rank_merges_first_and_the_leftmost_of_equals():
    ranks = BYTES | {b"bc": 256, b"ab": 257, b"aa": 258}
    assert merge_word(b"abc", ranks) == [97, 256]
    assert merge_word(b"aaa", ranks) == [258, 97]


def test_merging_stops_at_the_number_of_parts_that_is_asked_for():
    ranks = BYTES | {b"ab": 256, b"abc": 257}
    assert merge(b"abcd", ranks) == [b"abc", b"d"]
    assert merge(b"abcd", ranks, n_parts=3) == [b"ab", b"c", b"d"]

"""Byte-pair encoding: which pairs of neighbors become one token, and in what order.

Training counts pairs of neighbors in all words, makes the most frequent pair one token, and counts
again. Encoding repeats these merges on a new word: of all pairs of neighbors, the pair that was
learned first merges first. `pair_counts` and `long_words` make both fast.

Notebook 10. Source: Sennrich et al., arXiv:1508.07909, section 3.2 and algorithm 1.
"""

import sys
from collections.abc import Callable, Mapping

from llama_from_scratch.tokenizer.long_words import LONG_WORD, Word, merge_long
from llama_from_scratch.tokenizer.pair_counts import PairCounts

OnMerge = Callable[[int, bytes, bytes, int], object]
"""A function that is called after each merge with its rank, left token, right token and count."""


def learn_merges(
    counts: Mapping[bytes, int], n_merges: int, *, on_merge: OnMerge | None = None
) -> list[tuple[bytes, bytes]]:
    """Returns the first `n_merges` merges, as pairs (left token, right token).

    `counts`: how often each word occurs. The pair with the highest count merges first. Among equal
    counts it is the pair with the smallest left id, then with the smallest right id. The id of a
    byte is its value, and merge k makes id 256 + k. The list is shorter if no pair is left.
    Example: `{b"abab": 1, b"ab": 3}` -> `[(b"a", b"b"), (b"ab", b"ab")]`, because "ab" occurs 5
    times, and after that merge "abab" occurs once.

    `on_merge(rank, left, right, count)` is called after each merge.
    """
    tokens = [bytes([value]) for value in range(256)]
    pairs = PairCounts(counts)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n_merges and (found := pairs.merge_most_frequent(new=len(tokens))):
        left, right, count = found
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
        if on_merge:
            on_merge(len(tokens) - 1, *merges[-1], count)
    return merges


def merge_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Returns the ids of one pre-token. The pair of neighbors with the lowest rank merges first.

    The rank of a pair is the rank of its bytes together. Among equal ranks the leftmost pair merges
    first. With ranks `b"a"`, `b"b"`, `b"c"` = 0, 1, 2 and `b"bc"` = 3, `b"ab"` = 4:
    `b"abc"` -> `[0, 3]`.
    """
    return [ranks[part] for part in merge(word, ranks)]


def merge(word: Word, ranks: Mapping[Word, int], *, n_parts: int = 1) -> list[Word]:
    """Merges the parts of `word` until no pair of neighbors has a rank or `n_parts` are left.

    Returns the parts. They start as the single bytes, or as the characters of a str.
    """
    if len(word) > LONG_WORD:
        return merge_long(word, ranks, n_parts=n_parts)
    rank_of, none = ranks.get, sys.maxsize
    parts = [word[i : i + 1] for i in range(len(word))]
    pair_ranks = [rank_of(word[i : i + 2], none) for i in range(len(word) - 1)]
    while len(parts) > n_parts and (best := min(pair_ranks)) != none:
        i = pair_ranks.index(best)
        del pair_ranks[i]
        parts[i] = merged = parts[i] + parts.pop(i + 1)
        if i:
            pair_ranks[i - 1] = rank_of(parts[i - 1] + merged, none)
        if i < len(pair_ranks):
            pair_ranks[i] = rank_of(merged + parts[i + 1], none)
    return parts

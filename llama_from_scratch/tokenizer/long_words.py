"""Merges a long word in n log n steps, so that a very long word does not take quadratic time.

`merges.merge` goes through all pairs for each merge, which is fastest for words of usual length. A
longer word first merges one pair in all places at once, as long as it has few different pairs. A
heap and linked parts do the rest.

Notebook 10. All generations.
"""

import heapq
from collections.abc import Mapping
from itertools import accumulate, pairwise
from operator import add
from typing import TypeVar

Word = TypeVar("Word", bytes, str)

LONG_WORD = 200
"""Words with more parts than this are long."""
_FEW_PAIRS = 64


def merge_long(word: Word, ranks: Mapping[Word, int], *, n_parts: int = 1) -> list[Word]:
    """Returns the same as `merges.merge`, for a word of any length."""
    if n_parts > 1:
        return _merge_by_heap(word, ranks, list(range(1, len(word) + 1)), n_parts=n_parts)
    return _merge_run(word, ranks)


def _merge_run(word: Word, ranks: Mapping[Word, int]) -> list[Word]:
    """Merges one pair everywhere at each step while pairs are few, as in a repeated letter."""
    row = word if isinstance(word, str) else word.decode("latin-1")  # a character per part
    part_of = {char: char if isinstance(word, str) else char.encode("latin-1") for char in set(row)}
    for new in map(chr, range(0xD800, 0xE000)):  # surrogates, which occur in no text and no byte
        pairs = set(map(add, row, row[1:]))
        if len(pairs) > _FEW_PAIRS:
            break
        ranked = ((ranks.get(part_of[pair[0]] + part_of[pair[1]]), pair) for pair in pairs)
        found = sorted((rank, pair) for rank, pair in ranked if rank is not None)
        if not found:
            return [part_of[char] for char in row]
        rank, pair = found[0]
        merged = part_of[pair[0]] + part_of[pair[1]]
        # Merging everywhere at once equals merging one place after the other, unless another pair
        # may merge in between: a pair of the same rank, or a pair with the new part whose rank is
        # as low or lower.
        nearby = [merged, *(part_of[char] for char in set("".join(pairs)))]
        next_ranks = [ranks.get(both) for part in nearby for both in (part + merged, merged + part)]
        is_tied = bool(found[1:2]) and found[1][0] == rank
        if is_tied or any(other is not None and other <= rank for other in next_ranks):
            break
        part_of[new] = merged
        row = row.replace(pair, new)
    return _merge_by_heap(word, ranks, list(accumulate(len(part_of[char]) for char in row)))


def _merge_by_heap(
    word: Word, ranks: Mapping[Word, int], part_ends: list[int], *, n_parts: int = 1
) -> list[Word]:
    """Merges with a heap that finds the lowest rank, and links that skip merged parts."""
    ends, begins = [0] * len(word), [-1] * (len(word) + 1)
    for begin, end in pairwise([0, *part_ends]):
        ends[begin] = end  # the part that begins at i is word[i:ends[i]]; 0 if none begins there
        begins[end] = begin  # where the part before the one at i begins

    def candidate(i: int) -> tuple[int, int, int] | None:
        if i < 0 or ends[i] == len(word):
            return None
        end = ends[ends[i]]
        rank = ranks.get(word[i:end])
        return None if rank is None else (rank, i, end)

    heap = [found for i in [0, *part_ends[:-1]] if (found := candidate(i))]
    heapq.heapify(heap)
    n_left = len(part_ends)
    while heap and n_left > n_parts:
        _, i, end = heapq.heappop(heap)
        middle = ends[i]
        if not middle or middle == len(word) or ends[middle] != end:
            continue  # a neighbor has merged since
        n_left -= 1
        ends[middle] = 0
        ends[i] = end
        begins[end] = i
        for found in (candidate(begins[i]), candidate(i)):
            if found:
                heapq.heappush(heap, found)
    return [word[i:end] for i, end in enumerate(ends) if end]

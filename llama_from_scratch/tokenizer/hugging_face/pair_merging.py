"""Byte-pair encoding by a list of pairs, as in a tokenizer.json, instead of by ranks.

Any list of merges is followed exactly, even if no ranking of tokens would give the same. Of all
neighbors that are a pair of the list, the earliest pair merges first, and of equal pairs the
leftmost.

Notebook 10. Source: huggingface/tokenizers, tokenizers/src/models/bpe/word.rs.
"""

import heapq
from collections.abc import Mapping, Sequence

Merges = Mapping[tuple[int, int], tuple[int, int]]
"""A pair of ids -> its place in the list, and the id that it becomes."""


def merge_pairs(ids: Sequence[int], merges: Merges) -> list[int]:
    """Returns the ids after merging until no neighbors are a pair of `merges`, in n log n steps.

    `[1, 2, 3], {(2, 3): (0, 9), (1, 2): (1, 8)}` -> `[1, 9]`.
    """
    ids, n = list(ids), len(ids)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))

    def candidate(i: int) -> tuple[int, int, int] | None:
        if i < 0 or after[i] >= n:
            return None
        found = merges.get((ids[i], ids[after[i]]))
        return None if found is None else (found[0], i, found[1])

    heap = [found for i in range(n) if (found := candidate(i))]
    heapq.heapify(heap)
    while heap:
        _, i, new = heapq.heappop(heap)
        again = candidate(i) if ids[i] >= 0 else None
        if again is None or again[2] != new:
            continue  # a neighbor has merged since
        merged = after[i]
        ids[i], ids[merged] = new, -1
        after[i] = after[merged]
        if after[i] < n:
            before[after[i]] = i
        for found in (candidate(before[i]), candidate(i)):
            if found:
                heapq.heappush(heap, found)
    return [i for i in ids if i >= 0]

"""Fast training: counts of pairs that stay up to date while pairs merge.

Counting every pair again before each merge takes as long as reading all words. Here a merge visits
only the words that contain its pair, and changes only the counts of the pairs around it. A heap
finds the most frequent pair.

Notebook 10. All generations.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise


class PairCounts:
    """The pairs of neighbors in words; `counts`: how often each word occurs. Ids start as bytes."""

    def __init__(self, counts: Mapping[bytes, int]):
        # A word is a string whose characters are token ids. Then `split` and `join` merge at the
        # speed of C, and comparing two pairs as strings compares left ids, then right ids.
        self._words = [word.decode("latin-1") for word in counts]
        self._times = list(counts.values())
        self._count_of: Counter[str] = Counter()
        self._words_with: defaultdict[str, set[int]] = defaultdict(set)
        for w, word in enumerate(self._words):
            for left, right in pairwise(word):
                self._count_of[left + right] += self._times[w]
                self._words_with[left + right].add(w)
        # Counts of old pairs only fall, so no entry is too low. An entry that is too high is put
        # back with its true count.
        self._heap = [(-count, pair) for pair, count in self._count_of.items()]
        heapq.heapify(self._heap)

    def merge_most_frequent(self, *, new: int) -> tuple[int, int, int] | None:
        """Merges the most frequent pair into the token `new`. Returns (left id, right id, count).

        Among pairs with equal counts it takes the pair with the smallest left id, then with the
        smallest right id. Returns None if no pair is left.
        """
        while self._heap:
            negative_count, pair = heapq.heappop(self._heap)
            if -negative_count == self._count_of[pair]:
                self._merge(pair, chr(new))
                return ord(pair[0]), ord(pair[1]), -negative_count
            if self._count_of[pair]:
                heapq.heappush(self._heap, (-self._count_of[pair], pair))
        return None

    def _merge(self, pair: str, new: str) -> None:
        left, right = pair
        changed: Counter[str] = Counter()
        for w in self._words_with.pop(pair):
            parts = self._words[w].split(pair)
            for lost, gained in _neighbors(parts, left, right, new):
                changed[lost] -= self._times[w]
                changed[gained] += self._times[w]
                self._words_with[gained].add(w)
            self._words[w] = new.join(parts)
        self._count_of.update(changed)
        del self._count_of[pair]
        for touched in changed:
            if new in touched:
                heapq.heappush(self._heap, (-self._count_of[touched], touched))


def _neighbors(parts: list[str], left: str, right: str, new: str) -> Iterator[tuple[str, str]]:
    """Yields each (lost pair, new pair) when `left + right` becomes `new` in a word.

    The word is its `parts` with `left + right` between them.
    """
    for i, part in enumerate(parts):
        follows_new, precedes_new = i > 0, i < len(parts) - 1
        if part and follows_new:
            yield right + part[0], new + part[0]
        if part and precedes_new:
            yield part[-1] + left, part[-1] + new
        if not part and follows_new and precedes_new:
            yield right + left, new + new

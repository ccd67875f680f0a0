"""Fast encoding with pieces: the ids of words are cached, and runs of spaces need no merging.

Text is cut only where no piece of the vocabulary crosses the cut, so the ids of the parts are the
ids of the whole. Cuts are before a space that follows another character; between letters, digits
and other ASCII; around characters that are in no piece; and, in a long word, between two characters
that are neighbors in no piece.

Notebook 10. Llama 1 and 2.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from operator import add

from llama_from_scratch.tokenizer.merges import merge
from llama_from_scratch.tokenizer.pieces import BLANK
from llama_from_scratch.tokenizer.word_cache import Memo

# Each pattern makes fewer cuts than the one before it. A vocabulary uses the first pattern that
# cuts none of its pieces in two.
_LETTERS = rf"[^\x00-@\[-`{{-\x7f{BLANK}]+"
_OTHERS = r"[\x00-\x1f!-/:-@\[-`{-\x7f]+"
_WORDS = tuple(
    re.compile(rf"[ {BLANK}]*(?:{kinds})|[ {BLANK}]+")
    for kinds in (rf"{_LETTERS}|[0-9]|{_OTHERS}", rf"{_LETTERS}|[0-9]+|{_OTHERS}",
                  rf"[^ {BLANK}]+", r"(?s:.)+"))
LLAMA_WORDS = _WORDS[0]
"""The pattern that finds words which no piece of Llama crosses."""
_LONG_WORD = 24


class PieceWords:
    """Encodes a text word by word with a vocabulary whose ordinary pieces are `texts`.

    `encode_known` returns the ids of characters that occur in pieces, with spaces written ▁.
    `encode_unknown` returns the ids of all other characters.
    """

    def __init__(
        self, texts: Collection[str], *, encode_known: Callable[[str], tuple[int, ...]],
        encode_unknown: Callable[[str], Sequence[int]],
    ):
        self._words = next(words for words in _WORDS if all(map(words.fullmatch, texts)))
        self._known = {BLANK}.union(*texts)
        self._unknown_run = re.compile(f"([^{re.escape(''.join(sorted(self._known)))}]+)")
        self._pairs = {left + right for text in texts for left, right in pairwise(text)}
        self._encode_known = encode_known
        self._encode_unknown = encode_unknown
        self._ids_of = Memo(self._encode_word)

    def encode(self, text: str) -> Iterator[int]:
        """Returns the ids of `text`, in which spaces may be written ▁."""
        return chain.from_iterable(map(self._ids_of.__getitem__, self._words.findall(text)))

    def _encode_word(self, word: str) -> tuple[int, ...]:
        word = word.replace(" ", BLANK)
        if self._known.issuperset(word):
            return self._encode_cut(word)
        # The group keeps the characters that are in no piece, so they are every second part.
        parts = (self._encode_unknown(part) if i % 2 else self._ids_of[part]
                 for i, part in enumerate(self._unknown_run.split(word)) if part)
        return tuple(chain.from_iterable(parts))

    def _encode_cut(self, word: str) -> tuple[int, ...]:
        if len(word) <= _LONG_WORD or self._pairs.issuperset(map(add, word, word[1:])):
            return self._encode_known(word)
        pairs = enumerate(map(add, word, word[1:]), start=1)
        cuts = [i for i, pair in pairs if pair not in self._pairs]
        fragments = (word[begin:end] for begin, end in pairwise([0, *cuts, len(word)]))
        return tuple(chain.from_iterable(map(self._ids_of.__getitem__, fragments)))


def longest_run(ranks: Mapping[str, int]) -> int:
    """Returns the length of the longest piece of spaces if runs of spaces merge last; else 1.

    In Llama's files runs of spaces merge last and have equal scores. So encoding takes the longest
    piece repeatedly from the left, and spaces need no merging.
    """
    last = max(ranks.values(), default=0)
    tied = {text for text, rank in ranks.items() if rank == last and len(text) > 1}
    is_greedy = tied == {BLANK * n for n in range(2, len(tied) + 2)} and BLANK in ranks
    is_last = not any(BLANK * 2 in text for text in ranks.keys() - tied)
    return len(tied) + 1 if is_greedy and is_last else 1


def merge_but_runs(word: str, ranks: Mapping[str, int], *, n_run: int) -> list[str]:
    """Returns the parts of `word` after merging; a run of spaces is cut into its longest pieces.

    `n_run`: the length of the longest piece of spaces; these pieces are not among the `ranks`. It
    is 1 if spaces merge like all other characters.
    """
    parts = merge(word, ranks)
    if n_run == 1 or BLANK not in parts:
        return parts
    merged: list[str] = []
    for part, same in groupby(parts):
        n = sum(map(bool, same))
        if part == BLANK:
            n_whole, rest = divmod(n, n_run)
            merged += [BLANK * n_run] * n_whole + [BLANK * rest] * (rest > 0)
        else:
            merged += [part] * n
    return merged

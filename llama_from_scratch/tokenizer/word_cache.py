"""Fast encoding: the ids of words are cached, and most words have occurred before.

A text is cut into pre-tokens, and the ids of each are computed once. Text with characters beyond
ASCII is first cut at spaces, because looking a whole word up is faster than splitting it again with
`regex`, which is slower than `re`.

Notebook 10. All generations.
"""

from collections.abc import Callable
from itertools import chain

from llama_from_scratch.tokenizer.split import Splitter

_MEMO_TEXTS = 131_072
_MEMO_CHARS = 64


class Memo(dict):
    """A cache of `compute` for at most 131,072 texts of at most 64 characters.

    When it is full, it is emptied.
    """

    def __init__(self, compute: Callable[[str], tuple[int, ...]]):
        self._compute = compute

    def __missing__(self, text: str) -> tuple[int, ...]:
        ids = self._compute(text)
        if len(text) <= _MEMO_CHARS:
            if len(self) >= _MEMO_TEXTS:
                self.clear()
            self[text] = ids
        return ids


class WordCache:
    """Encodes text by joining the cached ids of its pre-tokens."""

    def __init__(self, split: Splitter, encode_pretoken: Callable[[str], tuple[int, ...]]):
        self._split = split
        self._ids_of = Memo(encode_pretoken)
        self._ids_after_blank = Memo(lambda word: self._encode_pretokens(" " + word))

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, in which all special strings are ordinary text."""
        ids: list[int] = []
        for lines in self._split.lines(text):
            if lines.isascii():
                ids += self._encode_pretokens(lines)
            else:
                first, *words = self._split.words(lines)
                ids += self._encode_pretokens(first)
                ids += chain.from_iterable(map(self._ids_after_blank.__getitem__, words))
        return ids

    def _encode_pretokens(self, text: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(map(self._ids_of.__getitem__, self._split(text))))

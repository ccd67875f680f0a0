"""What reading and writing a tokenizer.json share: symbols for bytes, and checks of merges.

Notebook 10. All Llamas. Source: transformers, convert_slow_tokenizer.py; openai/gpt-2, encoder.py,
for the symbols.
"""

from collections.abc import Mapping, Sequence

from llama_from_scratch.tokenizer.long_words import Word
from llama_from_scratch.tokenizer.merges import merge
from llama_from_scratch.tokenizer.sentencepiece import Prefix

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
SYMBOL_OF = {value: chr(value) for value in _PRINTABLE} | {
    value: chr(256 + i) for i, value in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))
}
"""The symbol of each byte: the same character if printable in Latin-1, else one from U+0100 on."""
BYTE_OF = {symbol: value for value, symbol in SYMBOL_OF.items()}
SCHEMES: dict[str, Prefix] = {
    "always": "if missing", "first": "first if missing", "never": "never",
}
"""The prefix for each prepend_scheme of a Metaspace."""


def splits(token: Word, known: Mapping[Word, object]) -> list[tuple[Word, Word]]:
    """Returns all ways to make a token of two known tokens."""
    halves = ((token[:i], token[i:]) for i in range(1, len(token)))
    return [(left, right) for left, right in halves if left in known and right in known]


def check_merges(
    merges: Sequence[tuple[Word, Word]], ranks: Mapping[Word, int], *, cure: str
) -> set[Word]:
    """Returns the tokens that merging reaches.

    Raises ValueError unless merging by these pairs gives the same as merging by these ranks.
    """
    place = {pair: i for i, pair in enumerate(merges)}
    reached, before = set(), -1
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        halves = tuple(merge(token, ranks, n_parts=2))
        if len(halves) > 2:
            continue  # no text ever becomes this token by merging
        if halves not in place:
            raise ValueError(f"the merges must include the last merge of each token; {token!r} is "
                             f"made of {halves}, which is missing; {cure}")
        if place[halves] < before:
            raise ValueError("merges must be in the order of the tokens that they make; got "
                             f"{halves} too early; {cure}")
        before = place[halves]
        reached.add(token)
    return reached

"""What reading and writing a tokenizer.json share: symbols for bytes, and merges against ranks.

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
"""How each byte is written: as itself if it is printable in Latin-1, else as one from U+0100 on."""
BYTE_OF = {symbol: value for value, symbol in SYMBOL_OF.items()}
SCHEMES: dict[str, Prefix] = {
    "always": "if missing", "first": "first if missing", "never": "never",
}
"""What a Metaspace's prepend_scheme means."""


def splits(token: Word, known: Mapping[Word, object]) -> list[tuple[Word, Word]]:
    """Returns the ways to make a token of two that are known."""
    halves = ((token[:i], token[i:]) for i in range(1, len(token)))
    return [(left, right) for left, right in halves if left in known and right in known]


def check_merges(
    merges: Sequence[tuple[Word, Word]], ranks: Mapping[Word, int], *, cure: str
) -> set[Word]:
    """Returns the tokens that merging reaches.

    Raises ValueError unless merging by these pairs is merging by these ranks.
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
            raise ValueError(f"{token!r} is made of {halves}, which is not among the merges; "
                             f"{cure}")
        if place[halves] < before:
            raise ValueError(f"merges come in the order of what they make, got {halves} too early; "
                             f"{cure}")
        before = place[halves]
        reached.add(token)
    return reached

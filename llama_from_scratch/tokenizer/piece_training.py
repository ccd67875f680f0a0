"""Learns the pieces of SentencePiece, with the algorithm of `merges` on characters, not bytes.

The 256 most common characters are numbered and used in place of the bytes, so that one algorithm
trains both kinds of tokenizer. No piece crosses two words. Spaces never merge with each other,
because runs of spaces are pieces from the start. The learned pieces follow the fixed ones, as in
Llama's files.

Notebook 10. Llama 1 and 2. Source: Kudo and Richardson, arXiv:1808.06226.
"""

import re
from collections import Counter
from collections.abc import Iterable

from llama_from_scratch.tokenizer.merges import learn_merges
from llama_from_scratch.tokenizer.piece_words import LLAMA_WORDS
from llama_from_scratch.tokenizer.pieces import BLANK, FIRST_PIECES, Piece
from llama_from_scratch.tokenizer.split import without_surrogates

_N_RUNS = 16
_RUN_SCORE = -1e9


def learn_pieces(text: str | Iterable[str], vocab_size: int) -> list[Piece]:
    """Returns `vocab_size` pieces learned from one or more texts, in the same order as Llama's.

    First come <unk>, <s>, </s>, the 256 bytes and 16 runs of spaces, then the merged pieces, then
    the characters. The 256 most common characters are pieces; rarer ones are encoded as bytes. Ties
    between pairs are broken as in `learn_merges`, with the most common character first.

    Raises ValueError if `vocab_size` has no room for the pieces that are not learned, or if the
    text has no pairs left before `vocab_size` is reached.
    """
    counts: Counter[str] = Counter()
    for document in [text] if isinstance(text, str) else text:
        blanks_shown = (" " + without_surrogates(document)).replace(" ", BLANK)
        counts.update(LLAMA_WORDS.findall(blanks_shown))
    counts = _sum((re.sub(f"{BLANK}+", BLANK, word), n) for word, n in counts.items())
    chars = _sum((char, n) for word, n in counts.items() for char in word)
    alphabet = list(dict.fromkeys([BLANK, *(char for char, _ in chars.most_common())]))[:256]
    runs = [Piece(BLANK * n, _RUN_SCORE) for n in range(1, _N_RUNS + 1)]
    fixed = [*FIRST_PIECES, *runs]
    n_merges = vocab_size - len(fixed) - len(alphabet) + 1
    if n_merges < 0:
        raise ValueError(f"vocab_size must have room for {len(fixed)} fixed pieces and "
                         f"{len(alphabet) - 1} characters; got {vocab_size}. Give at least "
                         f"{vocab_size - n_merges}")
    # `learn_merges` works on 256 units, the byte values. Here each unit is a character.
    number = {char: i for i, char in enumerate(alphabet)}
    known = re.compile("[" + re.escape("".join(alphabet)) + "]+")
    words = _sum((bytes(number[char] for char in part), n)
                 for word, n in counts.items() for part in known.findall(word))
    merges = learn_merges(words, n_merges)
    if len(merges) < n_merges:
        reachable = vocab_size - n_merges + len(merges)
        raise ValueError("each merge needs a pair of neighbors, and this text has none left at "
                         f"{reachable} pieces; got vocab_size={vocab_size}. Give more text, or "
                         f"vocab_size={reachable}")
    learned = ["".join(alphabet[unit] for unit in left + right) for left, right in merges]
    return fixed + [Piece(t, float(-i)) for i, t in enumerate(learned + alphabet[1:])]


def _sum(counts: Iterable[tuple]) -> Counter:
    total: Counter = Counter()
    for key, n in counts:
        total[key] += n
    return total

"""Learning the pieces of SentencePiece: the merges of `merges`, of characters instead of bytes.

The 256 commonest characters are numbered and take the place of the bytes, so that one algorithm
trains both kinds of tokenizer. No piece crosses two words, and blanks never merge with each other:
runs of them are pieces from the start. What is learned follows the fixed pieces, as in Llama.

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
    """Returns the `vocab_size` pieces that are learned from `text` or texts, laid out as Llama's.

    First come <unk>, <s>, </s>, the 256 bytes and 16 runs of blanks, then what merging makes, then
    characters. The 256 commonest characters are pieces; a rarer one stays bytes. Ties between pairs
    are broken as `learn_merges` says, with the commonest character first.

    Raises ValueError if `vocab_size` has no room for what is not learned, or if the text runs out
    of pairs before it is reached.
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
        raise ValueError(f"vocab_size holds {len(fixed)} fixed pieces and {len(alphabet) - 1} "
                         f"characters, so at least {vocab_size - n_merges}; got {vocab_size}")
    # `learn_merges` knows 256 units, which it takes for bytes: here they are characters.
    number = {char: i for i, char in enumerate(alphabet)}
    known = re.compile("[" + re.escape("".join(alphabet)) + "]+")
    words = _sum((bytes(number[char] for char in part), n)
                 for word, n in counts.items() for part in known.findall(word))
    merges = learn_merges(words, n_merges)
    if len(merges) < n_merges:
        reachable = vocab_size - n_merges + len(merges)
        raise ValueError("each merge needs a pair of neighbours, and this text has none left at "
                         f"{reachable} pieces; got vocab_size={vocab_size}; give more text or "
                         f"vocab_size={reachable}")
    learned = ["".join(alphabet[unit] for unit in left + right) for left, right in merges]
    return fixed + [Piece(t, float(-i)) for i, t in enumerate(learned + alphabet[1:])]


def _sum(counts: Iterable[tuple]) -> Counter:
    total: Counter = Counter()
    for key, n in counts:
        total[key] += n
    return total

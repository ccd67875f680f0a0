"""Byte-level byte-pair encoding: text <-> ids, the tokenizer of Llama 3 and 4.

A text is cut into pre-tokens, and the bytes of each pre-token merge as in `merges`. Every text and
every byte string comes back unchanged from encoding and decoding. `word_cache` keeps the ids of
words that were encoded before.

Notebook 10. Llama 3 and 4. Source: Sennrich et al., arXiv:1508.07909, section 3.2;
llama-models, models/llama3/tokenizer.py.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter

from llama_from_scratch.tokenizer.batch import EncodesBatches
from llama_from_scratch.tokenizer.merges import OnMerge, learn_merges, merge_word
from llama_from_scratch.tokenizer.prompting import Prompted
from llama_from_scratch.tokenizer.rank_file import check_ranks, read_ranks, write_ranks
from llama_from_scratch.tokenizer.special_tokens import (
    SpecialNames,
    check_names,
    names_allowed,
    one_of,
)
from llama_from_scratch.tokenizer.split import (
    LLAMA3_PATTERN,
    Splitter,
    cut_long,
    without_surrogates,
)
from llama_from_scratch.tokenizer.word_cache import WordCache

BEGIN_AND_END = ("<|begin_of_text|>", "<|end_of_text|>")
"""The special tokens that begin and end a text; `bos_id` and `eos_id` are their ids."""


def join_bytes(bytes_of: Mapping[int, bytes], ids: Iterable[int]) -> bytes:
    """Returns the bytes of all `ids`, joined. Raises ValueError for an id that has no bytes."""
    ids = tuple(ids)
    try:
        # itemgetter looks all ids up in one step, but returns no tuple for a single id.
        return b"".join(itemgetter(*ids)(bytes_of) if len(ids) > 1 else [bytes_of[i] for i in ids])
    except KeyError as unknown:
        raise ValueError(f"ids run from 0 to vocab_size - 1 = {len(bytes_of) - 1}; got "
                         f"{unknown.args[0]!r}. Decode with the tokenizer that encoded") from None


class Tokenizer(EncodesBatches, Prompted):
    """Text to ids and back.

    `ranks`: token bytes -> rank. A rank is both the id and the priority of a merge; low ranks merge
    first. `special_tokens` get the ids after the ranks, in order. `pattern` cuts text into
    pre-tokens.
    Raises ValueError if the ranks are not 0, 1, 2, ... or lack a byte, or if a special token is
    empty or occurs twice.
    """

    def __init__(
        self, ranks: Mapping[bytes, int], *, special_tokens: Sequence[str] = (),
        pattern: str = LLAMA3_PATTERN,
    ) -> None:
        check_ranks(ranks)
        check_names(special_tokens)
        self.bos, self.eos = BEGIN_AND_END
        self.ranks: dict[bytes, int] = dict(ranks)
        self.special_ids = {name: len(ranks) + i for i, name in enumerate(special_tokens)}
        self.pattern = pattern
        self._token_of = {rank: token for token, rank in ranks.items()}
        self._token_of |= {i: name.encode() for name, i in self.special_ids.items()}
        self._words = WordCache(Splitter(pattern), self._encode_pretoken)

    @classmethod
    def train(
        cls, text: str | Iterable[str], vocab_size: int, *, special_tokens: Sequence[str] = (),
        pattern: str = LLAMA3_PATTERN, on_merge: OnMerge | None = None,
    ) -> "Tokenizer":
        """Returns a tokenizer with `vocab_size` ids: bytes, learned merges and `special_tokens`.

        The merges are learned from `text`, one text or several. Ties between pairs are broken as in
        `learn_merges`. Special strings inside `text` are ordinary text.
        `on_merge(rank, left, right, count)` is called after each merge.
        Raises ValueError if `vocab_size` has no room for the 256 bytes and the special tokens, or
        if `text` has no pairs left before `vocab_size` is reached.
        """
        check_names(special_tokens)
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise ValueError("vocab_size must have room for 256 bytes and "
                             f"{len(special_tokens)} special tokens; got {vocab_size}. Give at "
                             f"least {256 + len(special_tokens)}")
        split = Splitter(pattern)
        counts: Counter[str] = Counter()
        for document in [text] if isinstance(text, str) else text:
            counts.update(split(without_surrogates(document)))
        words = {pretoken.encode(): count for pretoken, count in counts.items()}
        merges = learn_merges(words, n_merges, on_merge=on_merge)
        if len(merges) < n_merges:
            reachable = vocab_size - n_merges + len(merges)
            raise ValueError("each merge needs a pair of neighbors, and this text has none left "
                             f"at {reachable} ids; got vocab_size={vocab_size}. Give more text, or "
                             f"vocab_size={reachable}")
        tokens = [bytes([value]) for value in range(256)]
        tokens += [left + right for left, right in merges]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        return cls(ranks, special_tokens=special_tokens, pattern=pattern)

    @property
    def vocab_size(self) -> int:
        """The number of ids, including special tokens."""
        return len(self._token_of)

    @property
    def bos_id(self) -> int:
        """The id of <|begin_of_text|>. Raises ValueError if there is none."""
        return self._special_id(BEGIN_AND_END[0])

    @property
    def eos_id(self) -> int:
        """The id of <|end_of_text|>. Raises ValueError if there is none."""
        return self._special_id(BEGIN_AND_END[1])

    def _special_id(self, name: str) -> int:
        if name not in self.special_ids:
            raise ValueError(f"this needs the special token {name!r}; the vocabulary has "
                             f"{list(self.special_ids) or 'none'}. Add it to special_tokens when "
                             "you train or load the tokenizer")
        return self.special_ids[name]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False,
        allowed_special: SpecialNames = frozenset(), disallowed_special: SpecialNames = frozenset(),
    ) -> list[int]:
        """Returns the ids of `text`, with bos_id in front if `bos`, and eos_id at the end if `eos`.

        A special string inside `text` is ordinary text, because users may type it. If it is in
        `allowed_special`, it becomes its id. Raises ValueError if it is in `disallowed_special`;
        "all" there means all that are not allowed. Lone surrogates become U+FFFD. Very long text is
        cut first (`cut_long`), possibly inside a special string.
        """
        allowed = names_allowed(text, self.special_ids, allowed_special=allowed_special,
                                disallowed_special=disallowed_special)
        ids = [self.bos_id] if bos else []
        for stretch in cut_long(without_surrogates(text)):
            if not allowed:
                ids += self._words.encode(stretch)
                continue
            # The pattern's group keeps the special strings, so they are every second part.
            for i, part in enumerate(one_of(allowed).split(stretch)):
                ids += [self.special_ids[part]] if i % 2 else self._words.encode(part)
        return [*ids, self.eos_id] if eos else ids

    def _encode_pretoken(self, pretoken: str) -> tuple[int, ...]:
        word = pretoken.encode()
        # A word that is a token needs no merging, and merging cannot reach some tokens of Llama 3.
        rank = self.ranks.get(word)
        return tuple(merge_word(word, self.ranks)) if rank is None else (rank,)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of `ids`. Raises ValueError for an id outside the vocabulary."""
        return join_bytes(self._token_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; bytes that are not UTF-8, as of half a letter, are U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: str | os.PathLike) -> None:
        """Writes the ranks as Meta's tokenizer.model, a file without special tokens."""
        write_ranks(path, self.ranks)

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, special_tokens: Sequence[str] = (),
        pattern: str = LLAMA3_PATTERN, n_ranks: int | None = None,
    ) -> "Tokenizer":
        """Returns the tokenizer of a file in the format that `save` writes.

        `n_ranks`: how many ranks the file must have, if that is known. Special tokens get the ids
        after the ranks, so a file that lost its last lines would change all their ids. Raises
        ValueError, naming the line, if the file is malformed.
        """
        ranks = read_ranks(path)
        if n_ranks is not None and len(ranks) != n_ranks:
            raise ValueError(f"special tokens get the ids after the ranks, so this rank file must "
                             f"have {n_ranks:,} ranks; got {len(ranks):,} in {path}. It may have "
                             "lost lines: download it again, or give its number as n_ranks")
        return cls(ranks, special_tokens=special_tokens, pattern=pattern)

    def __reduce__(self):
        make = partial(type(self), special_tokens=tuple(self.special_ids), pattern=self.pattern)
        # a copy starts with an empty cache
        return make, (self.ranks,), {"prompting": self.prompting}

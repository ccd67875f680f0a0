"""Byte-level byte-pair encoding: text <-> ids, the tokenizer of Llama 3 and 4.

Training starts from the 256 bytes and again and again makes one new token of the commonest pair of neighbours.
Encoding replays that: in each pre-token the pair learned first merges first. Any text and any bytes survive the trip.

Notebook 10. Llama 3 and 4. Source: Sennrich et al., arXiv:1508.07909, section 3.2;
llama-models, models/llama3/tokenizer.py.
"""

import base64
import heapq
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import accumulate, chain, pairwise
from operator import add, itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from llama_from_scratch.tokenizer.batch import encode_batch
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, Splitter, cut_long, names_allowed, one_of, without_surrogates

BEGIN_AND_END = ("<|begin_of_text|>", "<|end_of_text|>")
"""The special tokens that frame a text: what `bos_id` and `eos_id` stand for."""

OnMerge = Callable[[int, bytes, bytes, int], object]

Word = TypeVar("Word", bytes, str)

_LONG_WORD = 200
_FEW_PAIRS = 64
_MEMO_TEXTS = 131_072
_MEMO_CHARS = 64


def learn_merges(counts: Mapping[bytes, int], n_merges: int, *, on_merge: OnMerge | None = None) -> list[tuple[bytes, bytes]]:
    """The first `n_merges` merges of words that occur `counts` times, each as (left token, right token).

    Takes the pair with the highest count; among equals the smallest left id, then the smallest right id, where a byte's
    id is its value and merge k makes id 256 + k. Ends early when no pair is left. `{b"abab": 1, b"ab": 3}` ->
    `[(b"a", b"b"), (b"ab", b"ab")]`, as "ab" occurs 5 times and then "abab" once.

    `on_merge(rank, left, right, count)` hears of each merge. A merge visits only the words that hold its pair.
    """
    # A word is a string whose characters are token ids: `split` and `join` then merge at the speed of C, and comparing
    # two pairs as strings compares left ids, then right ids.
    words = [word.decode("latin-1") for word in counts]
    times = list(counts.values())
    pair_count: Counter[str] = Counter()
    words_with: defaultdict[str, set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for left, right in pairwise(word):
            pair_count[left + right] += times[w]
            words_with[left + right].add(w)
    # Counts of old pairs only fall, so an entry is never too low: one that is too high goes back with its true count.
    heap = [(-count, pair) for pair, count in pair_count.items()]
    heapq.heapify(heap)

    tokens = [bytes([value]) for value in range(256)]
    merges = []
    while heap and len(merges) < n_merges:
        negative_count, pair = heapq.heappop(heap)
        if -negative_count != pair_count[pair]:
            if pair_count[pair]:
                heapq.heappush(heap, (-pair_count[pair], pair))
            continue
        left, right = pair
        new = chr(len(tokens))
        changed: Counter[str] = Counter()
        for w in words_with.pop(pair):
            parts = words[w].split(pair)
            for lost, gained in _neighbours(parts, left, right, new):
                changed[lost] -= times[w]
                changed[gained] += times[w]
                words_with[gained].add(w)
            words[w] = new.join(parts)
        pair_count.update(changed)
        del pair_count[pair]
        for touched in changed:
            if new in touched:
                heapq.heappush(heap, (-pair_count[touched], touched))
        tokens.append(tokens[ord(left)] + tokens[ord(right)])
        merges.append((tokens[ord(left)], tokens[ord(right)]))
        if on_merge:
            on_merge(len(tokens) - 1, *merges[-1], -negative_count)
    return merges


def _neighbours(parts: list[str], left: str, right: str, new: str) -> Iterator[tuple[str, str]]:
    """Each (pair lost, pair gained) when every gap between two `parts`, so far `left + right`, becomes `new`."""
    for i, part in enumerate(parts):
        follows_new, precedes_new = i > 0, i < len(parts) - 1
        if part and follows_new:
            yield right + part[0], new + part[0]
        if part and precedes_new:
            yield part[-1] + left, part[-1] + new
        if not part and follows_new and precedes_new:
            yield right + left, new + new


def merge_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The ids of one pre-token: from single bytes, the adjacent pair of lowest rank merges first, leftmost on ties.

    With ranks `b"a"`, `b"b"`, `b"c"` = 0, 1, 2 and `b"bc"` = 3, `b"ab"` = 4: `b"abc"` -> `[0, 3]`.
    """
    return [ranks[part] for part in merge(word, ranks)]


def merge(word: Word, ranks: Mapping[Word, int], *, n_parts: int = 1) -> list[Word]:
    """The parts `word` is left in when no two neighbours together have a rank, or before that as soon as they are `n_parts`.

    The parts are bytes at first, or the characters of a str.
    """
    if len(word) > _LONG_WORD:
        row = list(range(1, len(word) + 1))
        return _merge_run(word, ranks) if n_parts == 1 else _merge_long(word, ranks, row, n_parts=n_parts)
    rank_of, none = ranks.get, sys.maxsize
    parts = [word[i : i + 1] for i in range(len(word))]
    pair_ranks = [rank_of(word[i : i + 2], none) for i in range(len(word) - 1)]
    while len(parts) > n_parts and (best := min(pair_ranks)) != none:
        i = pair_ranks.index(best)
        del pair_ranks[i]
        parts[i] = merged = parts[i] + parts.pop(i + 1)
        if i:
            pair_ranks[i - 1] = rank_of(parts[i - 1] + merged, none)
        if i < len(pair_ranks):
            pair_ranks[i] = rank_of(merged + parts[i + 1], none)
    return parts


def _merge_run(word: Word, ranks: Mapping[Word, int]) -> list[Word]:
    """What `merge` gives, in steps that merge a pair wherever it is, while pairs are few, as in one letter repeated."""
    row = word if isinstance(word, str) else word.decode("latin-1")  # a character per part
    part_of = {char: char if isinstance(word, str) else char.encode("latin-1") for char in set(row)}
    for new in map(chr, range(0xD800, 0xE000)):  # surrogates, which no text and no byte is
        pairs = set(map(add, row, row[1:]))
        if len(pairs) > _FEW_PAIRS:
            break
        found = sorted((rank, pair) for pair in pairs if (rank := ranks.get(part_of[pair[0]] + part_of[pair[1]])) is not None)
        if not found:
            return [part_of[char] for char in row]
        rank, pair = found[0]
        merged = part_of[pair[0]] + part_of[pair[1]]
        # Everywhere at once is one after the other, unless another pair may merge in between: of this rank, or of a
        # rank as low with what has just been merged.
        beside = [merged, *(part_of[char] for char in set("".join(pairs)))]
        next_ranks = [ranks.get(both) for part in beside for both in (part + merged, merged + part)]
        if (found[1:2] and found[1][0] == rank) or any(other is not None and other <= rank for other in next_ranks):
            break
        part_of[new] = merged
        row = row.replace(pair, new)
    return _merge_long(word, ranks, list(accumulate(len(part_of[char]) for char in row)))


def _merge_long(word: Word, ranks: Mapping[Word, int], part_ends: list[int], *, n_parts: int = 1) -> list[Word]:
    """What `merge` gives, in n log n steps: a heap finds the lowest rank, links skip what has been merged away."""
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
            continue  # a neighbour has merged since
        n_left -= 1
        ends[middle] = 0
        ends[i] = end
        begins[end] = i
        for found in (candidate(begins[i]), candidate(i)):
            if found:
                heapq.heappush(heap, found)
    return [word[i:end] for i, end in enumerate(ends) if end]


class Memo(dict):
    """A bounded memory of `compute`: at most 131,072 texts of at most 64 characters, all forgotten when full."""

    def __init__(self, compute: Callable[[str], tuple[int, ...]]):
        self._compute = compute

    def __missing__(self, text: str) -> tuple[int, ...]:
        ids = self._compute(text)
        if len(text) <= _MEMO_CHARS:
            if len(self) >= _MEMO_TEXTS:
                self.clear()
            self[text] = ids
        return ids


def join_bytes(bytes_of: Mapping[int, bytes], ids: Iterable[int]) -> bytes:
    """The bytes of `ids`, in a row. Raises ValueError at an id that has none."""
    ids = tuple(ids)
    try:
        # itemgetter looks all up in one step, but gives no tuple for one.
        return b"".join(itemgetter(*ids)(bytes_of) if len(ids) > 1 else [bytes_of[i] for i in ids])
    except KeyError as unknown:
        raise ValueError(
            f"ids run from 0 to vocab_size - 1 = {len(bytes_of) - 1}, got {unknown.args[0]!r}; decode with the tokenizer that "
            "encoded"
        ) from None


class Tokenizer:
    """Text to ids and back, from `ranks`: token bytes -> rank, which is both the id and the merge priority.

    `special_tokens` take the ids after the ranks, in order; `pattern` cuts text into pre-tokens. Raises ValueError if
    the ranks are not 0, 1, 2, ... or lack a byte, or if special tokens are empty or double.
    """

    def __init__(self, ranks: Mapping[bytes, int], *, special_tokens: Sequence[str] = (), pattern: str = LLAMA3_PATTERN):
        _check_ranks(ranks)
        _check_special_tokens(special_tokens)
        self.ranks: dict[bytes, int] = dict(ranks)
        self.special_ids: dict[str, int] = {name: len(ranks) + i for i, name in enumerate(special_tokens)}
        self.pattern = pattern
        self._split = Splitter(pattern)
        self._token_of = {rank: token for token, rank in ranks.items()}
        self._token_of |= {special_id: name.encode() for name, special_id in self.special_ids.items()}
        self._ids_of = Memo(self._encode_pretoken)
        self._ids_after_blank = Memo(lambda word: self._encode_pieces(" " + word))

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = (),
        pattern: str = LLAMA3_PATTERN,
        on_merge: OnMerge | None = None,
    ) -> "Tokenizer":
        """A tokenizer of `vocab_size` ids: 256 bytes, then merges learned from `text` or texts, then `special_tokens`.

        Ties between pairs are broken as `learn_merges` says; special strings inside `text` are ordinary text.
        `on_merge(rank, left, right, count)` hears of each merge. Raises ValueError if `vocab_size` has no room for
        bytes and special tokens, or if `text` runs out of pairs before it is reached.
        """
        _check_special_tokens(special_tokens)
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise ValueError(
                f"vocab_size holds 256 bytes and {len(special_tokens)} special tokens, so at least "
                f"{256 + len(special_tokens)}; got {vocab_size}"
            )
        split = Splitter(pattern)
        counts: Counter[str] = Counter()
        for document in [text] if isinstance(text, str) else text:
            counts.update(split(without_surrogates(document)))
        words = {pretoken.encode(): count for pretoken, count in counts.items()}
        merges = learn_merges(words, n_merges, on_merge=on_merge)
        if len(merges) < n_merges:
            reachable = vocab_size - n_merges + len(merges)
            raise ValueError(
                f"each merge needs a pair of neighbours, and this text has none left at {reachable} ids; got "
                f"vocab_size={vocab_size}; give more text or vocab_size={reachable}"
            )
        tokens = [bytes([value]) for value in range(256)] + [left + right for left, right in merges]
        return cls({token: rank for rank, token in enumerate(tokens)}, special_tokens=special_tokens, pattern=pattern)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""
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
            raise ValueError(
                f"this needs the special token {name!r}, and the vocabulary has {list(self.special_ids) or 'none'}; "
                "name it in special_tokens when training or loading"
            )
        return self.special_ids[name]

    def encode(
        self,
        text: str,
        *,
        bos: bool = False,
        eos: bool = False,
        allowed_special: Literal["all"] | Set[str] = frozenset(),
        disallowed_special: Literal["all"] | Set[str] = frozenset(),
    ) -> list[int]:
        """The ids of `text`, with bos_id before and eos_id after if asked for.

        A special string inside `text` is ordinary text, as users may type it, unless `allowed_special` has it: then it
        becomes its id. One that `disallowed_special` has raises ValueError; "all" there means all not allowed.
        Lone surrogates become U+FFFD. Very long text is cut first (`cut_long`), also through a special string.
        """
        allowed = names_allowed(text, self.special_ids, allowed_special=allowed_special, disallowed_special=disallowed_special)
        ids = [self.bos_id] if bos else []
        for stretch in cut_long(without_surrogates(text)):
            if not allowed:
                ids += self._encode_ordinary(stretch)
                continue
            # the group keeps the special strings: they are every second part
            for i, part in enumerate(one_of(allowed).split(stretch)):
                ids += [self.special_ids[part]] if i % 2 else self._encode_ordinary(part)
        return [*ids, self.eos_id] if eos else ids

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        n_workers: int | None = None,
        bos: bool = False,
        eos: bool = False,
        allowed_special: Literal["all"] | Set[str] = frozenset(),
        disallowed_special: Literal["all"] | Set[str] = frozenset(),
    ) -> list[list[int]]:
        """The ids of each text, as `encode` gives them, by `n_workers` processes; None is as many as there are cores.

        With None, little text stays in this process. Raises what `encode` raises, at the first text where it does.
        """
        encode = partial(self.encode, bos=bos, eos=eos, allowed_special=allowed_special, disallowed_special=disallowed_special)
        return encode_batch(encode, texts, n_workers=n_workers)

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for lines in self._split.lines(text):
            if lines.isascii():
                ids += self._encode_pieces(lines)
            else:
                # To find words again is faster than to split them again, as `regex` does not have the speed of `re`.
                first, *words = self._split.words(lines)
                ids += chain(self._encode_pieces(first), chain.from_iterable(map(self._ids_after_blank.__getitem__, words)))
        return ids

    def _encode_pieces(self, text: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(map(self._ids_of.__getitem__, self._split(text))))

    def _encode_pretoken(self, pretoken: str) -> tuple[int, ...]:
        word = pretoken.encode()
        # A whole token is taken at once: some tokens of Llama 3 cannot be reached by merging.
        rank = self.ranks.get(word)
        return tuple(merge_word(word, self.ranks)) if rank is None else (rank,)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for. Raises ValueError at an id the vocabulary does not have."""
        return join_bytes(self._token_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for; bytes that are not UTF-8, as half a character, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: str | os.PathLike) -> None:
        """Writes Meta's tokenizer.model: a line per token, in base64, with its rank; no special tokens."""
        lines = [
            b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(self.ranks.items(), key=lambda item: item[1])
        ]
        write_whole(path, b"".join(lines))

    @classmethod
    def load(cls, path: str | os.PathLike, *, special_tokens: Sequence[str] = (), pattern: str = LLAMA3_PATTERN) -> "Tokenizer":
        """The tokenizer of a file as `save` writes it. Raises ValueError, with the line, if the file is malformed."""
        ranks: dict[bytes, int] = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                token, rank = line.split()
                token = base64.b64decode(token, validate=True)
                rank = int(rank)
            except ValueError:
                raise ValueError(
                    f"a rank file holds a token in base64, a blank and a rank per line, got {line[:80]!r} in line "
                    f"{number} of {path}; download the file again"
                ) from None
            if token in ranks:
                raise ValueError(f"a token has one rank, got {token!r} again in line {number} of {path}; keep one line")
            ranks[token] = rank
        return cls(ranks, special_tokens=special_tokens, pattern=pattern)

    def __reduce__(self):
        make = partial(type(self), special_tokens=tuple(self.special_ids), pattern=self.pattern)
        return make, (self.ranks,)  # a copy starts with an empty memory


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file that is either the old one or the new one, whole, whatever fails."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def _check_ranks(ranks: Mapping[bytes, int]) -> None:
    if missing := [value for value in range(256) if bytes([value]) not in ranks]:
        raise ValueError(f"each of the 256 bytes is a token; got ranks without {missing[:8]}, {len(missing)} in all")
    if b"" in ranks:
        raise ValueError(f"a token has at least one byte, got b'' at rank {ranks[b'']}")
    if gaps := sorted(set(range(len(ranks))) - set(ranks.values())):
        raise ValueError(
            f"{len(ranks)} tokens have the ranks 0 to {len(ranks) - 1}, each once, got none with rank {gaps[0]}; "
            "a part of the file may be lost"
        )


def _check_special_tokens(names: Sequence[str]) -> None:
    if isinstance(names, str) or "" in names:
        raise ValueError(f"special_tokens is a list of non-empty strings, got {names!r}")
    if double := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"special tokens have one id each, got {double} more than once; name each once")

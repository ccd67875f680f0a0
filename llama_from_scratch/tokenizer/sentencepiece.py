"""SentencePiece BPE: text <-> ids over characters instead of bytes, the tokenizer of Llama 1 and 2.

A blank is written "▁" and belongs to the word after it, and the text gets one in front. The neighbours whose
concatenation is the piece of the highest score merge first; a character that is no piece becomes its UTF-8 bytes.

Notebook 10. Llama 1 and 2. Source: Kudo and Richardson, arXiv:1808.06226; the wire format:
https://protobuf.dev/programming-guides/encoding; fields: google/sentencepiece, src/sentencepiece_model.proto.
"""

import math
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import IntEnum
from functools import partial
from itertools import chain, groupby, pairwise
from operator import add
from pathlib import Path
from typing import Literal, NamedTuple

from llama_from_scratch.tokenizer.batch import encode_batch
from llama_from_scratch.tokenizer.byte_bpe import Memo, join_bytes, learn_merges, merge, write_whole
from llama_from_scratch.tokenizer.split import names_allowed, one_of, without_surrogates

BLANK = "▁"
UNKNOWN_TEXT = " ⁇ "
"""What an unknown piece decodes to: SentencePiece's own default, which the models of Llama keep."""

Prefix = Literal["always", "if missing", "first if missing", "never"]
"""Where a blank is put in front: of all text between special tokens, or unless it has one, or of the first, or nowhere."""

# A cut falls where a piece of Llama's cannot go on: before a blank that follows anything else, and between letters,
# digits and other ASCII. Each pattern cuts less than the one before it; a vocabulary takes the first that cuts none of
# its pieces in two, and then words apart give the ids of the text whole.
_WORDS = tuple(
    re.compile(rf"[ {BLANK}]*(?:{kinds})|[ {BLANK}]+")
    for kinds in (
        rf"[^\x00-@\[-`{{-\x7f{BLANK}]+|[0-9]|[\x00-\x1f!-/:-@\[-`{{-\x7f]+",
        rf"[^\x00-@\[-`{{-\x7f{BLANK}]+|[0-9]+|[\x00-\x1f!-/:-@\[-`{{-\x7f]+",
        rf"[^ {BLANK}]+",
        r"(?s:.)+",
    )
)
_LONG_WORD = 24
_BYTE_NAME = "<0x%02X>"
_N_RUNS = 16
_RUN_SCORE = -1e9


class Kind(IntEnum):
    """What a piece is, with the numbers of the file format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One entry of the vocabulary; its id is its place. The higher the score, the earlier it is merged."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


class SentencePiece:
    """Text to ids and back, from `pieces` in the order of their ids.

    Raises ValueError if a piece is empty, double or of no known kind, if there is not one unknown piece, or if there are
    bytes but not all 256.
    """

    def __init__(self, pieces: Sequence[Piece], *, prefix: Prefix = "always", bos: str = "<s>", eos: str = "</s>"):
        _check_pieces(pieces)
        self.pieces: tuple[Piece, ...] = tuple(pieces)
        self.prefix: Prefix = prefix
        self.bos, self.eos = bos, eos
        ids = {piece.text: i for i, piece in enumerate(pieces)}
        of_kind = {kind: {piece.text: ids[piece.text] for piece in pieces if piece.kind == kind} for kind in Kind}
        self.special_ids: dict[str, int] = of_kind[Kind.UNKNOWN] | of_kind[Kind.CONTROL]
        self.unknown_id: int = next(iter(of_kind[Kind.UNKNOWN].values()))
        self._id_of = of_kind[Kind.NORMAL] | of_kind[Kind.USER_DEFINED]
        self._byte_ids = [of_kind[Kind.BYTE][_BYTE_NAME % value] for value in range(256)] if of_kind[Kind.BYTE] else None
        self._user_defined = one_of(of_kind[Kind.USER_DEFINED].keys()) if of_kind[Kind.USER_DEFINED] else None

        scores = sorted({piece.score for piece in pieces}, reverse=True)
        rank_of_score = {score: rank for rank, score in enumerate(scores)}
        self._ranks = {text: rank_of_score[pieces[i].score] for text, i in of_kind[Kind.NORMAL].items()}
        self.n_run: int = _longest_run(self._ranks)
        for n in range(2, self.n_run + 1):
            del self._ranks[BLANK * n]
        self._words = next(words for words in _WORDS if all(map(words.fullmatch, of_kind[Kind.NORMAL])))
        self._known = {BLANK}.union(*of_kind[Kind.NORMAL])
        self._unknown_run = re.compile(f"([^{re.escape(''.join(sorted(self._known)))}]+)")
        self._pairs = {left + right for text in of_kind[Kind.NORMAL] for left, right in pairwise(text)}
        self._ids_of = Memo(self._encode_word)
        self._bytes_of = {i: _bytes_of(piece) for i, piece in enumerate(pieces)}
        self._control = set(of_kind[Kind.CONTROL].values())
        self._begins_blank = {i for text, i in self._id_of.items() if text.startswith(BLANK)}

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int) -> "SentencePiece":
        """A vocabulary laid out as Llama's: <unk>, <s>, </s>, 256 bytes, 16 runs of blanks, then merges, then characters.

        The 256 commonest characters of `text`, or texts, are pieces; a rarer one stays bytes. Ties between pairs are broken
        as `learn_merges` says, with the commonest character first. Raises ValueError if `vocab_size` has no room for what is
        not learned, or if the text runs out of pairs before it is reached.
        """
        counts: Counter[str] = Counter()
        for document in [text] if isinstance(text, str) else text:
            counts.update(_WORDS[0].findall((" " + without_surrogates(document)).replace(" ", BLANK)))
        counts = _sum((re.sub(f"{BLANK}+", BLANK, word), n) for word, n in counts.items())
        alphabet = [BLANK, *(char for char, _ in _sum((char, n) for word, n in counts.items() for char in word).most_common())]
        alphabet = list(dict.fromkeys(alphabet))[:256]
        fixed = [
            Piece("<unk>", 0.0, Kind.UNKNOWN),
            *(Piece(name, 0.0, Kind.CONTROL) for name in ("<s>", "</s>")),
            *(Piece(_BYTE_NAME % value, 0.0, Kind.BYTE) for value in range(256)),
            *(Piece(BLANK * n, _RUN_SCORE) for n in range(1, _N_RUNS + 1)),
        ]
        n_merges = vocab_size - len(fixed) - len(alphabet) + 1
        if n_merges < 0:
            raise ValueError(f"vocab_size holds {len(fixed)} fixed pieces and {len(alphabet) - 1} characters, so at least "
                             f"{vocab_size - n_merges}; got {vocab_size}")
        # `learn_merges` knows 256 units, which it takes for bytes: here they are characters.
        number = {char: i for i, char in enumerate(alphabet)}
        runs = ((bytes(number[char] for char in run), n) for word, n in counts.items()
                for run in re.findall("[" + re.escape("".join(alphabet)) + "]+", word))
        merges = learn_merges(_sum(runs), n_merges)
        if len(merges) < n_merges:
            reachable = vocab_size - n_merges + len(merges)
            raise ValueError(f"each merge needs a pair of neighbours, and this text has none left at {reachable} pieces; got "
                             f"vocab_size={vocab_size}; give more text or vocab_size={reachable}")
        learned = ["".join(alphabet[unit] for unit in left + right) for left, right in merges] + alphabet[1:]
        return cls(fixed + [Piece(piece, float(-i)) for i, piece in enumerate(learned)])

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.pieces)

    @property
    def bos_id(self) -> int:
        """The id of <s>. Raises ValueError if there is none."""
        return self._special_id(self.bos)

    @property
    def eos_id(self) -> int:
        """The id of </s>. Raises ValueError if there is none."""
        return self._special_id(self.eos)

    def _special_id(self, name: str) -> int:
        if name not in self.special_ids:
            raise ValueError(f"this needs the control piece {name!r}, and the vocabulary has {list(self.special_ids)}; "
                             "load a vocabulary that has it, or name another as bos and eos")
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

        A special string such as "<s>" inside `text` is ordinary text, as users may type it, unless `allowed_special` has
        it: then it becomes its id. One that `disallowed_special` has raises ValueError; "all" there means all not allowed.
        Lone surrogates become U+FFFD.
        """
        allowed = names_allowed(text, self.special_ids, allowed_special=allowed_special, disallowed_special=disallowed_special)
        text = without_surrogates(text)
        ids = [self.bos_id] if bos else []
        for i, part in enumerate(one_of(allowed).split(text) if allowed else [text]):
            ids += [self.special_ids[part]] if i % 2 else self._encode_ordinary(part, is_first=i == 0)
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

    def _encode_ordinary(self, text: str, *, is_first: bool) -> list[int]:
        if not text:
            return []
        is_missing = not text.startswith((" ", BLANK))
        if {"always": True, "if missing": is_missing, "first if missing": is_missing and is_first, "never": False}[self.prefix]:
            text = " " + text
        parts = [text] if self._user_defined is None else self._user_defined.split(text.replace(" ", BLANK))
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self._id_of[part])
            else:
                ids += chain.from_iterable(map(self._ids_of.__getitem__, self._words.findall(part)))
        if self._byte_ids is None:  # then characters without a piece that stand together are one unknown piece
            ids = [i for before, i in pairwise([-1, *ids]) if not before == i == self.unknown_id]
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        word = word.replace(" ", BLANK)
        if self._known.issuperset(word):
            return self._encode_known(word)
        # the group keeps the characters of no piece: they are every second part
        parts = (
            self._encode_unknown(part) if i % 2 else self._ids_of[part]
            for i, part in enumerate(self._unknown_run.split(word))
            if part
        )
        return tuple(chain.from_iterable(parts))

    def _encode_unknown(self, text: str) -> Sequence[int]:
        return [self.unknown_id] if self._byte_ids is None else [self._byte_ids[value] for value in text.encode()]

    def _encode_known(self, word: str) -> tuple[int, ...]:
        if len(word) <= _LONG_WORD:
            return self._merge(word)
        # No piece holds two characters that stand together in none of them, so each such place is a cut.
        pairs = self._pairs
        if pairs.issuperset(map(add, word, word[1:])):
            return self._merge(word)
        cuts = [i for i, pair in enumerate(map(add, word, word[1:]), start=1) if pair not in pairs]
        fragments = (word[begin:end] for begin, end in pairwise([0, *cuts, len(word)]))
        return tuple(chain.from_iterable(map(self._ids_of.__getitem__, fragments)))

    def _merge(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        for part, same in groupby(merge(word, self._ranks)):
            n = sum(map(bool, same))
            if part == BLANK and self.n_run > 1:
                whole, rest = divmod(n, self.n_run)
                ids += [self._id_of[BLANK * self.n_run]] * whole + ([self._id_of[BLANK * rest]] if rest else [])
            elif (found := self._id_of.get(part)) is not None:
                ids += [found] * n
            else:
                ids += [*self._encode_unknown(part)] * n
        return tuple(ids)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for; those of two halves join to those of the whole, as a stream needs.

        So the blank in front stays; control pieces are b"". Raises ValueError at an id the vocabulary does not have.
        """
        return join_bytes(self._bytes_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for, without the blank in front; bytes that are not UTF-8 become U+FFFD."""
        ids = list(ids)
        # Bytes on both sides of a control piece make no character together.
        runs = (run for is_control, run in groupby(ids, self._control.__contains__) if not is_control)
        text = "".join(_decoded(self.decode_bytes(run)) for run in ([ids] if self._control.isdisjoint(ids) else runs))
        first = next((i for i in ids if i not in self._control), None)
        return text[1:] if first in self._begins_blank and self.prefix != "never" else text

    def save(self, path: str | os.PathLike) -> None:
        """Writes SentencePiece's tokenizer.model. Raises ValueError for a prefix that its format cannot say."""
        if self.prefix not in ("always", "never"):
            raise ValueError(f"a tokenizer.model puts a blank in front always or never, got prefix={self.prefix!r}; write a "
                             "tokenizer.json, or make the tokenizer with another prefix")
        data = bytearray()
        for text, score, kind in self.pieces:
            piece = _field(1, text.encode()) + b"\x15" + struct.pack("<f", score)  # field 2, 32 bits
            data += _field(1, piece + (b"" if kind == Kind.NORMAL else _field(3, int(kind))))
        special = [self.unknown_id, self.special_ids.get(self.bos, -1), self.special_ids.get(self.eos, -1), -1]
        trainer = b"".join([
            _field(3, _BPE), _field(4, len(self.pieces)), _field(24, 0), _field(35, int(self._byte_ids is not None)),
            *(_field(40 + i, special_id) for i, special_id in enumerate(special)),
            *(_field(45 + i, name.encode()) for i, name in enumerate((self.pieces[self.unknown_id].text, self.bos, self.eos))),
        ])
        normalizer = _field(1, b"identity") + _field(3, int(self.prefix == "always")) + _field(4, 0) + _field(5, 1)
        write_whole(path, bytes(data) + _field(2, trainer) + _field(3, normalizer))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SentencePiece":
        """The tokenizer of a SentencePiece tokenizer.model.

        Raises ValueError if the file is damaged, or of a kind that no Llama has: another model than BPE, text that is
        normalized first, unused pieces.
        """
        try:
            return cls._parse(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a SentencePiece model: {error}") from None

    @classmethod
    def _parse(cls, data: bytes) -> "SentencePiece":
        pieces, trainer, normalizer = [], {}, {}
        for number, value in _fields(data, {1: bytes, 2: bytes, 3: bytes}):
            if number == 1:
                piece = dict(_fields(value, {1: bytes, 2: float, 3: int}))
                pieces.append(Piece(_text(piece.get(1, b"")), piece.get(2, 0.0), _kind(piece.get(3, 1), len(pieces))))
            elif number == 2:
                trainer |= _fields(value, {3: int, 24: int, 35: int, 44: bytes, 46: bytes, 47: bytes})
            else:
                normalizer |= _fields(value, {2: bytes, 3: int, 4: int, 5: int})
        if not pieces:
            raise ValueError("it has no pieces; give the tokenizer.model of a Llama 1 or 2")
        wrong = [
            rule
            for is_broken, rule in (
                (trainer.get(3, 1) != _BPE, f"the model is BPE, type {_BPE}, got type {trainer.get(3, 1)}"),
                (trainer.get(24, 0), "a blank belongs to the word after it, got treat_whitespace_as_suffix"),
                (trainer.get(44, UNKNOWN_TEXT.encode()) != UNKNOWN_TEXT.encode(), f"unk_surface is {UNKNOWN_TEXT!r}"),
                (trainer.get(35, 0) != any(piece.kind == Kind.BYTE for piece in pieces), "byte_fallback is on where bytes are"),
                (normalizer.get(2), f"text is not normalized, got a table of {len(normalizer.get(2, b''))} bytes"),
                (normalizer.get(4, 1), "blanks are kept, got remove_extra_whitespaces"),
                (not normalizer.get(5, 1), "blanks are written ▁, got escape_whitespaces off"),
            )
            if is_broken
        ]
        if wrong:
            raise ValueError(f"in the models of Llama {'; '.join(wrong)}; give the tokenizer.model of a Llama 1 or 2")
        prefix = "always" if normalizer.get(3, 1) else "never"
        return cls(pieces, prefix=prefix, bos=_text(trainer.get(46, b"<s>")), eos=_text(trainer.get(47, b"</s>")))

    def save_llama2c(self, path: str | os.PathLike) -> None:
        """Writes llama2.c's tokenizer.bin. Raises ValueError unless ids 0 to 258 are those of Llama: specials, then bytes."""
        is_laid_out = self._byte_ids == list(range(3, 259)) and self.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}
        if not is_laid_out or self.prefix != "always":
            raise ValueError("a tokenizer.bin has <unk>, <s>, </s> and then the 256 bytes as first pieces, and a blank always "
                             f"in front; got {[piece.text for piece in self.pieces[:5]]} and prefix={self.prefix!r}")
        texts = [_LLAMA2C_NAMES.get(piece.text, piece.text.replace(BLANK, " ")).encode() for piece in self.pieces]
        records = (struct.pack("<fI", piece.score, len(text)) + text for piece, text in zip(self.pieces, texts))
        write_whole(path, struct.pack("<I", max(map(len, texts))) + b"".join(records))

    @classmethod
    def load_llama2c(cls, path: str | os.PathLike) -> "SentencePiece":
        """The tokenizer of llama2.c's tokenizer.bin: the longest length, then score, length and bytes of each piece.

        The kinds of pieces are not in the file: 0 is unknown, 1 and 2 are control, 3 to 258 bytes. Raises ValueError if the
        file is damaged.
        """
        data = Path(path).read_bytes()
        cure = f"{path}; export the tokenizer again"
        if len(data) < 4:
            raise ValueError(f"a tokenizer.bin begins with the longest length in 4 bytes, got {len(data)} bytes in {cure}")
        longest, at, pieces = int.from_bytes(data[:4], "little"), 4, []
        while at < len(data):
            if len(data) - at < 8:
                raise ValueError(f"a piece begins with 8 bytes, got {len(data) - at} for piece {len(pieces)} of {cure}")
            score, length = struct.unpack_from("<fI", data, at)
            if length > min(longest, len(data) - at - 8):
                raise ValueError(f"piece {len(pieces)} has {length} bytes, with {longest} as the longest and "
                                 f"{len(data) - at - 8} left in {cure}")
            pieces.append((data[at + 8 : at + 8 + length], score))
            at += 8 + length
        try:
            return cls([_llama2c_piece(i, text, score) for i, (text, score) in enumerate(pieces)])
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a tokenizer.bin: {error}") from None

    def __reduce__(self):
        # a copy starts with an empty memory
        return partial(type(self), prefix=self.prefix, bos=self.bos, eos=self.eos), (self.pieces,)


def _check_pieces(pieces: Sequence[Piece]) -> None:
    texts = Counter(piece.text for piece in pieces)
    if "" in texts or len(texts) < len(pieces):
        i, piece = next((i, piece) for i, piece in enumerate(pieces) if not piece.text or texts[piece.text] > 1)
        raise ValueError(f"pieces are texts that differ, got {piece.text!r} {texts[piece.text]} times, first as piece {i}; "
                         "a part of the file may be damaged")
    if odd := [(i, piece) for i, piece in enumerate(pieces) if not math.isfinite(piece.score) or piece.kind == Kind.UNUSED]:
        raise ValueError(f"a piece has a finite score and a kind that Llama uses, got {odd[0][1]} as piece {odd[0][0]}; a part "
                         "of the file may be damaged")
    if (n := sum(piece.kind == Kind.UNKNOWN for piece in pieces)) != 1:
        raise ValueError(f"a vocabulary has one unknown piece, got {n}; a part of the file may be damaged")
    names = {piece.text for piece in pieces if piece.kind == Kind.BYTE}
    if names and (wrong := names ^ {_BYTE_NAME % value for value in range(256)}):
        raise ValueError(f"byte pieces are <0x00> to <0xFF>, each once, got {sorted(wrong)[:4]} too many or too few")


def _longest_run(ranks: Mapping[str, int]) -> int:
    """How many blanks the longest piece of blanks has, if runs of blanks merge after all else and as equals; else 1.

    So they do in Llama's files. The longest piece is then taken again and again from the left, and nothing needs merging.
    """
    last = max(ranks.values(), default=0)
    tied = {text for text, rank in ranks.items() if rank == last and len(text) > 1}
    is_greedy = tied == {BLANK * n for n in range(2, len(tied) + 2)} and BLANK in ranks
    return len(tied) + 1 if is_greedy and not any(BLANK * 2 in text for text in ranks.keys() - tied) else 1


def is_byte_name(text: str) -> bool:
    """Is this what a byte piece is called, such as <0x0A>?"""
    return re.fullmatch("<0x[0-9A-F]{2}>", text) is not None


def _sum(counts: Iterable[tuple]) -> Counter:
    total: Counter = Counter()
    for key, n in counts:
        total[key] += n
    return total


def _bytes_of(piece: Piece) -> bytes:
    if piece.kind == Kind.BYTE:
        return bytes([int(piece.text[3:5], 16)])
    if piece.kind == Kind.CONTROL:
        return b""
    return (UNKNOWN_TEXT if piece.kind == Kind.UNKNOWN else piece.text.replace(BLANK, " ")).encode()


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # One U+FFFD for each byte: other decoders have one for several bytes that begin a character.
        return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))


# --- llama2.c's names -------------------------------------------------------------------------------------------------

_LLAMA2C_NAMES = {"<s>": "\n<s>\n", "</s>": "\n</s>\n"}


def _llama2c_piece(i: int, data: bytes, score: float) -> Piece:
    fixed = {0: "<unk>", 1: "<s>", 2: "</s>"} | {3 + value: _BYTE_NAME % value for value in range(256)}
    text = _text(data)
    if i not in fixed:
        return Piece(text.replace(" ", BLANK), score)
    # The first version of the format has bytes as characters.
    known = {fixed[i], _LLAMA2C_NAMES.get(fixed[i])} | ({chr(i - 3), chr(i - 3).replace(BLANK, " ")} if i >= 3 else set())
    if text not in known:
        raise ValueError(f"piece {i} is {fixed[i]}, got {text!r}")
    return Piece(fixed[i], score, Kind.UNKNOWN if i == 0 else Kind.CONTROL if i < 3 else Kind.BYTE)


# --- protobuf: a message is fields, each a number and a wire type in one varint, then a value -------------------------

_BPE = 2  # of the trainer's model types
_WIRE = {int: 0, bytes: 2, float: 5}


def _fields(data: bytes, wanted: dict[int, type]) -> Iterator[tuple[int, int | bytes | float]]:
    """Each (number, value) of a message among `wanted`: number -> the type it has. `b"\\x08\\x05", {1: int}` -> (1, 5)."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0 or (number in wanted and wire != _WIRE[wanted[number]]):
            raise ValueError(f"a field has the wire type of its values, got {wire} for field {number}; the file is damaged")
        if wire == 0:
            value, at = _varint(data, at)
            begin = at
        elif wire in (1, 2, 5):
            length, begin = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
            at = begin + length
        else:
            raise ValueError(f"a field is a number, bytes, or of 4 or 8 bytes, got wire type {wire}; the file is damaged")
        if at > end:
            raise ValueError(f"field {number} has {at - begin} bytes, {end - begin} are left; the file is cut short or damaged")
        if number in wanted:
            yield number, value if wire == 0 else data[begin:at] if wire == 2 else struct.unpack("<f", data[begin:at])[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, seven bits to a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut off by the end; the file is cut short or damaged")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has at most ten bytes, got more; the file is damaged")


def _field(number: int, value: int | bytes) -> bytes:
    """The bytes of one field; a negative number has ten, as 64 bits in two's complement."""
    if isinstance(value, bytes):
        return _number(number << 3 | 2) + _number(len(value)) + value
    return _number(number << 3) + _number(value & (1 << 64) - 1)


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"a piece is UTF-8, got {data[:40]!r}; the file is damaged") from None


def _kind(value: int, i: int) -> Kind:
    if value not in list(Kind):
        raise ValueError(f"the kind of a piece is 1 to 6, got {value} for piece {i}; the file is damaged")
    return Kind(value)

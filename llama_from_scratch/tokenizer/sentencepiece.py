"""SentencePiece BPE, the tokenizer of Llama 1 and 2: text <-> ids over characters, not bytes.

A space is written "▁" and belongs to the word after it, and a text gets a space in front. Of all
neighbors, the pair that makes the piece with the highest score merges first. A character that is
not a piece becomes its UTF-8 bytes.

`piece_training` learns the pieces, and `piece_words` makes encoding fast. `sentencepiece_file` and
`tokenizer_bin` read and write its two kinds of files.

Notebook 10. Llama 1 and 2. Source: Kudo and Richardson, arXiv:1808.06226.
"""

import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Literal

from llama_from_scratch.files import replacing_file
from llama_from_scratch.foreign import read_bytes
from llama_from_scratch.tokenizer import sentencepiece_file, tokenizer_bin
from llama_from_scratch.tokenizer.batch import EncodesBatches
from llama_from_scratch.tokenizer.byte_bpe import join_bytes
from llama_from_scratch.tokenizer.piece_training import learn_pieces
from llama_from_scratch.tokenizer.piece_words import PieceWords, longest_run, merge_but_runs
from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece, byte_name, check_pieces
from llama_from_scratch.tokenizer.prompting import Prompted
from llama_from_scratch.tokenizer.special_tokens import SpecialNames, names_allowed, one_of
from llama_from_scratch.tokenizer.split import without_surrogates

Prefix = Literal["always", "if missing", "first if missing", "never"]
"""Where a space is put in front. "always": before each text between special tokens. "if missing":
before each such text that does not begin with a space. "first if missing": the same, but only for
the first such text."""


class SentencePiece(EncodesBatches, Prompted):
    """Text to ids and back, from `pieces` in the order of their ids.

    Raises ValueError if a piece is empty, occurs twice or has an unknown kind, if there is not
    exactly one unknown piece, or if some of the 256 bytes are pieces and others are not.
    """

    def __init__(
        self, pieces: Sequence[Piece], *, prefix: Prefix = "always", bos: str = "<s>",
        eos: str = "</s>",
    ):
        check_pieces(pieces)
        self.pieces: tuple[Piece, ...] = tuple(pieces)
        self.prefix: Prefix = prefix
        self.bos, self.eos = bos, eos
        of_kind: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        for i, piece in enumerate(pieces):
            of_kind[piece.kind][piece.text] = i
        self.special_ids: dict[str, int] = of_kind[Kind.UNKNOWN] | of_kind[Kind.CONTROL]
        self.unknown_id: int = next(iter(of_kind[Kind.UNKNOWN].values()))
        self._id_of = of_kind[Kind.NORMAL] | of_kind[Kind.USER_DEFINED]
        byte_id_of = of_kind[Kind.BYTE]
        self._byte_ids = [byte_id_of[byte_name(i)] for i in range(256)] if byte_id_of else None
        user_defined = of_kind[Kind.USER_DEFINED].keys()
        self._user_defined = one_of(user_defined) if user_defined else None
        self._data_of = {i: piece.data for i, piece in enumerate(pieces)}
        self._control = set(of_kind[Kind.CONTROL].values())
        self._begins_blank = {i for text, i in self._id_of.items() if text.startswith(BLANK)}

        scores = sorted({piece.score for piece in pieces}, reverse=True)
        rank_of = {score: rank for rank, score in enumerate(scores)}
        self._ranks = {text: rank_of[pieces[i].score] for text, i in of_kind[Kind.NORMAL].items()}
        self.n_run: int = longest_run(self._ranks)
        for n in range(2, self.n_run + 1):
            del self._ranks[BLANK * n]
        self._words = PieceWords(of_kind[Kind.NORMAL], encode_known=self._encode_known,
                                 encode_unknown=self._encode_unknown)

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int) -> "SentencePiece":
        """Returns a tokenizer with `vocab_size` pieces, learned from one or more texts.

        See `learn_pieces`. Raises ValueError if `vocab_size` has no room for the pieces that are
        not learned, or if the text has no pairs left before `vocab_size` is reached.
        """
        return cls(learn_pieces(text, vocab_size))

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
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
            raise ValueError(f"this needs the control piece {name!r}; the vocabulary has "
                             f"{list(self.special_ids)}. Load a vocabulary that has it, or give "
                             "other names as bos and eos")
        return self.special_ids[name]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False,
        allowed_special: SpecialNames = frozenset(), disallowed_special: SpecialNames = frozenset(),
    ) -> list[int]:
        """Returns the ids of `text`, with bos_id in front if `bos`, and eos_id at the end if `eos`.

        A special string such as "<s>" inside `text` is ordinary text, because users may type it. If
        it is in `allowed_special`, it becomes its id. Raises ValueError if it is in
        `disallowed_special`; "all" there means all that are not allowed. Lone surrogates become
        U+FFFD.
        """
        allowed = names_allowed(text, self.special_ids, allowed_special=allowed_special,
                                disallowed_special=disallowed_special)
        text = without_surrogates(text)
        ids = [self.bos_id] if bos else []
        for i, part in enumerate(one_of(allowed).split(text) if allowed else [text]):
            if i % 2:
                ids.append(self.special_ids[part])
            else:
                ids += self._encode_ordinary(part, is_first=i == 0)
        return [*ids, self.eos_id] if eos else ids

    def _encode_ordinary(self, text: str, *, is_first: bool) -> list[int]:
        if not text:
            return []
        if self._needs_blank(text, is_first=is_first):
            text = " " + text
        if self._user_defined is None:
            parts = [text]
        else:
            parts = self._user_defined.split(text.replace(" ", BLANK))
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self._id_of[part])
            else:
                ids += self._words.encode(part)
        if self._byte_ids is None:
            # Neighboring characters without a piece become one unknown piece together.
            ids = [i for before, i in pairwise([-1, *ids]) if not before == i == self.unknown_id]
        return ids

    def _needs_blank(self, text: str, *, is_first: bool) -> bool:
        is_missing = not text.startswith((" ", BLANK))
        match self.prefix:
            case "always":
                return True
            case "if missing":
                return is_missing
            case "first if missing":
                return is_missing and is_first
            case "never":
                return False

    def _encode_known(self, word: str) -> tuple[int, ...]:
        """Returns the ids of a word of known characters: merges, then looks the parts up."""
        ids: list[int] = []
        for part in merge_but_runs(word, self._ranks, n_run=self.n_run):
            if (found := self._id_of.get(part)) is None:
                ids += self._encode_unknown(part)
            else:
                ids.append(found)
        return tuple(ids)

    def _encode_unknown(self, text: str) -> Sequence[int]:
        if self._byte_ids is None:
            return [self.unknown_id]
        return [self._byte_ids[value] for value in text.encode()]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of `ids`. Decoding parts of `ids` and joining the bytes gives the same.

        For this the space in front stays. Control pieces give b"". Raises ValueError for an id
        outside the vocabulary.
        """
        return join_bytes(self._data_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids` without the space in front; non-UTF-8 bytes become U+FFFD."""
        ids = list(ids)
        if self._control.isdisjoint(ids):
            text = decoded(self.decode_bytes(ids))
        else:
            # Bytes before and after a control piece must not become one character.
            runs = groupby(ids, self._control.__contains__)
            texts = (decoded(self.decode_bytes(run)) for is_control, run in runs if not is_control)
            text = "".join(texts)
        first = next((i for i in ids if i not in self._control), None)
        return text[1:] if first in self._begins_blank and self.prefix != "never" else text

    def save(self, path: str | os.PathLike) -> None:
        """Writes SentencePiece's tokenizer.model.

        Raises ValueError for a prefix that the format cannot describe.
        """
        if self.prefix not in ("always", "never"):
            raise ValueError("a tokenizer.model puts a space in front always or never; got "
                             f"prefix={self.prefix!r}. Write a tokenizer.json, or make the "
                             "tokenizer with another prefix")
        model = sentencepiece_file.ModelFile(
            pieces=self.pieces, has_prefix=self.prefix == "always", bos=self.bos, eos=self.eos)
        with replacing_file(path) as unfinished:
            unfinished.write_bytes(sentencepiece_file.to_bytes(model))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SentencePiece":
        """Returns the tokenizer of a SentencePiece tokenizer.model.

        Raises ValueError if the file is damaged, or if no Llama uses its kind: a model other than
        BPE, normalization, unused pieces.
        """
        data = read_bytes(path, need="a tokenizer needs a SentencePiece model")
        try:
            found = sentencepiece_file.from_bytes(data)
            prefix = "always" if found.has_prefix else "never"
            return cls(found.pieces, prefix=prefix, bos=found.bos, eos=found.eos)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a SentencePiece model: {error}. "
                             "Download it again") from None

    def save_llama2c(self, path: str | os.PathLike) -> None:
        """Writes llama2.c's tokenizer.bin.

        Raises ValueError unless ids 0 to 258 are as in Llama: special tokens, then bytes.
        """
        if not tokenizer_bin.is_laid_out_for_bin(self.pieces) or self.prefix != "always":
            raise ValueError("a tokenizer.bin must have <unk>, <s>, </s> and then the 256 bytes as "
                             "first pieces, and always a space in front; got "
                             f"{[piece.text for piece in self.pieces[:5]]} and "
                             f"prefix={self.prefix!r}. Write another format")
        with replacing_file(path) as unfinished:
            unfinished.write_bytes(tokenizer_bin.to_bytes(self.pieces))

    @classmethod
    def load_llama2c(cls, path: str | os.PathLike) -> "SentencePiece":
        """Returns the tokenizer of llama2.c's tokenizer.bin.

        Raises ValueError if the file is damaged.
        """
        records = tokenizer_bin.read_records(path)
        try:
            pieces = [tokenizer_bin.piece_of(i, *record) for i, record in enumerate(records)]
            return cls(pieces)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a tokenizer.bin: {error}. "
                             "Export it again") from None

    def __reduce__(self):
        # a copy starts with an empty cache
        make = partial(type(self), prefix=self.prefix, bos=self.bos, eos=self.eos)
        return make, (self.pieces,), {"prompting": self.prompting}


def decoded(data: bytes) -> str:
    """Returns the text of bytes, with one U+FFFD for each byte that is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        # One U+FFFD per byte; Python's own "replace" gives one for several bytes of a cut letter.
        return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))

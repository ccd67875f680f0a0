"""SentencePiece BPE: text <-> ids over characters, not bytes: the tokenizer of Llama 1 and 2.

A blank is written "▁" and belongs to the word after it, and the text gets one in front. The
neighbors whose concatenation is the piece of the highest score merge first; a character that is no
piece becomes its UTF-8 bytes.

Training is in `piece_training`, what makes encoding fast in `piece_words`; its two files are in
`sentencepiece_file` and `tokenizer_bin`.

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
"""Where a blank is put in front: of all text between special tokens; of each such text that does
not begin with one; of the first of these only; or nowhere."""


class SentencePiece(EncodesBatches, Prompted):
    """Text to ids and back, from `pieces` in the order of their ids.

    Raises ValueError if a piece is empty, double or of no known kind, if there is not one unknown
    piece, or if there are bytes but not all 256.
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
        """A tokenizer whose `vocab_size` pieces are learned from `text` or texts (`learn_pieces`).

        Raises ValueError if `vocab_size` has no room for what is not learned, or if the text runs
        out of pairs before it is reached.
        """
        return cls(learn_pieces(text, vocab_size))

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
            raise ValueError(f"this needs the control piece {name!r}, and the vocabulary has "
                             f"{list(self.special_ids)}; load a vocabulary that has it, or name "
                             "another as bos and eos")
        return self.special_ids[name]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False,
        allowed_special: SpecialNames = frozenset(), disallowed_special: SpecialNames = frozenset(),
    ) -> list[int]:
        """Returns the ids of `text`, with bos_id before and eos_id after if asked for.

        A special string such as "<s>" inside `text` is ordinary text, as users may type it, unless
        `allowed_special` has it: then it becomes its id. One that `disallowed_special` has raises
        ValueError; "all" there means all that are not allowed. Lone surrogates become U+FFFD.
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
            # neighboring characters without a piece are one unknown piece
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
        """Returns the ids of a word of known characters: merge, then look up what is left."""
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
        """The bytes of `ids`; those of two halves join to those of the whole, as a stream needs.

        So the blank in front stays; control pieces are b"". Raises ValueError at an id that the
        vocabulary does not have.
        """
        return join_bytes(self._data_of, ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without the blank in front; bytes that are not UTF-8 become U+FFFD."""
        ids = list(ids)
        if self._control.isdisjoint(ids):
            text = decoded(self.decode_bytes(ids))
        else:
            # Bytes on both sides of a control piece make no character together.
            runs = groupby(ids, self._control.__contains__)
            texts = (decoded(self.decode_bytes(run)) for is_control, run in runs if not is_control)
            text = "".join(texts)
        first = next((i for i in ids if i not in self._control), None)
        return text[1:] if first in self._begins_blank and self.prefix != "never" else text

    def save(self, path: str | os.PathLike) -> None:
        """Writes SentencePiece's tokenizer.model.

        Raises ValueError for a prefix that its format cannot say.
        """
        if self.prefix not in ("always", "never"):
            raise ValueError("a tokenizer.model puts a blank in front always or never, got "
                             f"prefix={self.prefix!r}; write a tokenizer.json, or make the "
                             "tokenizer with another prefix")
        model = sentencepiece_file.ModelFile(
            pieces=self.pieces, has_prefix=self.prefix == "always", bos=self.bos, eos=self.eos)
        with replacing_file(path) as unfinished:
            unfinished.write_bytes(sentencepiece_file.to_bytes(model))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SentencePiece":
        """Returns the tokenizer of a SentencePiece tokenizer.model.

        Raises ValueError if the file is damaged, or of a kind that no Llama has: another model than
        BPE, text that is normalized first, unused pieces.
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

        Raises ValueError unless ids 0 to 258 are those of Llama: specials, then bytes.
        """
        if not tokenizer_bin.is_laid_out_for_bin(self.pieces) or self.prefix != "always":
            raise ValueError("a tokenizer.bin has <unk>, <s>, </s> and then the 256 bytes as first "
                             "pieces, and a blank always in front; got "
                             f"{[piece.text for piece in self.pieces[:5]]} and "
                             f"prefix={self.prefix!r}")
        with replacing_file(path) as unfinished:
            unfinished.write_bytes(tokenizer_bin.to_bytes(self.pieces))

    @classmethod
    def load_llama2c(cls, path: str | os.PathLike) -> "SentencePiece":
        """The tokenizer of llama2.c's tokenizer.bin. Raises ValueError if the file is damaged."""
        records = tokenizer_bin.read_records(path)
        try:
            pieces = [tokenizer_bin.piece_of(i, *record) for i, record in enumerate(records)]
            return cls(pieces)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a tokenizer.bin: {error}. "
                             "Export it again") from None

    def __reduce__(self):
        # a copy starts with an empty memory
        make = partial(type(self), prefix=self.prefix, bos=self.bos, eos=self.eos)
        return make, (self.pieces,), {"prompting": self.prompting}


def decoded(data: bytes) -> str:
    """Returns the text of bytes, with one U+FFFD for each that is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        # One U+FFFD for each byte: other decoders have one for several bytes that begin a letter.
        return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))

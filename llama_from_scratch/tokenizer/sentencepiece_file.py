"""Reads and writes SentencePiece's tokenizer.model: pieces, and the settings of the tokenizer.

Notebook 10. Llama 1 and 2. Source: google/sentencepiece, src/sentencepiece_model.proto.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llama_from_scratch.tokenizer.pieces import UNKNOWN_TEXT, Kind, Piece
from llama_from_scratch.tokenizer.protobuf import field, fields

_BPE = 2  # among the trainer's model types


class ModelFile(NamedTuple):
    """The content of a tokenizer.model. `has_prefix`: text gets a space in front."""

    pieces: Sequence[Piece]
    has_prefix: bool
    bos: str
    eos: str


def to_bytes(model: ModelFile) -> bytes:
    """Returns the bytes of a tokenizer.model."""
    return b"".join([
        *(field(1, _piece(piece)) for piece in model.pieces),
        field(2, b"".join(_trainer(model))),
        field(3, b"".join(_normalizer(model))),
    ])


def _piece(piece: Piece) -> bytes:
    kind = b"" if piece.kind == Kind.NORMAL else field(3, int(piece.kind))
    return field(1, piece.text.encode()) + field(2, float(piece.score)) + kind


def _trainer(model: ModelFile) -> Iterator[bytes]:
    id_of = {piece.text: i for i, piece in enumerate(model.pieces)
             if piece.kind in (Kind.UNKNOWN, Kind.CONTROL)}
    unknown = next(piece.text for piece in model.pieces if piece.kind == Kind.UNKNOWN)
    yield field(3, _BPE)  # model_type
    yield field(4, len(model.pieces))  # vocab_size
    yield field(24, 0)  # treat_whitespace_as_suffix
    yield field(35, int(any(piece.kind == Kind.BYTE for piece in model.pieces)))  # byte_fallback
    yield field(40, id_of[unknown])  # unk_id
    yield field(41, id_of.get(model.bos, -1))  # bos_id
    yield field(42, id_of.get(model.eos, -1))  # eos_id
    yield field(43, -1)  # pad_id
    yield field(45, unknown.encode())  # unk_piece
    yield field(46, model.bos.encode())  # bos_piece
    yield field(47, model.eos.encode())  # eos_piece


def _normalizer(model: ModelFile) -> Iterator[bytes]:
    yield field(1, b"identity")  # name
    yield field(3, int(model.has_prefix))  # add_dummy_prefix
    yield field(4, 0)  # remove_extra_whitespaces
    yield field(5, 1)  # escape_whitespaces


def from_bytes(data: bytes) -> ModelFile:
    """Returns the content of a tokenizer.model.

    Raises ValueError if it is damaged, or if no Llama uses its kind: a model other than BPE, or
    normalization.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes | float] = {}
    normalizer: dict[int, int | bytes | float] = {}
    numbers = set()
    for number, value in fields(data, {1: bytes, 2: bytes, 3: bytes}):
        numbers.add(number)
        if number == 1:
            found = dict(fields(value, {1: bytes, 2: float, 3: int}))
            kind = _kind(found.get(3, 1), len(pieces))
            pieces.append(Piece(text_of(found.get(1, b"")), found.get(2, 0.0), kind))
        elif number == 2:
            wanted = {3: int, 4: int, 24: int, 35: int, 44: bytes, 46: bytes, 47: bytes}
            trainer |= fields(value, wanted)
        else:
            normalizer |= fields(value, {2: bytes, 3: int, 4: int, 5: int})
    if not pieces:
        raise ValueError("it must have pieces and has none. Give the tokenizer.model of a Llama 1 "
                         "or 2")
    # The settings follow the pieces, so a file that was cut between two records lacks them.
    if not {2, 3} <= numbers or len(pieces) < trainer.get(4, 0):
        raise ValueError(f"it must have pieces, then the settings of the trainer, which count "
                         f"{trainer.get(4, 'them')}, and of the normalizer; got {len(pieces)} "
                         f"pieces and {len(numbers) - 1} of the two settings. The file lost a "
                         "part: download it again")
    has_bytes = any(piece.kind == Kind.BYTE for piece in pieces)
    rules = {
        f"the model is BPE, type {_BPE}, got type {trainer.get(3, 1)}": trainer.get(3, 1) == _BPE,
        "a space belongs to the word after it, got treat_whitespace_as_suffix":
            not trainer.get(24, 0),
        f"unk_surface is {UNKNOWN_TEXT!r}":
            trainer.get(44, UNKNOWN_TEXT.encode()) == UNKNOWN_TEXT.encode(),
        "byte_fallback is on where bytes are": trainer.get(35, 0) == has_bytes,
        f"text is not normalized, got a table of {len(normalizer.get(2, b''))} bytes":
            not normalizer.get(2),
        "spaces are kept, got remove_extra_whitespaces": not normalizer.get(4, 1),
        "spaces are written ▁, got escape_whitespaces off": normalizer.get(5, 1),
    }
    if broken := [rule for rule, is_kept in rules.items() if not is_kept]:
        raise ValueError(f"in the models of Llama {'; '.join(broken)}. Give the tokenizer.model of "
                         "a Llama 1 or 2")
    return ModelFile(pieces=pieces, has_prefix=bool(normalizer.get(3, 1)),
                     bos=text_of(trainer.get(46, b"<s>")), eos=text_of(trainer.get(47, b"</s>")))


def text_of(data: bytes) -> str:
    """Returns the text of a piece in a file. Raises ValueError if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"a piece must be UTF-8; got {data[:40]!r}. The file is damaged") from None


def _kind(value: int, i: int) -> Kind:
    if value not in list(Kind):
        raise ValueError(f"the kind of a piece must be 1 to 6; got {value} for piece {i}. The file "
                         "is damaged")
    return Kind(value)

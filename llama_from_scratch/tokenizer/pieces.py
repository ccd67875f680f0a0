"""The vocabulary of SentencePiece: pieces, each a text with a score and a kind.

The id of a piece is its index in the vocabulary.

Notebook 10. Llama 1 and 2. Source: google/sentencepiece, src/sentencepiece_model.proto.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

BLANK = "▁"
"""How a space is written in a piece."""
UNKNOWN_TEXT = " ⁇ "
"""What an unknown piece decodes to: SentencePiece's default, which Llama's models use."""


class Kind(IntEnum):
    """The kind of a piece, with its number in the file format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One entry of the vocabulary. The higher the score, the earlier it is merged."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL

    @property
    def data(self) -> bytes:
        """The bytes that the piece decodes to."""
        if self.kind == Kind.BYTE:
            return bytes([int(self.text[3:5], 16)])
        if self.kind == Kind.CONTROL:
            return b""
        is_unknown = self.kind == Kind.UNKNOWN
        return (UNKNOWN_TEXT if is_unknown else self.text.replace(BLANK, " ")).encode()


def byte_name(value: int) -> str:
    """Returns the name of a byte's piece: 10 -> "<0x0A>"."""
    return f"<0x{value:02X}>"


def is_byte_name(text: str) -> bool:
    """Returns whether a text is the name of a byte's piece, such as <0x0A>."""
    return re.fullmatch("<0x[0-9A-F]{2}>", text) is not None


FIRST_PIECES: tuple[Piece, ...] = (
    Piece("<unk>", 0.0, Kind.UNKNOWN),
    Piece("<s>", 0.0, Kind.CONTROL),
    Piece("</s>", 0.0, Kind.CONTROL),
    *(Piece(byte_name(value), 0.0, Kind.BYTE) for value in range(256)),
)
"""The pieces 0 to 258 of Llama 1 and 2."""


def check_pieces(pieces: Sequence[Piece]) -> None:
    """Raises ValueError unless texts differ, scores are finite, and the kinds are complete."""
    texts = Counter(piece.text for piece in pieces)
    if "" in texts or len(texts) < len(pieces):
        i, piece = next((i, p) for i, p in enumerate(pieces) if not p.text or texts[p.text] > 1)
        raise ValueError(f"pieces must be non-empty texts that differ; got {piece.text!r} "
                         f"{texts[piece.text]} times, first as piece {i}. Download the file "
                         "again; a part of it may be damaged")
    for i, piece in enumerate(pieces):
        if not math.isfinite(piece.score) or piece.kind == Kind.UNUSED:
            raise ValueError("a piece must have a finite score and a kind that Llama uses; got "
                             f"{piece} as piece {i}. Download the file again; a part of it may be "
                             "damaged")
    if (n := sum(piece.kind == Kind.UNKNOWN for piece in pieces)) != 1:
        raise ValueError(f"a vocabulary must have one unknown piece; got {n}. Download the file "
                         "again; a part of it may be damaged")
    names = {piece.text for piece in pieces if piece.kind == Kind.BYTE}
    if names and (wrong := names ^ set(map(byte_name, range(256)))):
        raise ValueError("byte pieces must be <0x00> to <0xFF>, each once; got "
                         f"{sorted(wrong)[:4]} too many or too few. Download the file again")

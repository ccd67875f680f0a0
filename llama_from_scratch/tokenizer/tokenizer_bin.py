"""Reads and writes llama2.c's tokenizer.bin.

The file is the length of the longest piece, then the score, length and bytes of each piece. It does
not hold the kinds of pieces: piece 0 is unknown, 1 and 2 are control pieces, 3 to 258 are bytes.

Notebook 10. Llama 1 and 2. Source: karpathy/llama2.c, tokenizer.py.
"""

import os
import struct
from collections.abc import Sequence

from llama_from_scratch.foreign import opened, read_bytes
from llama_from_scratch.tokenizer.pieces import BLANK, FIRST_PIECES, Kind, Piece
from llama_from_scratch.tokenizer.sentencepiece_file import text_of

_NAMES = {"<s>": "\n<s>\n", "</s>": "\n</s>\n"}


def is_one(path: str | os.PathLike) -> bool:
    """Returns whether the file begins like a tokenizer.bin, with the piece <unk>."""
    name = FIRST_PIECES[0].text.encode()
    with opened(path, need="a tokenizer needs a file", may_be_empty=True) as source:
        return source.read(12 + len(name))[8:] == struct.pack("<I", len(name)) + name


def is_laid_out_for_bin(pieces: Sequence[Piece]) -> bool:
    """Returns whether <unk>, <s>, </s> and 256 bytes come first, and no others of their kinds."""
    kinds = (Kind.UNKNOWN, Kind.CONTROL, Kind.BYTE)
    special = [(i, piece.text, piece.kind) for i, piece in enumerate(pieces) if piece.kind in kinds]
    return special == [(i, piece.text, piece.kind) for i, piece in enumerate(FIRST_PIECES)]


def to_bytes(pieces: Sequence[Piece]) -> bytes:
    """Returns the bytes of a tokenizer.bin."""
    texts = [_NAMES.get(piece.text, piece.text.replace(BLANK, " ")).encode() for piece in pieces]
    records = (struct.pack("<fI", piece.score, len(text)) + text
               for piece, text in zip(pieces, texts, strict=True))
    return struct.pack("<I", max(map(len, texts))) + b"".join(records)


def read_records(path: str | os.PathLike) -> list[tuple[bytes, float]]:
    """Returns the bytes and the score of each piece in a tokenizer.bin.

    Raises ValueError if the file is damaged.
    """
    data = read_bytes(path, need="a tokenizer needs a tokenizer.bin")
    cure = f"{path}. Export the tokenizer again"
    if len(data) < 4:
        raise ValueError("a tokenizer.bin must begin with the longest length in 4 bytes; got "
                         f"{len(data)} bytes in {cure}")
    longest, at = int.from_bytes(data[:4], "little"), 4
    records: list[tuple[bytes, float]] = []
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError(f"a piece must begin with 8 bytes; got {len(data) - at} for piece "
                             f"{len(records)} of {cure}")
        score, length = struct.unpack_from("<fI", data, at)
        if length > min(longest, len(data) - at - 8):
            raise ValueError("a piece must be no longer than the longest one and the rest of the "
                             f"file; piece {len(records)} has {length} bytes, the longest has "
                             f"{longest}, and {len(data) - at - 8} are left in {cure}")
        records.append((data[at + 8 : at + 8 + length], score))
        at += 8 + length
    if max((len(text) for text, _ in records), default=0) != longest:
        raise ValueError(f"the longest piece must have {longest} bytes, as the file says at its "
                         f"beginning; got {len(records)} pieces and none of that length in {cure}")
    return records


def piece_of(i: int, data: bytes, score: float) -> Piece:
    """Returns piece `i` of a tokenizer.bin. Raises ValueError if piece `i` has another text."""
    text = text_of(data)
    if i >= len(FIRST_PIECES):
        return Piece(text.replace(" ", BLANK), score)
    name, _, kind = FIRST_PIECES[i]
    known = {name, _NAMES.get(name)}
    if kind == Kind.BYTE:  # the first version of the format writes bytes as characters
        known |= {chr(i - 3), chr(i - 3).replace(BLANK, " ")}
    if text not in known:
        raise ValueError(f"piece {i} must be {name}; got {text!r}")
    return Piece(name, score, kind)

"""Meta's tokenizer.model of Llama 3 and 4, read and written: a token in base64 and a rank per line.

Special tokens and the split pattern are not in the file; `released` has those of each generation.

Notebook 10. Llama 3 and 4. Source: llama-models, models/llama3/tokenizer.py; openai/tiktoken,
tiktoken/load.py.
"""

import base64
import os
import re
from collections.abc import Mapping

from llama_from_scratch.files import replacing_file
from llama_from_scratch.foreign import opened, read_bytes


def is_one(path: str | os.PathLike) -> bool:
    """Does the file begin as a rank file does?"""
    with opened(path, need="a tokenizer needs a file", may_be_empty=True) as source:
        return re.fullmatch(rb"[A-Za-z0-9+/=]+\s+\d+\s*", source.readline(4096)) is not None


def write_ranks(path: str | os.PathLike, ranks: Mapping[bytes, int]) -> None:
    """Writes a line per token, in the order of the ranks."""
    in_order = sorted(ranks.items(), key=lambda item: item[1])
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in in_order]
    with replacing_file(path) as unfinished:
        unfinished.write_bytes(b"".join(lines))


def read_ranks(path: str | os.PathLike) -> dict[bytes, int]:
    """Returns the rank of each token in a file as `write_ranks` writes it.

    Raises ValueError, with the line, if one is malformed.
    """
    ranks: dict[bytes, int] = {}
    data = read_bytes(path, need="a tokenizer needs a rank file")
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            token = base64.b64decode(token, validate=True)
            rank = int(rank)
        except ValueError:
            raise ValueError("a rank file holds a token in base64, a blank and a rank per line, "
                             f"got {line[:80]!r} in line {number} of {path}; download the file "
                             "again") from None
        if token in ranks:
            raise ValueError(f"a token has one rank, got {token!r} again in line {number} of "
                             f"{path}; keep one line")
        ranks[token] = rank
    return ranks


def check_ranks(ranks: Mapping[bytes, int]) -> None:
    """Raises ValueError unless the ranks are 0, 1, 2, ... and every byte has one."""
    if missing := [value for value in range(256) if bytes([value]) not in ranks]:
        raise ValueError(f"each of the 256 bytes is a token; got ranks without {missing[:8]}, "
                         f"{len(missing)} in all")
    if b"" in ranks:
        raise ValueError(f"a token has at least one byte, got b'' at rank {ranks[b'']}")
    if gaps := sorted(set(range(len(ranks))) - set(ranks.values())):
        raise ValueError(f"{len(ranks)} tokens have the ranks 0 to {len(ranks) - 1}, each once, "
                         f"got none with rank {gaps[0]}; a part of the file may be lost")

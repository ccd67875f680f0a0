"""Reads and writes Meta's tokenizer.model of Llama 3 and 4: per line a token in base64 and a rank.

The file holds no special tokens and no split pattern. `released` has them for each generation.

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
    """Returns whether the file begins like a rank file."""
    with opened(path, need="a tokenizer needs a file", may_be_empty=True) as source:
        return re.fullmatch(rb"[A-Za-z0-9+/=]+\s+\d+\s*", source.readline(4096)) is not None


def write_ranks(path: str | os.PathLike, ranks: Mapping[bytes, int]) -> None:
    """Writes one line per token, in the order of the ranks."""
    in_order = sorted(ranks.items(), key=lambda item: item[1])
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in in_order]
    with replacing_file(path) as unfinished:
        unfinished.write_bytes(b"".join(lines))


def read_ranks(path: str | os.PathLike) -> dict[bytes, int]:
    """Returns the rank of each token in a file in the format of `write_ranks`.

    Raises ValueError, naming the line, if a line is malformed.
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
            raise ValueError("each line of a rank file must be a token in base64, a space and a "
                             f"rank; got {line[:80]!r} in line {number} of {path}. Download the "
                             "file again") from None
        if token in ranks:
            raise ValueError(f"a token must have one rank; got {token!r} again in line {number} of "
                             f"{path}. Keep only one of the lines")
        ranks[token] = rank
    return ranks


def check_ranks(ranks: Mapping[bytes, int]) -> None:
    """Raises ValueError unless the ranks are 0, 1, 2, ... and every byte has one."""
    if missing := [value for value in range(256) if bytes([value]) not in ranks]:
        raise ValueError("each of the 256 bytes must be a token; got ranks without "
                         f"{missing[:8]}, {len(missing)} in all")
    if b"" in ranks:
        raise ValueError(f"a token must have at least one byte; got b'' at rank {ranks[b'']}")
    if gaps := sorted(set(range(len(ranks))) - set(ranks.values())):
        raise ValueError(f"{len(ranks)} tokens must have the ranks 0 to {len(ranks) - 1}, each "
                         f"once; got none with rank {gaps[0]}. Download the file again; it may "
                         "have lost a part")

"""Writes one file of a checkpoint in parts: a safetensors file that needs no second copy in memory.

The tensors go to the disk one after the other, in pieces, while their checksum is computed. So a
mapping that makes each tensor when it is asked for needs memory for one of them.

Notebook 47. The format: https://github.com/huggingface/safetensors.
"""

import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llama_from_scratch.checkpoint.safetensors_file import DTYPES
from llama_from_scratch.config import record

_PIECE_BYTES = 4 << 20
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@record
class Written:
    """What is known of a file that was written. `crc`: as in `files.checksum`."""

    n_bytes: int
    crc: str


@record
class About:
    """The shape and dtype of a tensor that is perhaps not made yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write(
    path: Path, tensors: Mapping[str, Tensor], *, about: Mapping[str, About] | None = None
) -> Written:
    """Writes the tensors, on the CPU, and forces them to the disk.

    `about`: of each tensor, for a mapping that makes a tensor only when it is asked for. Raises
    ValueError if a tensor is not what `about` says, and OSError if the disk fails.
    """
    about = about_all(tensors) if about is None else about
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, known in about.items():
        header[name] = {"dtype": _NAMES[known.dtype], "shape": list(known.shape),
                        "data_offsets": [place, place + known.n_bytes]}
        place += known.n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned in a mapped file
    with open(path, "wb", buffering=0) as file:
        crc = _put(file, len(text).to_bytes(8, "little") + text, 0)
        for name, known in about.items():
            crc = _put(file, _bytes_of(tensors[name], known, name), crc)
        os.fsync(file.fileno())
    return Written(n_bytes=8 + len(text) + place, crc=f"{crc:08x}")


def about_all(tensors: Mapping[str, Tensor]) -> dict[str, About]:
    """Returns the shape and dtype of each tensor."""
    return {name: About(shape=tuple(x.shape), dtype=x.dtype) for name, x in tensors.items()}


def _bytes_of(tensor: Tensor, known: About, name: str) -> memoryview:
    if (tuple(tensor.shape), tensor.dtype) != (known.shape, known.dtype):
        raise ValueError(f"{name} must have the shape {known.shape} in {known.dtype}; got "
                         f"{tuple(tensor.shape)} in {tensor.dtype}. Describe what is written")
    return memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def _put(file: io.RawIOBase, left: bytes | memoryview, crc: int) -> int:
    """Writes bytes in pieces, and returns the checksum that goes on."""
    left = memoryview(left)
    while left:
        n = file.write(left[:_PIECE_BYTES])
        crc = zlib.crc32(left[:n], crc)
        left = left[n:]
    return crc

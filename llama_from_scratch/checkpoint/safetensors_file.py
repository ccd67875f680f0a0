"""One safetensors file: a list of names, types, shapes and places, then the tensors.

The file is 8 bytes with the length N of a header, then N bytes of JSON, then data. Everything in
the header is checked against the real size of the file before memory is allocated, so that a forged
or cut file is refused. A tensor is read in place: as a view of the mapped file, or piece by piece
into a new tensor of the requested dtype.

Notebook 18. The format: https://github.com/huggingface/safetensors.
"""

import io
import math
import mmap
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.foreign import opened, parse_json, plain, shown

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_PIECE_BYTES = 2 << 20
_NEED = "a checkpoint needs a whole safetensors file"


@record
class TensorEntry:
    """The place, dtype and shape of one tensor.

    `start`: its first byte, counted from the beginning of `file`.
    """

    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def entries(file: str | Path) -> dict[str, TensorEntry]:
    """Returns the tensors of a file by name, from its header alone.

    Raises ValueError if the file is missing, cut short or damaged, or naming a dtype that is not
    known.
    """
    file = Path(file)
    with opened(file, need=_NEED) as source:
        try:
            return _entries(file, source)
        except _OtherDtype as error:
            raise ValueError(f"weights must be F64, F32, F16 or BF16; in {plain(file)} "
                             f"{error}. Use the checkpoint that it was made from") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{_NEED} at {plain(file)}; it cannot be read ({error}). Copy, "
                             "download or save the checkpoint again") from error


class _OtherDtype(ValueError):
    """An intact file with a dtype that cannot be read, so downloading it again would not help."""


def _entries(file: Path, source: io.BufferedReader) -> dict[str, TensorEntry]:
    size = os.fstat(source.fileno()).st_size
    n_header = int.from_bytes(source.read(8), "little")
    if size < 8 or n_header > min(size - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"its header claims to be {n_header} bytes long, and the file has {size}")
    header = parse_json(source.read(n_header))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    found = {name: _entry(file, name, about, data_start=8 + n_header)
             for name, about in header.items()}
    _check_places(found, data_start=8 + n_header, file_size=size)
    return found


def mapped(file: Path) -> UInt8[Tensor, "bytes"]:
    """Returns the whole file as mapped memory, which is read only when it is used.

    Writing to it does not change the file.
    """
    with opened(file, need="a checkpoint needs a weight file") as source:
        n_bytes = os.fstat(source.fileno()).st_size
    return torch.from_file(str(file), shared=False, size=n_bytes, dtype=torch.uint8)


def view(entry: TensorEntry, data: UInt8[Tensor, "bytes"]) -> Shaped[Tensor, "..."]:
    """Returns the tensor as a view of its mapped file. Do not change the file during its use."""
    n_misaligned = entry.start % entry.dtype.itemsize
    flat = data[entry.start : entry.start + entry.n_bytes]
    return (flat.clone() if n_misaligned else flat).view(entry.dtype).view(entry.shape)


def read_tensor(entry: TensorEntry, *, dtype: torch.dtype | None = None) -> Shaped[Tensor, "..."]:
    """Returns the tensor as a new tensor, in `dtype` or the file's dtype.

    It needs at most 2 MB in addition to the result.
    """
    flat = torch.empty(math.prod(entry.shape), dtype=dtype or entry.dtype)
    with opened(entry.file, need=_NEED) as source:
        unbuffered = source.raw
        unbuffered.seek(entry.start)
        if flat.dtype == entry.dtype:
            _read_into(unbuffered, flat, entry.file)
        else:
            # Not from malloc, which would leave a hole after each tensor. After a hundred tensors
            # the holes would be a third of the model.
            room = torch.frombuffer(mmap.mmap(-1, _PIECE_BYTES), dtype=entry.dtype)
            for piece in flat.split(len(room)):
                _read_into(unbuffered, room[: len(piece)], entry.file)
                piece.copy_(room[: len(piece)])
    return flat.view(entry.shape)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a file, with the mark "made by PyTorch" that transformers requires.

    It has the permissions of any new file; files of the safetensors package could be read only by
    their owner. Raises OSError if the disk fails.
    """
    path.write_bytes(b"")
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path,
                  metadata={"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns all tensors of a file, on the CPU.

    Raises ValueError if the file is missing, cut short or damaged.
    """
    return {name: read_tensor(entry) for name, entry in entries(path).items()}


def are_same(a: TensorEntry, b: TensorEntry) -> bool:
    """Returns whether two tensors have the same dtype, shape and bytes; reads them in pieces."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with opened(a.file, need=_NEED) as file_a, opened(b.file, need=_NEED) as file_b:
        file_a.seek(a.start)
        file_b.seek(b.start)
        pieces = [min(_PIECE_BYTES, a.n_bytes - done) for done in range(0, a.n_bytes, _PIECE_BYTES)]
        return all(file_a.read(n) == file_b.read(n) for n in pieces)


def _entry(file: Path, name: str, about: Any, *, data_start: int) -> TensorEntry:
    if not isinstance(about, Mapping) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header's entry of {shown(name)} must have only dtype, shape and "
                         "data_offsets")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or not re.fullmatch("[A-Z]+[0-9A-Z_]*", dtype):
        raise ValueError(f"{shown(name)} has the dtype {shown(dtype)}, which is not a dtype")
    if dtype not in DTYPES:
        raise _OtherDtype(f"{shown(name)} has the dtype {shown(dtype)}, which is not one of "
                          f"{', '.join(DTYPES)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)} and the offsets "
                         f"{shown(offsets)}, which must be lists of sizes")
    entry = TensorEntry(file=file, start=data_start + offsets[0], dtype=DTYPES[dtype],
                        shape=tuple(shape))
    if offsets[1] - offsets[0] != entry.n_bytes:
        raise ValueError(f"{shown(name)} of shape {shape} in {dtype} has {entry.n_bytes} bytes, "
                         f"but its place has {offsets[1] - offsets[0]}")
    return entry


def _check_places(found: Mapping[str, TensorEntry], *, data_start: int, file_size: int) -> None:
    """Raises ValueError unless the tensors cover the data without overlap, gap or rest.

    This detects a cut file.
    """
    expected = data_start
    for name, entry in sorted(found.items(), key=lambda item: (item[1].start, item[1].n_bytes)):
        if entry.start != expected:
            raise ValueError(f"{shown(name)} begins at byte {entry.start}, but the data before it "
                             f"ends at {expected}")
        expected += entry.n_bytes
    if expected != file_size:
        raise ValueError(f"its tensors end at byte {expected}, and the file has {file_size}")


def _are_sizes(values: Any) -> bool:
    return (isinstance(values, list) and len(values) <= 8
            and all(type(v) is int and 0 <= v < 2**63 for v in values))


def _read_into(opened: Any, target: Tensor, file: Path) -> None:
    buffer = memoryview(target.view(torch.uint8).numpy())
    while buffer:
        n = opened.readinto(buffer)
        if not n:
            raise ValueError(f"{_NEED} at {plain(file)}; it was cut during reading. Copy or save "
                             "the checkpoint again")
        buffer = buffer[n:]

"""One GGUF file: facts by name, a list of tensors, then the bytes of the tensors.

The list has the name, kind, shape and place of each tensor. Everything in the header is checked
against the real size of the file before memory is allocated, so that a forged or cut file is
refused. Tensors are read one at a time, in place. Packed tensors are unpacked piece by piece.

Notebook 18. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from llama_from_scratch.checkpoint import safetensors_file
from llama_from_scratch.checkpoint.gguf_blocks import KINDS, UNREAD, BlockKind, pack_q8_0
from llama_from_scratch.checkpoint.safetensors_file import TensorEntry
from llama_from_scratch.config import record
from llama_from_scratch.files import replacing_file
from llama_from_scratch.foreign import opened, plain

MAGIC = b"GGUF"
_BEFORE_GGUF = (b"lmgg", b"fmgg", b"tjgg")  # "ggml", "ggmf" and "ggjt" as little-endian numbers
VERSIONS = (2, 3)  # 3 added big-endian files to 2 and changed nothing else
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_MAX_DIMS = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}
_STRING, _ARRAY = 8, 9
_PIECE_VALUES = 1 << 16
_NEED = "a checkpoint needs a whole GGUF file"


@record
class PackedEntry:
    """Where one tensor is, how it is packed, and its shape.

    `start`: its first byte, counted from the start of `file`.
    """

    file: Path
    start: int
    kind: BlockKind
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) // self.kind.n_values * self.kind.n_bytes


@record
class Header:
    """The header of a file.

    `facts`: by name; lists of numbers are numpy arrays. `tensors`: by name.
    """

    facts: dict[str, Any]
    tensors: dict[str, PackedEntry]


class NotRead(ValueError):
    """The file may be intact, but this version cannot read its content."""


def is_one(path: Path) -> bool:
    """Returns whether the file at `path` begins like a GGUF file or a file of an earlier format."""
    if not path.is_file():
        return False
    with opened(path, need="a checkpoint needs a file", may_be_empty=True) as source:
        return source.read(len(MAGIC)) in (MAGIC, *_BEFORE_GGUF)


def header(file: str | Path) -> Header:
    """Returns the header of a file.

    Raises ValueError if it is missing, cut short, damaged, or of a kind that cannot be read.
    """
    file = Path(file)
    with opened(file, need=_NEED) as source:
        try:
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header(file)
        except NotRead as error:
            raise ValueError(f"{plain(file)} cannot be read with this version: {error}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{_NEED} at {plain(file)}; it cannot be read ({error}). Copy or "
                             "download it again") from error


def read_tensor(
    entry: PackedEntry, data: UInt8[Tensor, "bytes"], *, dtype: torch.dtype | None = None
) -> Tensor:
    """Returns the tensor in `dtype`, by default the file's, or fp32 if it is packed.

    `data`: the mapped file. The result is a view of it if nothing changes, or else a new tensor.
    """
    if entry.kind.unpack is None:
        plain = TensorEntry(file=entry.file, start=entry.start, dtype=DTYPES[entry.kind.name],
                      shape=entry.shape)
        if dtype not in (None, plain.dtype):
            return safetensors_file.read_tensor(plain, dtype=dtype)
        return safetensors_file.view(plain, data)
    raw = data[entry.start : entry.start + entry.n_bytes].numpy().reshape(-1, entry.kind.n_bytes)
    flat = torch.empty(math.prod(entry.shape), dtype=dtype or torch.float32)
    n_blocks = _PIECE_VALUES // entry.kind.n_values
    for i, piece in enumerate(flat.split(_PIECE_VALUES)):
        piece.copy_(
            torch.from_numpy(entry.kind.unpack(raw[i * n_blocks : (i + 1) * n_blocks])).flatten())
    return flat.view(entry.shape)


def write(
    file: Path, facts: Mapping[str, tuple[str, Any]],
    tensors: Iterable[tuple[str, BlockKind, Tensor]],
) -> None:
    """Writes a file, all or nothing; replaces an existing file.

    `facts`: name -> (type, value). A type is "u32", "f32", "bool" or "str", or one of these in
    brackets for a list. Raises ValueError for a value that the kind cannot hold.
    """
    tensors = list(tensors)
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(facts)))
    for name, (kind, value) in facts.items():
        head += _string(name) + _fact(kind, value)
    at = 0
    for name, kind, tensor in tensors:
        if tensor.shape[-1] % kind.n_values:
            raise ValueError(f"{kind.name} packs {kind.n_values} neighbors of a row, so the length "
                             "of rows must be a multiple of that; "
                             f"{name} is {tuple(tensor.shape)}. Write another kind")
        dims = tensor.shape[::-1]  # the format lists the innermost axis first
        head += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind.number, at)
        at = _aligned(at + tensor.numel() // kind.n_values * kind.n_bytes, _ALIGNMENT)
    with replacing_file(file) as unfinished, open(unfinished, "wb") as out:
        out.write(head)
        for name, kind, tensor in tensors:
            out.write(bytes(-out.tell() % _ALIGNMENT))
            for piece in tensor.detach().contiguous().flatten().split(_PIECE_VALUES):
                out.write(memoryview(_packed(name, kind, piece)).cast("B"))
        out.write(bytes(-out.tell() % _ALIGNMENT))


def _packed(name: str, kind: BlockKind, values: Tensor) -> np.ndarray:
    values = values.cpu().float()
    if kind.name == "F32":
        return values.numpy().astype("<f4")
    if not values.isfinite().all() or values.abs().max() > torch.finfo(torch.float16).max:
        raise ValueError(f"{kind.name} can hold only finite numbers up to 65504; {name} has "
                         "others. Write F32")
    return (values.half().numpy() if kind.name == "F16"
            else pack_q8_0(values.view(-1, kind.n_values).numpy()))


def _fact(kind: str, value: Any) -> bytes:
    numbers = {"u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": _STRING}
    if not kind.startswith("["):
        return struct.pack("<I", numbers[kind]) + _value(kind, value)
    kind = kind[1:-1]
    return (struct.pack("<IIQ", _ARRAY, numbers[kind], len(value))
            + b"".join(_value(kind, each) for each in value))


def _value(kind: str, value: Any) -> bytes:
    codes = {"u32": "<I", "i32": "<i", "f32": "<f", "bool": "<?"}
    return _string(value) if kind == "str" else struct.pack(codes[kind], value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment


class _Reader:
    """Reads a header from its beginning to its end, and never past the end of the file."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def header(self, file: Path) -> Header:
        magic = self.take(4, "the first four bytes")
        if magic in _BEFORE_GGUF:
            raise NotRead(f"it reads GGUF files; this file begins with {magic!r}, like files from "
                          "before August 2023. Download a GGUF file of the same model")
        if magic != MAGIC:
            raise ValueError(f"it begins with {magic!r}, not with {MAGIC!r}")
        version = self.number("I", "the version")
        if version and version % (1 << 16) == 0:
            raise NotRead("it reads little-endian files; this file was written for big-endian "
                          "machines. Download the little-endian file, or convert this one with "
                          "gguf_convert_endian.py of llama.cpp")
        if version not in VERSIONS:
            raise NotRead(f"it reads versions 2 and 3 of GGUF; this file has version {version}. "
                          "Download another conversion of the same model, or this file again if "
                          "it is damaged")
        n_tensors, n_facts = self.count(25, "tensors"), self.count(13, "facts")
        facts = dict(_once(((self.string("a name"), self.value()) for _ in range(n_facts)), "fact"))
        claims = dict(_once((self.claim() for _ in range(n_tensors)), "tensor"))
        alignment = facts.get("general.alignment", _ALIGNMENT)
        if (type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT
            or alignment & (alignment - 1)):
            raise ValueError("general.alignment must be a power of two up to "
                             f"{_MAX_ALIGNMENT}; got {alignment!r:.80}")
        start = expected = _aligned(self.at, alignment)
        tensors = {name: PackedEntry(file=file, start=start + offset, kind=kind, shape=shape)
                   for name, (kind, shape, offset) in claims.items()}
        # Tensors must not overlap or leave a gap or rest, so that a cut file is detected.
        for name, entry in sorted(tensors.items(), key=lambda item: item[1].start):
            if entry.start != expected:
                raise ValueError(f"{name!r:.80} begins at byte {entry.start}, but the data before "
                                 f"it ends at {expected}")
            end = entry.start + entry.n_bytes
            if end > len(self.data):
                raise ValueError(f"{name!r:.80} ends at byte {end}, and the file has "
                                 f"{len(self.data)}")
            expected = _aligned(end, alignment)
        if tensors and len(self.data) > expected:
            raise ValueError(f"its tensors end at byte {expected}, and the file has "
                             f"{len(self.data)}")
        return Header(facts=facts, tensors=tensors)

    def take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > len(self.data) - self.at:
            raise ValueError(f"{what} at byte {self.at} is {n_bytes} bytes long, and the file has "
                             f"{len(self.data)}")
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def count(self, least_bytes: int, what: str) -> int:
        """Reads a count of things that take at least `least_bytes` each, and returns it."""
        n = self.number("Q", f"the number of {what}")
        if n > (len(self.data) - self.at) // least_bytes:
            raise ValueError(f"its header claims {n} {what}, but it has only {len(self.data)} "
                             "bytes")
        return n

    def string(self, what: str) -> str:
        data = self.take(self.number("Q", what), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{what} must be UTF-8; got {data[:40]!r}") from None

    def value(self) -> Any:
        kind = self.number("I", "the type of a value")
        return self.array() if kind == _ARRAY else self.scalar(kind)

    def scalar(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string("a text")
        if kind not in _SCALARS:
            raise ValueError(f"the type of a value must be 0 to 12; got {kind}")
        if kind == 7 and (byte := self.number("B", "a value")) > 1:
            raise ValueError(f"a bool must be 0 or 1; got {byte}")
        return bool(byte) if kind == 7 else self.number(_SCALARS[kind], "a value")

    def array(self) -> Any:
        kind = self.number("I", "the type of a list")
        if kind == _STRING:
            return [self.string("a text") for _ in range(self.count(8, "texts"))]
        if kind not in _SCALARS:
            raise ValueError(f"a list must hold texts or numbers; got type {kind}")
        dtype = np.dtype("<" + _SCALARS[kind])
        n = self.count(dtype.itemsize, "numbers")
        return np.frombuffer(self.take(n * dtype.itemsize, "a list"), dtype)

    def claim(self) -> tuple[str, tuple[BlockKind, tuple[int, ...], int]]:
        """Reads the entry of a tensor. Returns its name and (kind, shape, place after the header).

        The shape is in PyTorch's order.
        """
        name = self.string("a name")
        n_dims = self.number("I", f"the number of axes of {name!r:.80}")
        if not 1 <= n_dims <= _MAX_DIMS:
            raise ValueError(f"a tensor must have 1 to {_MAX_DIMS} axes; {name!r:.80} has {n_dims}")
        shape = tuple(self.number("Q", f"the shape of {name!r:.80}") for _ in range(n_dims))[::-1]
        number = self.number("I", f"the kind of {name!r:.80}")
        offset = self.number("Q", f"the place of {name!r:.80}")
        kind = KINDS.get(number)
        if kind is None:
            raise NotRead(f"it reads tensors in {', '.join(k.name for k in KINDS.values())}; "
                          f"{name!r:.80} is packed as {UNREAD.get(number, number)}. "
                          "Download the same model in another kind, such as Q4_K_M or Q8_0, or "
                          "unpack this file with llama.cpp: llama-quantize --allow-requantize "
                          "THIS.gguf NEW.gguf F16")
        n_values = math.prod(shape)
        if (not 0 < n_values or n_values // kind.n_values * kind.n_bytes > len(self.data)
            or offset > len(self.data)):
            raise ValueError(f"its header claims that {name!r:.80} is {shape} in {kind.name} at "
                             f"byte {offset} of the data, but the file has {len(self.data)} bytes")
        if shape[-1] % kind.n_values:
            raise ValueError(f"{kind.name} packs {kind.n_values} neighbors of a row, but "
                             f"{name!r:.80} is {shape}")
        return name, (kind, shape, offset)


def _once(pairs: Iterable[tuple[str, Any]], what: str) -> Iterator[tuple[str, Any]]:
    seen = set()
    for name, value in pairs:
        if name in seen:
            raise ValueError(f"each name must occur once; the {what} {name!r:.80} occurs twice")
        seen.add(name)
        yield name, value

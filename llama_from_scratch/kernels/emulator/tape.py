"""Records a traced launch and reads it back as elements of arrays and lines of source.

trace.h writes numbers onto a `Tape`, in memory that is allocated here. The compiled file's symbols
and line table (debug_info.py) give them names. A launch gets copies of its tensors with empty space
around them, so that an element past an end belongs to no array.

Notebook 30.
"""

import ast
import contextlib
import ctypes
import dataclasses
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator import debug_info, machine
from llama_from_scratch.kernels.emulator.rules import ACCESS, SYNC
from llama_from_scratch.kernels.machinery.source import Argument, Program
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap

MAX_PICTURE_BYTES = 1 << 26
MAX_MOMENTS = MAX_SYNCS = MAX_EVENTS = 1 << 18
GUARD_BYTES = 1 << 16  # around each tensor
PAGE_BYTES = 4096
NO_ARRAY = 255           # the number for an access outside every array

_MOMENT = np.dtype([("file", "u8"), ("line", "u4"), ("interval", "u4")])
_HAPPENING = np.dtype([("file", "u8"), ("number", "u8"), ("line", "u4"), ("block", "u4"),
                       ("thread", "u4"), ("event", "u4")])
_NUMPY = {"float": "f4", "double": "f8", "int": "i4", "unsigned": "u4", "long long": "i8",
          "unsigned char": "u1", "signed char": "i1", "bool": "?", "fp16": "f2", "bf16": "u2"}
_TORCH = {torch.float32: "f4", torch.float64: "f8", torch.int32: "i4", torch.uint32: "u4",
          torch.int64: "i8", torch.uint8: "u1", torch.int8: "i1", torch.float16: "f2",
          torch.bfloat16: "u2"}
_INDICES = ("threadIdx", "blockIdx", "blockDim", "gridDim")
_DECLARED = re.compile(
    r"__shared__\s+(?:(?:__align__|alignas)\(\w+\)\s+)?"
    r"(?P<type>[a-z]\w*(?: long| char)?)\s+(?P<name>\w+)\s*(?P<shape>(?:\[[^\]]+\])*)\s*;")
_DYNAMIC = re.compile(r"DYNAMIC_SHARED\(\s*(?P<type>[\w ]+?)\s*,\s*(?P<name>\w+)\s*\)")
_CONSTANT = re.compile(r"constexpr\s+(?:int|unsigned)\s+(\w+)\s*=\s*([^;]+);")


@record
class Line:
    """A line of the kernel's source, or of a header that it includes."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        is_kernel = self.file.endswith(".cu")
        return f"line {self.number}" if is_kernel else f"{self.file}, line {self.number}"


@record
class Array:
    """A tensor of the launch or a shared array of the block. bf16 has the dtype u2."""

    name: str
    begin: int
    n_bytes: int
    dtype: str
    shape: tuple[int, ...]
    is_shared: bool

    @property
    def item_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def n_elements(self) -> int:
        return self.n_bytes // self.item_bytes

    def element(self, address: int) -> str:
        """Returns the element at an address as source text, such as tile[3][5].

        The address may be beyond the array.
        """
        flat = (address - self.begin) // self.item_bytes
        if len(self.shape) > 1 and 0 <= flat < self.n_elements:
            return self.name + "".join(f"[{index}]" for index in np.unravel_index(flat, self.shape))
        return f"{self.name}[{flat}]" if self.shape or flat else self.name

    def values(self, data: np.ndarray) -> np.ndarray:
        """Returns the array's bytes as numbers, with bf16 as fp32."""
        numbers = data.view(self.dtype).reshape(self.shape)
        return (numbers.astype("u4") << 16).view("f4") if self.dtype == "u2" else numbers


class _Room(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("n", ctypes.c_uint64), ("most", ctypes.c_uint64))

    @classmethod
    def over(cls, items: np.ndarray) -> "_Room":
        return cls(items.ctypes.data, 0, len(items))


class _Tape(ctypes.Structure):  # trace::Tape
    _fields_ = (
        *((name, ctypes.c_uint64)
          for name in ("file_begin", "shared_begin", "shared_end", "dynamic_begin")),
        *((name, _Room) for name in ("accesses", "syncs", "moments", "pictures", "regions",
                                       "happenings")),
        ("watched_block", ctypes.c_uint64), ("has_stray", ctypes.c_uint64),
        ("stray", ctypes.c_ubyte * ACCESS.itemsize))


class Tape:
    """Memory for what one launch records, within `with tape.on(library, symbols, tensors):`."""

    def __init__(self, *, max_accesses: int, watch: int) -> None:
        self._accesses, self._syncs = np.empty(max_accesses, ACCESS), np.empty(MAX_SYNCS, SYNC)
        self._moments = np.empty(MAX_MOMENTS, _MOMENT)
        self._pictures = np.empty(MAX_PICTURE_BYTES, "u1")
        self._happenings = np.empty(MAX_EVENTS, _HAPPENING)
        self._raw = _Tape(watched_block=watch, accesses=_Room.over(self._accesses),
                          syncs=_Room.over(self._syncs), moments=_Room.over(self._moments),
                          pictures=_Room.over(self._pictures),
                          happenings=_Room.over(self._happenings))

    @contextlib.contextmanager
    def on(
        self, library: ctypes.CDLL, symbols: "Symbols", tensors: Sequence[Array]
    ) -> Iterator[None]:
        library.emulate_onto_tape.argtypes = [ctypes.c_void_p]
        library.emulate_onto_tape(ctypes.addressof(self._raw))  # fills in file_begin
        regions = [(array.begin, array.begin + array.n_bytes, 1)
                   for array in (*tensors, *self.shared(symbols))]
        regions += [(self._raw.file_begin + begin, self._raw.file_begin + begin + size, 0)
                    for begin, size in symbols.others]
        self._regions = np.array(regions, "u8")
        self._raw.regions = _Room(self._regions.ctypes.data, len(regions), len(regions))
        try:
            yield
        finally:
            library.emulate_onto_tape(None)

    def shared(self, symbols: "Symbols") -> tuple[Array, ...]:
        """Returns the static shared arrays, at their addresses in this process."""
        return tuple(dataclasses.replace(array, begin=array.begin + self._raw.file_begin)
                     for array in symbols.shared)

    def dynamic(self, declared: tuple[str, str] | None, n_bytes: int) -> tuple[Array, ...]:
        """Returns the dynamic shared memory as one array, or nothing if the launch has none."""
        if not n_bytes:
            return ()
        name, dtype = declared or ("dynamic shared memory", "f4")
        size = n_bytes // np.dtype(dtype).itemsize
        return (Array(name=name, begin=self._raw.dynamic_begin, n_bytes=n_bytes, dtype=dtype,
                      shape=(size,), is_shared=True),)

    @property
    def accesses(self) -> np.ndarray:
        return self._accesses[:self._raw.accesses.n].copy()

    @property
    def syncs(self) -> np.ndarray:
        return self._syncs[:self._raw.syncs.n].copy()

    @property
    def happenings(self) -> np.ndarray:
        return self._happenings[:self._raw.happenings.n].copy()

    @property
    def stray(self) -> np.ndarray | None:
        """The access outside every array that ended the launch, or None."""
        return np.frombuffer(bytes(self._raw.stray), ACCESS) if self._raw.has_stray else None

    def pictures(
        self, arrays: Sequence[Array]
    ) -> list[tuple[tuple[int, int], dict[str, np.ndarray]]]:
        """Returns, per moment, (file's address, line) of its barrier and values by shared array."""
        static_bytes = self._raw.shared_end - self._raw.shared_begin
        moments = self._moments[:self._raw.moments.n]
        data = self._pictures[:self._raw.pictures.n]
        data = data.reshape(len(moments), -1 if len(moments) else 0)
        found = []
        for moment, picture in zip(moments, data, strict=True):
            values = {}
            for array in arrays:
                is_static = self._raw.shared_begin <= array.begin < self._raw.shared_end
                start = array.begin - self._raw.shared_begin if is_static else static_bytes
                values[array.name] = array.values(picture[start:start + array.n_bytes].copy())
            found.append(((int(moment["file"]), int(moment["line"])), values))
        return found

    def lines(
        self, path: Path, texts: dict[str, str], places: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], Line]:
        """Returns the source line of each (instruction, 0) or (address of a file's name, line)."""
        places = list(places)
        codes = [place for place, line in places if not line]
        found = {code: _source_line(path, code - self._raw.file_begin, texts) for code in codes}
        return {(place, line): (_line(texts, ctypes.string_at(place).decode(), line) if line
                                else found[place]) for place, line in places}


def _line(texts: dict[str, str], file: str, number: int) -> Line:
    file = Path(file).name
    lines = texts.get(file, "").split("\n")
    return Line(file=file, number=number,
                text=lines[number - 1].strip() if 0 < number <= len(lines) else "")


# --- what the compiled file contains --------------------------------------------------------------


@record
class Symbols:
    """The variables of a compiled program that a kernel may touch, as offsets in the file.

    others: (begin, bytes) of constants, threadIdx and similar variables.
    """

    shared: tuple[Array, ...]
    others: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, path: Path, program: Program, entry: str) -> "Symbols":
        """Returns the symbols without arrays of other entry points, which `entry` does not have."""
        foreign = {name for name in program.source.entries if name != entry}
        shared, others = [], []
        for variable in debug_info.read_debug_info(path).variables:
            name, begin, n_bytes = variable.name, variable.begin, variable.n_bytes
            if variable.is_shared:
                scopes = re.findall(r"\w+", name.rpartition("::")[0])
                if "emu_guard_" not in name and foreign.isdisjoint(scopes):
                    shared.append(_declared(program, name, begin, n_bytes))
            elif variable.is_read_only or name in _INDICES or "(anonymous namespace)" in name:
                others.append((begin, n_bytes))
        return cls(shared=tuple(shared), others=tuple(others))


def _declared(program: Program, symbol: str, begin: int, n_bytes: int) -> Array:
    name = re.sub(r"\W.*", "", symbol.rpartition("::")[2])
    texts = (program.source.text, *program.source.headers.values())
    constants = {m[1]: m[2] for text in texts for m in _CONSTANT.finditer(text)}
    for match in (m for text in texts for m in _DECLARED.finditer(text) if m["name"] == name):
        dtype, more = _numpy_type(program, match["type"])
        sizes = [_evaluated(size, constants)
                 for size in re.findall(r"\[([^\]]+)\]", match["shape"])]
        shape = (*(size or 0 for size in sizes), *more)
        if np.dtype(dtype).itemsize * int(np.prod(shape)) == n_bytes:
            return Array(name=name, begin=begin, n_bytes=n_bytes, dtype=dtype, shape=shape,
                         is_shared=True)
    n = n_bytes // np.dtype(dtype := "f4" if n_bytes % 4 == 0 else "u1").itemsize
    return Array(name=name, begin=begin, n_bytes=n_bytes, dtype=dtype, shape=(n,), is_shared=True)


def dynamic_declaration(program: Program) -> tuple[str, str] | None:
    """Returns (name, dtype) of the source's dynamic shared memory, or None if it has none."""
    match = _DYNAMIC.search(program.source.text)
    return match and (match["name"], _numpy_type(program, match["type"])[0])


def _numpy_type(program: Program, c_type: str) -> tuple[str, tuple[int, ...]]:
    c_type = {"real": program.real_name,
              "accum": "double" if program.accum == torch.float64 else "float"}.get(c_type, c_type)
    if match := re.fullmatch(r"(float|double|int|uint)([234])", c_type):
        return _NUMPY[match[1].replace("uint", "unsigned")], (int(match[2]),)
    return _NUMPY.get(c_type, "u1"), ()


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
              ast.Div: operator.floordiv}


def _evaluated(text: str, constants: dict[str, str]) -> int | None:
    """Returns an array's size as a number, or None if only a compiler can compute it."""
    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in constants:
                return value(ast.parse(constants[name].strip(), mode="eval").body)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
        raise SyntaxError(text)

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        return None


def _source_line(path: Path, offset: int, texts: dict[str, str]) -> Line:
    # The line of the call, which is before the address that it returns to.
    frames = debug_info.read_debug_info(path).lines(offset - 1)
    known = [(file, number) for file, number in frames if file in texts and number]
    return _line(texts, *(known or frames or [("?", 0)])[0])


# --- tensors with empty space around them ---------------------------------------------------------


def guarded(
    names: Sequence[str], args: Sequence[Argument]
) -> tuple[list, tuple[Array, ...]]:
    """Returns the arguments with copies for tensors, and the copies as arrays with their names.

    The copies of overlapping tensors overlap too. A copy is as far from the start of a page as the
    tensor is from the start of its storage, because a GPU aligns storages to pages.
    """
    tensors = {name: getattr(arg, "tensor", arg) for name, arg in zip(names, args, strict=True)
               if isinstance(arg, Tensor | TensorMap)}
    # Begin, end, and the place in `room`, of each stretch of memory that tensors cover.
    groups: list[list[int]] = []
    for tensor in sorted(tensors.values(), key=Tensor.data_ptr):
        begin, end = tensor.data_ptr(), tensor.data_ptr() + machine.extent(tensor)
        if not groups or begin >= groups[-1][1]:
            behind = groups[-1][2] + groups[-1][1] - groups[-1][0] if groups else 0
            page = -(-(behind + GUARD_BYTES) // PAGE_BYTES) * PAGE_BYTES
            groups.append([begin, end,
                           page + (begin - tensor.untyped_storage().data_ptr()) % PAGE_BYTES])
        groups[-1][1] = max(groups[-1][1], end)
    room = torch.empty(groups[-1][2] + groups[-1][1] - groups[-1][0] + GUARD_BYTES + PAGE_BYTES,
                       dtype=torch.uint8)
    room = room[-room.data_ptr() % PAGE_BYTES:]

    def copied(tensor: Tensor) -> Tensor:
        begin, _, place = next(group for group in groups
                               if group[0] <= tensor.data_ptr() < max(group[1], group[0] + 1))
        start = place + tensor.data_ptr() - begin
        copy = room[start:start + machine.extent(tensor)].view(tensor.dtype)
        return copy.as_strided(tensor.shape, tensor.stride()).copy_(tensor.detach())

    copies = [machine.with_tensor(arg, copied) for arg in args]
    arrays: dict[tuple[int, int], Array] = {}
    for name, copy in zip(names, copies, strict=True):
        copy = copy.tensor if isinstance(copy, TensorMap) else copy
        if isinstance(copy, Tensor):
            span = copy.data_ptr(), machine.extent(copy)
            if span in arrays:  # one tensor under two names, as in an operation in place
                name = f"{arrays[span].name}/{name}"
            arrays[span] = Array(name=name, begin=copy.data_ptr(), n_bytes=span[1],
                                 dtype=_TORCH[copy.dtype], shape=(span[1] // copy.itemsize,),
                                 is_shared=False)
    return copies, tuple(arrays.values())

"""A kernel's source text, and what its entry points take.

Every kernel is one plain `.cu` file. The dtype is a compile flag (`-DREAL=bf16`), not a template, so an entry point reads as
it is called, and its C signature is all that Python needs: it is parsed here, and every argument is checked against it and
typed by it. A launch is then six integers and a list of pointers, for a GPU and for the emulator alike.

Notebook 30.
"""

import ctypes
import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.cache import digest

FOLDER = Path(__file__).parent
REAL_NAMES = {torch.float32: "float", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "double"}

_TENSOR_DTYPES = {
    "float": torch.float32, "double": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16, "int": torch.int32,
    "long long": torch.int64, "unsigned": torch.uint32, "unsigned char": torch.uint8,
}
_INTEGERS = {"int": (ctypes.c_int, -(2**31), 2**31 - 1), "unsigned": (ctypes.c_uint, 0, 2**32 - 1),
             "long long": (ctypes.c_longlong, -(2**63), 2**63 - 1)}
_FLOATS = {"float": ctypes.c_float, "double": ctypes.c_double}

_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\(\s*(?P<threads>\w+)[^)]*\)\s+)?(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)')
_PARAMETER = re.compile(r"(?P<const>const\s+)?(?P<type>[a-z]\w*(?:\s+(?:long|char))?)\s*(?P<pointer>\*?)"
                        r"\s*(?:__restrict__\s+)?(?P<name>\w+)")


@record
class Parameter:
    """One argument of an entry point, as its C declaration states it."""

    name: str
    c_type: str
    is_pointer: bool
    is_const: bool

    @property
    def may_be_null(self) -> bool:
        """A pointer whose name ends in `_or_null` may be given None."""
        return self.is_pointer and self.name.endswith("_or_null")


@record
class Entry:
    """An `extern "C" __global__` function: its name, its parameters in order, and the most threads a block of it may have."""

    name: str
    parameters: tuple[Parameter, ...]
    max_threads: int
    line: int


@record
class Source:
    """The text of a `.cu` file and of the headers it includes, by name."""

    name: str
    text: str
    headers: dict[str, str]

    @classmethod
    def read(cls, name: str) -> "Source":
        """The kernel file `name`.cu of this folder. Raises ValueError, with the names there are, if there is none."""
        if not (FOLDER / f"{name}.cu").is_file():
            names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.cu")))
            raise ValueError(f"a kernel source must be one of {names}; got {name!r}")
        headers = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.cuh"))}
        return cls(name=name, text=(FOLDER / f"{name}.cu").read_text(), headers=headers)

    def replace(self, old: str, new: str) -> "Source":
        """This source with one place changed. Raises ValueError unless `old` occurs exactly once, in the file or one header."""
        texts = {f"{self.name}.cu": self.text, **self.headers}
        if (count := sum(text.count(old) for text in texts.values())) != 1:
            raise ValueError(f"the text to replace must occur once in {', '.join(texts)}; {old!r} occurs {count} times")
        changed = {name: text.replace(old, new) for name, text in texts.items()}
        return Source(name=self.name, text=changed.pop(f"{self.name}.cu"), headers=changed)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every entry point by name. Raises ValueError for a declaration that Python could not call."""
        text = re.sub(r"//[^\n]*", lambda comment: " " * len(comment[0]), self.text)
        constants = {m[1]: int(m[2]) for m in re.finditer(r"constexpr\s+int\s+(\w+)\s*=\s*(\d+)\s*;", text)}
        found = {}
        for match in _ENTRY.finditer(text):
            threads = match["threads"] or "1024"
            found[match["name"]] = Entry(
                name=match["name"], line=text.count("\n", 0, match.start()) + 1,
                parameters=tuple(_parameter(part, match["name"]) for part in match["parameters"].split(",")),
                max_threads=int(threads) if threads.isdigit() else constants[threads])
        return found


def _parameter(text: str, entry: str) -> Parameter:
    match = _PARAMETER.fullmatch(" ".join(text.split()))
    known = {*_TENSOR_DTYPES, "real", "accum"} if match and match["pointer"] else {*_INTEGERS, *_FLOATS, "accum"}
    if match is None or match["type"] not in known:
        raise ValueError(f"a parameter of {entry} must be a pointer or a number of the types {', '.join(sorted(known))}; "
                         f"got {' '.join(text.split())!r}")
    return Parameter(name=match["name"], c_type=match["type"], is_pointer=bool(match["pointer"]), is_const=bool(match["const"]))


@record
class Program:
    """A source compiled for one dtype: `real` is what the text calls `real`."""

    source: Source
    real: torch.dtype

    def __post_init__(self) -> None:
        if self.real not in REAL_NAMES:
            raise ValueError(f"the kernels compute in {', '.join(map(str, REAL_NAMES))}; got {self.real}. "
                             "Convert the tensors, or use PyTorch's own functions")

    @property
    def real_name(self) -> str:
        """The dtype as the compile flag -DREAL= spells it."""
        return REAL_NAMES[self.real]

    @property
    def accum(self) -> torch.dtype:
        """What sums run in: fp32, or fp64 in the double program."""
        return torch.float64 if self.real == torch.float64 else torch.float32

    @cached_property
    def key(self) -> str:
        """A digest of the whole program: equal for equal texts, so that compiled code can be found by it."""
        headers = [text for header in sorted(self.source.headers.items()) for text in header]
        return digest(self.source.name, self.source.text, *headers, self.real_name)

    def entry(self, name: str) -> Entry:
        """The entry point of that name; ValueError, with the names there are, if there is none."""
        if name not in self.source.entries:
            raise ValueError(f"{self.source.name}.cu has the entry points {', '.join(self.source.entries)}; got {name!r}")
        return self.source.entries[name]


class Arguments:
    """Checked and typed arguments of one launch: `pointers` is what both drivers take. Keeps the values alive."""

    def __init__(self, values: Sequence[ctypes._SimpleCData], tensors: Sequence[Tensor], device: torch.device) -> None:
        self.values, self.tensors, self.device = tuple(values), tuple(tensors), device
        addresses = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in self.values]
        self.pointers = (ctypes.c_void_p * len(addresses))(*addresses)


def pack(program: Program, entry: str, args: Sequence[Tensor | float | int | None]) -> Arguments:
    """The arguments of one launch of `entry`, each as the C type its parameter declares.

    Raises ValueError for a wrong number of arguments, and for a tensor of another dtype, on another device than the rest, with
    gaps between its elements, or not aligned to 16 bytes; TypeError or OverflowError for a scalar that its C type cannot hold.
    """
    parameters = program.entry(entry).parameters
    if len(args) != len(parameters):
        names = ", ".join(p.name for p in parameters)
        raise ValueError(f"{entry} takes {len(parameters)} arguments ({names}); got {len(args)}")
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1:
        found = ", ".join(sorted(map(str, devices))) or "no tensor"
        raise ValueError(f"all tensors of a launch must be on one device; {entry} got {found}")
    values = [_pointer(program, entry, p, arg) if p.is_pointer else _scalar(program, entry, p, arg)
              for p, arg in zip(parameters, args)]
    return Arguments(values, tensors, devices.pop())


def _pointer(program: Program, entry: str, parameter: Parameter, arg: Tensor | float | int | None) -> ctypes.c_void_p:
    where = f"{parameter.name} of {entry}"
    if arg is None and parameter.may_be_null:
        return ctypes.c_void_p(0)
    if not isinstance(arg, Tensor):
        raise ValueError(f"{where} must be a tensor; got {type(arg).__name__}")
    dtype = {"real": program.real, "accum": program.accum}.get(parameter.c_type) or _TENSOR_DTYPES[parameter.c_type]
    if arg.dtype != dtype:
        raise ValueError(f"{where} must be {dtype} in this program; got {arg.dtype}")
    if not arg.is_contiguous():
        raise ValueError(f"{where} must lie in memory without gaps; got shape {tuple(arg.shape)} with strides {arg.stride()}. "
                         "Pass tensor.contiguous()")
    if arg.data_ptr() % 16:
        raise ValueError(f"{where} must start at a multiple of 16 bytes, as the kernel reads 16 at a time; "
                         f"it starts {arg.data_ptr() % 16} bytes behind one. Pass tensor.clone()")
    return ctypes.c_void_p(arg.data_ptr())


def _scalar(program: Program, entry: str, parameter: Parameter, arg: Tensor | float | int | None) -> ctypes._SimpleCData:
    where = f"{parameter.name} of {entry}"
    c_type = {"accum": "double" if program.real == torch.float64 else "float"}.get(parameter.c_type, parameter.c_type)
    if isinstance(arg, bool) or not isinstance(arg, int if c_type in _INTEGERS else int | float):
        raise TypeError(f"{where} must be a Python number that fits {c_type}; got {arg!r} ({type(arg).__name__})")
    if c_type in _FLOATS:
        value = _FLOATS[c_type](arg)
        if math.isinf(value.value) and not math.isinf(arg):
            raise OverflowError(f"{where} must fit {c_type}; got {arg!r}")
        return value
    kind, least, most = _INTEGERS[c_type]
    if not least <= arg <= most:
        raise OverflowError(f"{where} must fit {c_type}, {least} to {most}; got {arg}")
    return kind(arg)

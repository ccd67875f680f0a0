"""A kernel's source text, and what its entry points take.

Every kernel is one plain `.cu` file. The dtype is a compile flag (`-DREAL=bf16`), not a template,
so an entry point reads as it is called. Python needs only its C signature, which is parsed here;
every argument is checked and typed by it. A launch is then six integers and a list of pointers, for
a GPU and for the emulator alike.

Notebook 30.
"""

import ctypes
import re
import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery.tensor_map import N_BYTES, TensorMap

FOLDER = Path(__file__).parents[1]   # of the kernels
REAL_NAMES = {torch.float32: "float", torch.bfloat16: "bf16", torch.float16: "fp16",
              torch.float64: "double"}

_TENSOR_DTYPES = {
    "float": torch.float32, "double": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16,
    "int": torch.int32, "long long": torch.int64, "unsigned": torch.uint32,
    "unsigned char": torch.uint8, "signed char": torch.int8,
}
_INTEGERS = {"int": (-(2**31), 2**31 - 1), "unsigned": (0, 2**32 - 1),
             "long long": (-(2**63), 2**63 - 1)}
# As the struct module spells them.
_CODES = {"int": "i", "unsigned": "I", "long long": "q", "float": "f", "double": "d"}

_TENSOR_MAP = "TensorMap"   # the only type of a parameter that is neither pointer nor number
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"', re.MULTILINE)
_REAL = re.compile(r"^// real: ([\w ]+)$", re.MULTILINE)
_INSTRUCTIONS = re.compile(r"^// instructions: ([A-Z ]+)$", re.MULTILINE)
_ARCHITECTURES = re.compile(r"^// architectures: (sm_\d+)( and newer|a)$", re.MULTILINE)
OLDEST = "sm_75"   # Turing, 2018: the oldest that today's compilers still build for

_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\(\s*(?P<threads>\w+)[^)]*\)\s+)?'
    r"(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)")
_PARAMETER = re.compile(
    r"(?P<const>const\s+)?(?:__grid_constant__\s+)?"
    r"(?P<type>[a-zT]\w*(?:\s+(?:long|char))?)\s*(?P<pointer>\*?)"
    r"\s*(?:__restrict__\s+)?(?P<name>\w+)")


@record
class Parameter:
    """One argument of an entry point, from its C declaration."""

    name: str
    c_type: str
    is_pointer: bool
    is_const: bool

    @property
    def is_map(self) -> bool:
        """Whether it takes a `TensorMap`, by value."""
        return self.c_type == _TENSOR_MAP

    @property
    def may_be_null(self) -> bool:
        """Whether None is allowed, which is so for a pointer whose name ends in `_or_null`."""
        return self.is_pointer and self.name.endswith("_or_null")


@record
class EntryPoint:
    """An `extern "C" __global__` function. `max_threads`: the most threads of one of its blocks."""

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
    def read(cls, name: str, *, folder: Path = FOLDER) -> "Source":
        """Returns the file `name`.cu of `folder`, with the headers of kernels/ that it includes.

        Raises ValueError, with the names that exist, if there is no such file.
        """
        if not (folder / f"{name}.cu").is_file():
            names = ", ".join(sorted(path.stem for path in folder.glob("*.cu")))
            raise ValueError(f"a kernel source must be one of {names}; got {name!r}")
        text = (folder / f"{name}.cu").read_text()
        return cls(name=name, text=text, headers=_included(text))

    @cached_property
    def reals(self) -> tuple[torch.dtype, ...]:
        """The dtypes that it computes in, from its line `// real: bf16 fp16`; all without one."""
        named = _REAL.search(self.text)
        return tuple(dtype for dtype, name in REAL_NAMES.items()
                     if named is None or name in named[1].split())

    @cached_property
    def architectures(self) -> tuple[str, bool]:
        """The oldest architecture that it compiles for, and whether it is the only one.

        The line is `// architectures: sm_80 and newer`, or `// architectures: sm_90a` for
        instructions that only one generation of GPUs has. Without it, every architecture will do.
        """
        named = _ARCHITECTURES.search(self.text)
        if named is None:
            return OLDEST, False
        is_only = named[2] == "a"
        return named[1] + "a" * is_only, is_only

    @cached_property
    def instructions(self) -> tuple[str, ...]:
        """What the machine code of every entry point must hold: `// instructions: HMMA LDSM`."""
        named = _INSTRUCTIONS.search(self.text)
        return () if named is None else tuple(named[1].split())

    def runs_on(self, architecture: str) -> bool:
        """Returns whether it compiles for an architecture, such as sm_90."""
        oldest, is_only = self.architectures
        number = lambda name: int(re.sub(r"\D", "", name))
        return architecture == oldest if is_only else number(architecture) >= number(oldest)

    def replace(self, old: str, new: str) -> "Source":
        """Returns this source with one place changed.

        Raises ValueError unless `old` occurs exactly once, in the file or one header.
        """
        texts = {f"{self.name}.cu": self.text, **self.headers}
        if (count := sum(text.count(old) for text in texts.values())) != 1:
            raise ValueError(f"the text to replace must occur once in {', '.join(texts)}; {old!r} "
                             f"occurs {count} times")
        changed = {name: text.replace(old, new) for name, text in texts.items()}
        return Source(name=self.name, text=changed.pop(f"{self.name}.cu"), headers=changed)

    @cached_property
    def entries(self) -> dict[str, EntryPoint]:
        """Every entry point by name. Raises ValueError for a declaration that cannot be called."""
        text = re.sub(r"//[^\n]*", lambda comment: " " * len(comment[0]), self.text)
        constants = {m[1]: int(m[2])
                     for m in re.finditer(r"constexpr\s+int\s+(\w+)\s*=\s*(\d+)\s*;", text)}
        found = {}
        for match in _ENTRY.finditer(text):
            threads = match["threads"] or "1024"
            found[match["name"]] = EntryPoint(
                name=match["name"], line=text.count("\n", 0, match.start()) + 1,
                parameters=tuple(_parameter(part, match["name"])
                                 for part in match["parameters"].split(",")),
                max_threads=int(threads) if threads.isdigit() else constants[threads])
        return found


def _included(text: str) -> dict[str, str]:
    """Returns the headers of kernels/ that a text includes, and those that they include, sorted.

    Others would change the program's key, and with it everything that is compiled, without effect.
    """
    found, new = {}, _INCLUDE.findall(text)
    while new:
        texts = {name: (FOLDER / name).read_text() for name in new if name not in found}
        found |= texts
        new = [name for text in texts.values() for name in _INCLUDE.findall(text)]
    return dict(sorted(found.items()))


def _parameter(text: str, entry: str) -> Parameter:
    match = _PARAMETER.fullmatch(" ".join(text.split()))
    is_pointer = match and match["pointer"]
    known = {*(_TENSOR_DTYPES if is_pointer else {*_CODES, _TENSOR_MAP}), "accum"}
    known |= {"real"} if is_pointer else set()
    if match is None or match["type"] not in known:
        raise ValueError(f"a parameter of {entry} must be a pointer or a number of the types "
                         f"{', '.join(sorted(known))}; got {' '.join(text.split())!r}")
    return Parameter(name=match["name"], c_type=match["type"], is_pointer=bool(match["pointer"]),
                     is_const=bool(match["const"]))


@record
class Program:
    """A source compiled for one dtype: `real` is what the text calls `real`."""

    source: Source
    real: torch.dtype

    def __post_init__(self) -> None:
        if self.real not in REAL_NAMES:
            raise ValueError(f"the kernels compute in {', '.join(map(str, REAL_NAMES))}; got "
                             f"{self.real}. Convert the tensors, or use PyTorch's own functions")
        if self.real not in self.source.reals:
            raise ValueError(f"{self.source.name}.cu computes in "
                             f"{', '.join(map(str, self.source.reals))}; got {self.real}")

    @property
    def real_name(self) -> str:
        """The dtype as the compile flag -DREAL= spells it: "bf16" for bfloat16."""
        return REAL_NAMES[self.real]

    @property
    def accum(self) -> torch.dtype:
        """The dtype of sums: fp32, or fp64 in the double program."""
        return torch.float64 if self.real == torch.float64 else torch.float32

    def c_type(self, parameter: Parameter) -> str:
        """Returns the parameter's C type in this program, where `accum` is float or double."""
        return REAL_NAMES[self.accum] if parameter.c_type == "accum" else parameter.c_type

    def dtype(self, parameter: Parameter) -> torch.dtype:
        """Returns the dtype of the tensor that a pointer parameter takes in this program."""
        return self.real if parameter.c_type == "real" else _TENSOR_DTYPES[self.c_type(parameter)]

    @cached_property
    def packings(self) -> dict[str, "Packing"]:
        """How the arguments of each entry point are laid out in memory, by name."""
        return {name: Packing.of(self, entry) for name, entry in self.source.entries.items()}

    @cached_property
    def key(self) -> str:
        """A digest of the whole program, which names its compiled code."""
        headers = [text for header in sorted(self.source.headers.items()) for text in header]
        return digest(self.source.name, self.source.text, *headers, self.real_name)

    def entry(self, name: str) -> EntryPoint:
        """Returns the entry point of that name. Raises ValueError, with all names, for others."""
        if name not in self.source.entries:
            raise ValueError(f"{self.source.name}.cu has the entry points "
                             f"{', '.join(self.source.entries)}; got {name!r}")
        return self.source.entries[name]


Argument = Tensor | TensorMap | float | int | None
"""What a launch takes for one parameter of an entry point."""


class Arguments:
    """The arguments of one launch, checked and typed: `pointers`, and what they point to."""

    def __init__(
        self, pointers: ctypes.Array, tensors: Sequence[Tensor], device: torch.device
    ) -> None:
        self.pointers, self.tensors, self.device = pointers, tuple(tensors), device


@record
class Packing:
    """How an entry point's arguments are laid out, after one pointer to each, for `pack`."""

    parameters: tuple[Parameter, ...]
    dtypes: tuple[torch.dtype | None, ...]   # of the tensor that each takes; None for a number
    packer: struct.Struct
    offsets: tuple[int, ...]
    pointers: type   # the ctypes array that holds it all, pointers and values together

    @classmethod
    def of(cls, program: "Program", entry: EntryPoint) -> "Packing":
        """Returns the packing of one entry point in this program, with C's alignment."""
        codes = ["Q" if p.is_pointer else f"{N_BYTES}s" if p.is_map
                 else _CODES[program.c_type(p)] for p in entry.parameters]
        # "=", unlike "@", refuses a number that its float would turn into infinity.
        format, offsets = f"={len(codes)}Q", []
        for code in codes:
            format += "x" * (-struct.calcsize(format) % struct.calcsize(code))
            offsets.append(struct.calcsize(format))
            format += code
        return cls(
            parameters=entry.parameters, packer=struct.Struct(format), offsets=tuple(offsets),
            dtypes=tuple(program.dtype(p) if p.is_pointer else None for p in entry.parameters),
            pointers=ctypes.c_void_p * -(-struct.calcsize(format) // 8))


def pack(
    program: Program, entry: str, args: Sequence[Argument], *,
    encode: Callable[[TensorMap], bytes] = TensorMap.readable,
) -> Arguments:
    """Returns the arguments of one launch of `entry`, each as the C type its parameter declares.

    `encode` turns a tensor map into its 128 bytes; the default is for the emulator.
    Raises ValueError for a wrong number of arguments, and for a tensor of another dtype, on another
    device than the rest, with gaps between its elements, or not aligned to 16 bytes. Raises
    TypeError or OverflowError for a scalar that its C type cannot hold.
    """
    packing = program.packings.get(entry) or program.packings[program.entry(entry).name]
    if len(args) != len(packing.parameters):
        names = ", ".join(p.name for p in packing.parameters)
        raise ValueError(f"{entry} takes {len(packing.parameters)} arguments ({names}); got "
                         f"{len(args)}")
    values, tensors = [], []
    for parameter, dtype, arg in zip(packing.parameters, packing.dtypes, args, strict=True):
        if parameter.is_map:
            if not isinstance(arg, TensorMap) or arg.tensor.dtype != program.real:
                _refuse_map(program, entry, parameter, arg)
            values.append(encode(arg))
            tensors.append(arg.tensor)
        elif dtype is None:
            if type(arg) is not int and (type(arg) is not float or parameter.c_type in _INTEGERS):
                _require_number(program, entry, parameter, arg)
            values.append(arg)
        elif arg is None and parameter.may_be_null:
            values.append(0)
        else:
            if (not isinstance(arg, Tensor) or arg.dtype is not dtype or not arg.is_contiguous()
                    or (at := arg.data_ptr()) % 16):
                _refuse_tensor(f"{parameter.name} of {entry}", dtype, arg)
            values.append(at)
            tensors.append(arg)
    device = tensors[0].device if tensors else None
    if device is None or any(tensor.device != device for tensor in tensors):
        found = ", ".join(sorted({str(tensor.device) for tensor in tensors})) or "no tensor"
        raise ValueError(f"all tensors of a launch must be on one device; {entry} got {found}")
    memory = packing.pointers()
    start = ctypes.addressof(memory)
    try:
        packing.packer.pack_into(memory, 0, *[start + offset for offset in packing.offsets],
                                 *values)
    except (struct.error, OverflowError):
        for parameter, arg in zip(packing.parameters, args, strict=True):
            if not parameter.is_pointer and not parameter.is_map:
                _require_range(program, entry, parameter, arg)
        raise
    return Arguments(memory, tensors, device)


def _refuse_tensor(where: str, dtype: torch.dtype, arg: object) -> NoReturn:
    if not isinstance(arg, Tensor):
        raise ValueError(f"{where} must be a tensor; got {type(arg).__name__}")
    if arg.dtype != dtype:
        raise ValueError(f"{where} must be {dtype} in this program; got {arg.dtype}")
    if not arg.is_contiguous():
        raise ValueError(f"{where} must have no gaps in memory; got shape {tuple(arg.shape)} "
                         f"with strides {arg.stride()}. Pass tensor.contiguous()")
    raise ValueError(f"{where} must start at a multiple of 16 bytes, because the kernel reads 16 "
                     f"at a time; it starts {arg.data_ptr() % 16} bytes after one. "
                     "Pass tensor.clone()")


def _refuse_map(
    program: Program, entry: str, parameter: Parameter, arg: object
) -> NoReturn:
    got = f"one of {arg.tensor.dtype}" if isinstance(arg, TensorMap) else type(arg).__name__
    raise ValueError(f"{parameter.name} of {entry} must be a TensorMap of {program.real}; got "
                     f"{got}")


def _require_number(program: Program, entry: str, parameter: Parameter, arg: object) -> None:
    c_type = program.c_type(parameter)
    if isinstance(arg, bool) or not isinstance(arg, int if c_type in _INTEGERS else int | float):
        raise TypeError(f"{parameter.name} of {entry} must be a Python number that fits {c_type}; "
                        f"got {arg!r} ({type(arg).__name__})")


def _require_range(program: Program, entry: str, parameter: Parameter, arg: float | int) -> None:
    c_type, where = program.c_type(parameter), f"{parameter.name} of {entry}"
    if c_type in _INTEGERS:
        least, most = _INTEGERS[c_type]
        if not least <= arg <= most:
            raise OverflowError(f"{where} must fit {c_type}, {least} to {most}; got {arg}")
        return
    try:
        struct.pack("=" + _CODES[c_type], arg)
    except (struct.error, OverflowError) as error:
        raise OverflowError(f"{where} must fit {c_type}; got {arg!r}") from error

"""Launches a kernel's source on the emulator, with tensors of the CPU; a fault is an exception.

A launch has a grid, a block, and the order in which threads and blocks run. A right kernel gives
the same numbers in every order; a kernel with a missing barrier rarely does. In the "checked"
build, every tensor is moved for the launch to the very end of a memory page, and the next page must
not be touched. So an access to the first element past the end ends the launch, with the source
line.

Notebook 30.
"""

import ctypes
import functools
import importlib.util
import mmap
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator import debug_info
from llama_from_scratch.kernels.emulator.build import EXECUTABLES, build
from llama_from_scratch.kernels.machinery.source import (
    Argument,
    Arguments,
    EntryPoint,
    Program,
    pack,
)
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap

ORDERS = ("forward", "reverse", "random")   # of a block's threads, of its warps, of the blocks
MAX_THREADS = 1024
MAX_SHARED_BYTES = 227 * 1024  # of a block on a Hopper GPU
MAX_WORKERS = 64
_LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64)}
_FILL = 0xA5  # of the bytes between a tensor and the next page


class KernelFault(RuntimeError):
    """Raised, with block, thread and line, for what no GPU survives or what is undefined."""


class Emulated:
    """Holds a program compiled for the emulator.

    `path` is its file, and `library` is that file loaded, or None if it is executable.
    """

    def __init__(self, program: Program, *, kind: str, path: Path) -> None:
        self.program, self.kind, self.path = program, kind, path
        self.library = None if kind in EXECUTABLES else _opened(path)
        for name in program.source.entries if self.library else ():
            function = self.library[f"emulate_{name}"]
            function.restype = ctypes.c_char_p
            function.argtypes = [ctypes.c_uint * 3, ctypes.c_uint * 3, ctypes.c_size_t,
                                 ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint]
            setattr(self, f"_{name}", function)

    def launch(
        self, entry: str, args: Sequence[Argument], *,
        grid: int | tuple[int, ...], block: int | tuple[int, ...], shared_bytes: int = 0,
        order: str = "forward", seed: int = 0, n_workers: int = 1,
    ) -> None:
        """Runs a grid of blocks, which change the tensors among `args`.

        seed: for the order "random". n_workers: the number of OS threads that divide the blocks;
        more than one needs the kind "fast". Raises KernelFault for a fault, after which the process
        and the emulator remain usable, and ValueError for what a GPU's driver would refuse.
        """
        declared = self.program.entry(entry)
        arguments = pack(self.program, entry, args)
        if arguments.device.type != "cpu":
            raise ValueError(f"the emulator takes tensors on the CPU; {entry} got tensors on "
                             f"{arguments.device}. Move them with .cpu()")
        shape = _check(declared, grid=grid, block=block, shared_bytes=shared_bytes)
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {order!r}")
        if not 1 <= n_workers <= (MAX_WORKERS if self.kind == "fast" else 1):
            raise ValueError(f"n_workers must be from 1 to {MAX_WORKERS} in the kind 'fast' and 1 "
                             f"in every other; got {n_workers} in {self.kind!r}")
        how = (*shape, shared_bytes, ORDERS.index(order), seed)
        if self.kind in EXECUTABLES:
            _run_executable(self.path, self.program, declared, args, *how)
        elif self.kind == "checked":
            with _Guarded(declared, args) as guarded:
                self._call(entry, pack(self.program, entry, guarded.args), *how, n_workers, guarded)
        else:
            self._call(entry, arguments, *how, n_workers, None)

    def _call(
        self, entry: str, arguments: Arguments, grid, block, shared_bytes, order, seed, n_workers,
        guarded,
    ) -> None:
        if message := getattr(self, f"_{entry}")(
            grid, block, shared_bytes, arguments.pointers, n_workers, order, seed):
            raise KernelFault(f"{entry}, {_explain(message.decode(), self.path, guarded)}")


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeError(f"the system refused to load a compiled kernel into this process: "
                           f"{error}. Set XDG_CACHE_HOME to a folder of your own from "
                           "which programs may run, and start again") from error


def load(program: Program, *, kind: str = "fast") -> Emulated:
    """Returns the program, compiled for the emulator and ready to launch.

    kind: one of `build.KINDS`. Raises what `build.build` raises.
    """
    return _load(_Named(program, kind))


class _Named:
    """A program and a kind as one key, in which the program's digest stands for the program."""

    def __init__(self, program: Program, kind: str) -> None:
        self.program, self.kind = program, kind

    def __hash__(self) -> int:
        return hash((self.program.key, self.kind))

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, _Named)
                and (self.program.key, self.kind) == (other.program.key, other.kind))


@functools.cache
def _load(named: _Named) -> Emulated:
    return Emulated(named.program, kind=named.kind, path=build(named.program, kind=named.kind))


def _check(
    entry: EntryPoint, *, grid, block, shared_bytes: int
) -> tuple[ctypes.Array, ctypes.Array]:
    """Returns grid and block as C arrays. Raises ValueError for what a GPU's driver refuses."""
    triples = []
    for name, size in (("grid", grid), ("block", block)):
        size = size if isinstance(size, tuple) else (size,)
        limits = _LIMITS[name][:len(size)]
        if not 1 <= len(size) <= 3 or not all(
                1 <= n <= most for n, most in zip(size, limits, strict=True)):
            raise ValueError(f"{name} must have 1 to 3 sizes from 1 to {_LIMITS[name]}; got {size}")
        triples.append((ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))))
    n_threads = triples[1][0] * triples[1][1] * triples[1][2]
    if n_threads > min(entry.max_threads, MAX_THREADS):
        raise ValueError(f"a block of {entry.name} may have at most "
                         f"{min(entry.max_threads, MAX_THREADS)} threads (its __launch_bounds__, "
                         f"or the machine's limit); got {n_threads}")
    if not 0 <= shared_bytes <= MAX_SHARED_BYTES:
        raise ValueError(f"shared_bytes must be from 0 to {MAX_SHARED_BYTES}; got {shared_bytes}")
    return triples[0], triples[1]


# --- tensors under guard --------------------------------------------------------------------------


@record
class _Span:
    """Consecutive bytes among a launch's arguments: one tensor, or several that overlap."""

    begin: int
    n_bytes: int
    names: str
    is_const: bool

    def holds(self, tensor: Tensor) -> bool:
        begin, end = tensor.data_ptr(), tensor.data_ptr() + extent(tensor)
        return self.begin <= begin <= end <= self.begin + self.n_bytes


def extent(tensor: Tensor) -> int:
    """Returns the bytes from a tensor's first element to the end of its last, with its gaps."""
    if not tensor.numel():
        return 0
    steps = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    return (sum(steps) + 1) * tensor.element_size()


def _spans(entry: EntryPoint, args: Sequence[Argument]) -> list[_Span]:
    spans: list[_Span] = []
    given = [(p, arg.tensor if isinstance(arg, TensorMap) else arg)
             for p, arg in zip(entry.parameters, args, strict=True)
             if isinstance(arg, Tensor | TensorMap)]
    for parameter, tensor in sorted(given, key=lambda pair: pair[1].data_ptr()):
        begin, names, is_const = tensor.data_ptr(), parameter.name, parameter.is_const
        end, is_const = begin + extent(tensor), is_const or parameter.is_map
        if spans and (begin < (last := spans[-1]).begin + last.n_bytes or begin == last.begin):
            spans.pop()
            begin, end = last.begin, max(end, last.begin + last.n_bytes)
            names, is_const = f"{last.names} = {names}", is_const and last.is_const
        spans.append(_Span(begin=begin, n_bytes=end - begin, names=names, is_const=is_const))
    return spans


@record
class _Region:
    """A copy of a span, between two pages that must not be touched."""

    span: _Span
    memory: mmap.mmap
    base: int
    begin: int

    @classmethod
    def of(cls, span: _Span) -> "_Region":
        page = mmap.PAGESIZE
        room = -(-max(span.n_bytes, 1) // page) * page
        memory = mmap.mmap(-1, room + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        # A tensor starts at a multiple of 16 bytes.
        begin = base + page + room - -(-span.n_bytes // 16) * 16
        ctypes.memset(base + page, _FILL, room)
        ctypes.memmove(begin, span.begin, span.n_bytes)
        for guard in (base, base + page + room):
            if _libc().mprotect(guard, page, 0):
                raise OSError(ctypes.get_errno(), "the operating system refused to guard a tensor")
        return cls(span=span, memory=memory, base=base, begin=begin)

    def stand_in(self, tensor: Tensor) -> Tensor:
        data = torch.frombuffer(self.memory, dtype=torch.uint8)
        first = self.begin - self.base + tensor.data_ptr() - self.span.begin
        data = data[first:first + extent(tensor)].view(tensor.dtype)
        return data.as_strided(tensor.shape, tensor.stride())

    def wrong_writes(self) -> list[str]:
        """Returns where bytes around the span were changed that are not on a guarded page."""
        page, first = mmap.PAGESIZE, self.begin - self.base
        sides = {"before the start": self.memory[page:first],
                 "after the end": self.memory[first + self.span.n_bytes:len(self.memory) - page]}
        return [f"{side} of {self.span.names}, which has {self.span.n_bytes} bytes"
                for side, data in sides.items() if data.count(_FILL) < len(data)]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def with_tensor(arg: Argument, change: Callable[[Tensor], Tensor]) -> Argument:
    """Returns an argument with `change(tensor)` for its tensor, if it has one."""
    if isinstance(arg, TensorMap):
        return TensorMap(tensor=change(arg.tensor), box=arg.box)
    return change(arg) if isinstance(arg, Tensor) else arg


class _Guarded:
    """The arguments of a launch, with every tensor moved between two guards until its end."""

    def __init__(self, entry: EntryPoint, args: Sequence[Argument]) -> None:
        self._entry = entry
        self._regions = [_Region.of(span) for span in _spans(entry, args)]
        self.args = [with_tensor(arg, self._moved) for arg in args]

    def _moved(self, tensor: Tensor) -> Tensor:
        region = next(region for region in self._regions if region.span.holds(tensor))
        return region.stand_in(tensor)

    def __enter__(self) -> "_Guarded":
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        if error:
            return
        for region in self._regions:
            if not region.span.is_const:
                ctypes.memmove(region.span.begin, region.begin, region.span.n_bytes)
        if wrong := [text for region in self._regions for text in region.wrong_writes()]:
            raise KernelFault(f"{self._entry.name} writes {' and '.join(wrong)}")

    def where(self, address: int) -> str:
        """Returns an address in words: which byte of which tensor it would be."""
        for region in self._regions:
            if region.base <= address < region.base + len(region.memory):
                return (f"byte {address - region.begin} of {region.span.names}, "
                        f"which has {region.span.n_bytes} bytes")
        guess = " (a null pointer?)" if address < mmap.PAGESIZE else ""
        return f"address {address:#x}, which is in no tensor{guess}"


def _explain(message: str, path: Path, guarded: _Guarded | None) -> str:
    """Returns the emulator's message with its addresses in words.

    Addresses of code become source lines, and other addresses become bytes of tensors.
    """
    def data(match: re.Match) -> str:
        address = int(match[1], 16)
        return guarded.where(address) if guarded else f"address {address:#x}"

    message = re.sub(r"<code (?:0x)?([0-9a-f]+)>",
                     lambda match: _source_line(path, int(match[1], 16)), message)
    return re.sub(r"<address (?:0x)?([0-9a-f]+)>", data, message)


def _source_line(path: Path, offset: int) -> str:
    """Returns file:line of an instruction, or "an unknown line" without pyelftools or a source."""
    if not offset or not importlib.util.find_spec("elftools"):
        return "an unknown line"
    lines = debug_info.read_debug_info(path).lines(offset)
    found = [f"{file}:{line}" for file, line in lines if line]
    return found[0] if found else "an unknown line"


# --- executables: one process per launch, under a sanitizer ---------------------------------------


def _run_executable(
    path: Path, program: Program, entry: EntryPoint, args: Sequence[Argument],
    grid, block, shared_bytes: int, order: int, seed: int,
) -> None:
    if any(parameter.is_map for parameter in entry.parameters):
        raise ValueError(f"the kinds {', '.join(EXECUTABLES)} cannot pass tensor maps; got "
                         f"{entry.name}. Use the kind 'checked'")
    spans = _spans(entry, args)
    parts = [struct.pack("=128s6IQiIII", entry.name.encode(), *grid, *block, shared_bytes, order,
                         seed, len(args), len(spans))]
    values = bytes(pack(program, entry.name, args).pointers) + bytes(8)
    for arg, offset in zip(args, program.packings[entry.name].offsets, strict=True):
        if isinstance(arg, Tensor):
            number = next(i for i, span in enumerate(spans) if span.holds(arg))
            parts.append(struct.pack("=qq8x", number, arg.data_ptr() - spans[number].begin))
        else:
            parts.append(struct.pack("=qq8s", -2 if arg is None else -1, 0,
                                     values[offset:offset + 8]))
    parts.append(struct.pack(f"={len(spans)}Q", *(span.n_bytes for span in spans)))
    head = b"".join(parts)
    # The sanitizers of older compilers fail under the most random address layouts.
    fixed = ["setarch", "-R"] if sys.platform == "linux" and shutil.which("setarch") else []
    with tempfile.TemporaryDirectory() as folder:
        launch, fault = Path(folder, "launch"), Path(folder, "fault")
        given = [ctypes.string_at(span.begin, span.n_bytes) for span in spans]
        launch.write_bytes(b"".join([head, *given]))
        done = subprocess.run([*fixed, str(path), str(launch), str(fault)], capture_output=True,
                              text=True)
        if fault.exists():
            raise KernelFault(f"{entry.name}, {fault.read_text()}")
        if done.returncode:
            raise KernelFault(f"{entry.name}, the sanitizer's report:\n{done.stderr.strip()}")
        data, at = launch.read_bytes(), len(head)
        for span in spans:
            ctypes.memmove(span.begin, data[at:at + span.n_bytes], span.n_bytes)
            at += span.n_bytes

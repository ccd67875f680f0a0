"""Compiles a kernel's source to machine code for one GPU architecture, with PyTorch's compiler.

NVRTC is the device half of nvcc, as a library. It takes a text and returns a cubin, the GPU's own
machine code, in about a tenth of a second. It needs no host compiler, no CUDA toolkit and no GPU. A
cubin loads into any driver of the same CUDA major version. PTX, the intermediate text, would not
load into a driver older than the compiler.

Notebook 30. Source: NVIDIA, "NVRTC" (CUDA toolkit documentation), section "Basic Usage".
"""

import ctypes
import functools
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery.cache import cached_file
from llama_from_scratch.kernels.machinery.source import OLDEST, Program, Source

# No --use_fast_math: it flushes denormals and approximates division and square root, in whole files
# and without a mark in the source.
FLAGS = ("--std=c++17", "--generate-line-info", "--ptxas-options=-v")
MAJORS = (13, 12)  # of CUDA, newest first


class CompileError(RuntimeError):
    """Raised for a kernel source that a compiler refused, with its log, which has file and line."""


@record
class Compiled:
    """The machine code of one compilation, and its log (warnings, registers, spills)."""

    cubin: bytes
    log: str


class Compiler:
    """One NVRTC library: its `path`, CUDA `version`, and GPU `architectures`, such as 75."""

    def __init__(self, path: str) -> None:
        self.path, self._library = path, ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)
        # NVRTC opens its built-in functions by bare name. They are loaded here by path, so that it
        # finds them in any folder.
        builtins = Path(path).with_name(f"libnvrtc-builtins.so.{major.value}.{minor.value}")
        if builtins.is_file():
            ctypes.CDLL(str(builtins))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        architectures = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", architectures)
        self.architectures = tuple(sorted(architectures))

    def architecture(self, capability: tuple[int, int], source: Source | None = None) -> str:
        """Returns the newest architecture for a GPU of this capability: `sm_90` for (9, 0).

        Code runs on GPUs of the same major capability and the same or a later minor one. A source
        for one architecture gets that one, such as `sm_90a`. Raises ValueError if no architecture
        fits, or if the GPU is too old for the source or of another generation.
        """
        major, minor = capability
        oldest, is_only = source.architectures if source else (OLDEST, False)
        needed, own = int(re.sub(r"\D", "", oldest)), 10 * major + minor
        if oldest != OLDEST and (own < needed or (is_only and own != needed)):
            which = "only" if is_only else "and newer"
            raise ValueError(f"{source.name}.cu is for {oldest} {which}; the GPU has compute "
                             f"capability {major}.{minor}")
        if is_only:
            return oldest
        if fitting := [each for each in self.architectures
                       if each // 10 == major and each % 10 <= minor]:
            return f"sm_{fitting[-1]}"
        known = ", ".join(f"{each // 10}.{each % 10}" for each in self.architectures)
        cuda = ".".join(map(str, self.version))
        needed = "an older" if 10 * major + minor < self.architectures[0] else "a newer"
        raise ValueError(f"the GPU must have a compute capability that CUDA {cuda} compiles for "
                         f"({known}); it has {major}.{minor}. Install a PyTorch built for "
                         f"{needed} CUDA, or use the plain PyTorch modules")

    def compile(self, program: Program, architecture: str) -> Compiled:
        """Returns the program compiled for `sm_XX`.

        Raises CompileError, with the log, if the program has an error.
        """
        source, handle = program.source, ctypes.c_void_p()
        file = f"{source.name}.cu"
        self._call("nvrtcCreateProgram", ctypes.byref(handle), source.text.encode(), file.encode(),
                   len(source.headers), _strings(source.headers.values()), _strings(source.headers))
        try:
            flags = flags_of(program, architecture)
            status = self._library.nvrtcCompileProgram(handle, len(flags), _strings(flags))
            log = self._bytes(handle, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
            if status:
                cuda = ".".join(map(str, self.version))
                raise CompileError(f"{file} does not compile for {architecture} with real = "
                                   f"{program.real_name} (NVRTC {cuda}, "
                                   f"{self._meaning(status)}):\n{log}")
            return Compiled(cubin=self._bytes(handle, "nvrtcGetCUBIN"), log=log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(handle))

    def cubin(self, program: Program, architecture: str, *, folder: Path | None = None) -> bytes:
        """Returns the program's machine code for `sm_XX`, from the disk cache if it is there."""
        key = digest("cubin", program.key, *flags_of(program, architecture), repr(self.version),
                     repr(self._n_bytes))
        make = lambda path: path.write_bytes(self.compile(program, architecture).cubin)
        return cached_file(key, suffix=".cubin", folder=folder, make=make).read_bytes()

    @functools.cached_property
    def _n_bytes(self) -> int:
        """The library's size, because nvrtcVersion is 13.0 for both 13.0.48 and 13.0.88."""
        return Path(self.path).stat().st_size if Path(self.path).is_file() else 0

    def _bytes(self, handle: ctypes.c_void_p, getter: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{getter}Size", handle, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._call(getter, handle, data)
        return data.raw

    def _call(self, function: str, *args: object) -> None:
        if status := getattr(self._library, function)(*args):
            raise RuntimeError(f"{function} of {self.path} failed: {self._meaning(status)}")

    def _meaning(self, status: int) -> str:
        return self._library.nvrtcGetErrorString(status).decode()


def flags_of(program: Program, architecture: str) -> tuple[str, ...]:
    """Returns the compiler's options, which are the same for NVRTC and nvcc."""
    return (*FLAGS, f"--gpu-architecture={architecture}", f"-DREAL={program.real_name}")


@functools.cache
def compiler() -> Compiler:
    """Returns the NVRTC of the CUDA major version that PyTorch was built for.

    If PyTorch was built without CUDA, any version will do. Raises RuntimeError, with the places
    searched and the way to install one, if there is none.
    """
    majors = MAJORS if torch.version.cuda is None else (int(torch.version.cuda.split(".")[0]),)
    paths = [path for major in majors for path in candidates(major)]
    for path in paths:
        if path.is_absolute() and not path.is_file():
            continue
        try:
            return Compiler(str(path))
        except OSError:  # not on the loader's path, or for another kind of machine
            continue
    searched = ", ".join(dict.fromkeys(str(path.parent) for path in paths if path.is_absolute()))
    raise RuntimeError("no NVRTC, the CUDA runtime compiler, of CUDA "
                       f"{' or '.join(map(str, majors))} was found in {searched}, nor by the "
                       f"loader. `{sys.executable} -m pip install "
                       f"'nvidia-cuda-nvrtc=={majors[0]}.*'` gets it (90 MB, Linux; on Windows, "
                       "work in WSL)")


def candidates(major: int) -> Iterator[Path]:
    """Yields where libnvrtc may be: CUDA's wheels, a toolkit, last a bare name for the loader."""
    name = f"libnvrtc.so.{major}"
    wheels = importlib.util.find_spec("nvidia")
    for root in wheels.submodule_search_locations if wheels else ():
        yield Path(root) / f"cu{major}" / "lib" / name
        yield Path(root) / "cuda_nvrtc" / "lib" / name
    yield Path(torch.__file__).parent / "lib" / name
    nvcc = shutil.which("nvcc")
    toolkits = [Path(nvcc).resolve().parents[1]] if nvcc else []
    for root in [*toolkits, Path("/usr/local/cuda"),
                 *sorted(Path("/usr/local").glob(f"cuda-{major}*")), Path(sys.prefix)]:
        yield root / "lib64" / name
        yield root / "lib" / name
    yield Path(name)


def _strings(texts: object) -> ctypes.Array:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)

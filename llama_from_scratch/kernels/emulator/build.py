"""Compiles a kernel's source to a program for this CPU, with the C++ compiler that it finds.

The `.cu` file is included, unchanged, after the header that emulates CUDA (`cuda_on_cpu.h`). For
each entry point, an exported function is added that takes a grid, a block and a list of pointers.
How it is compiled decides what it can find: see KINDS.

Notebook 30.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery.cache import cached_file
from llama_from_scratch.kernels.machinery.nvrtc import CompileError
from llama_from_scratch.kernels.machinery.source import Program

FOLDER = Path(__file__).parent

# A GPU's compiler fuses a * b + c into one rounding wherever it can (nvcc's default, -fmad=true),
# and so does ours with -ffp-contract=fast. A kernel's rounding errors are then the same on both,
# except for the order in which the compilers pair factors. The rest of -ffast-math is left out,
# because a reordered sum would hide the effect of the kernel's own order.
FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-w",
         "-DCUDA_ON_CPU", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
         "-fno-strict-aliasing", "-U_FORTIFY_SOURCE")

KINDS = {
    # On several OS threads.
    "fast": ("-O2", "-g1"),
    # On one, with poisoned shared memory and guarded tensors. Compiling takes longer than running,
    # and -Og compiles in 0.55 of the time of -O1. Neither fuses products with g++.
    "checked": ("-Og", "-g1", "-DEMU_CHECKED"),
    # Compiled with that flag but linked without it, because trace.h has the hooks. The debug info
    # is as small as possible, because Python reads it.
    "traced": ("-O1", "-gdwarf-4", "-g1", "-gno-column-info", "-DEMU_TRACE", "-fsanitize=thread"),
    # Executables, with the compiler's own finders of memory errors and of races.
    "address": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
}
EXECUTABLES = ("address", "thread")
# clang leaves out the read of `a += b`, because a race detector needs only the write; a count of
# traffic needs both. It also skips accesses of 32 bytes, which it makes itself when it vectorizes.
CLANG_TRACED = ("-mllvm", "-tsan-instrument-read-before-write", "-fno-vectorize",
                "-fno-slp-vectorize")
# Compilers differ in whether they put a guard of trace.h before or after its array. This one comes
# after the last array.
GUARD = ('char emu_guard_last[128] __attribute__((section("emu_shared"), aligned(128), '
         'visibility("hidden"), used)) = {1};\n')
# The emulator's instructions for each of these headers of kernels.
EMULATED = {"tensor_cores.cuh": "tensor_cores.h", "hopper.cuh": "hopper.h"}
LIBRARIES = ("-lpthread", "-ldl", "-lm")
COMPILERS = ("g++", "clang++", "c++")
_NUMBERED = re.compile(r"(?:clang|g)\+\+-(\d+)")
PROBE = """#include <pthread.h>
#include <ucontext.h>
template <class T> concept Small = sizeof(T) < 9;
static int as_int(Small auto x) { return x; }
extern "C" __attribute__((visibility("default"))) int probe_it() {
    return as_int(sizeof(ucontext_t)); }
"""


@record
class CxxCompiler:
    """A C++ compiler: the words that start it and its linker, its flags here, its version."""

    command: tuple[str, ...]
    linker: tuple[str, ...]
    flags: tuple[str, ...]
    version: str


@functools.cache
def find_compiler() -> CxxCompiler:
    """Returns the first g++ or clang++ of this machine that is new enough, or the one in `ziglang`.

    Raises RuntimeError, with what was found and what to install, if there is none.
    """
    if sys.platform == "win32":
        raise RuntimeError("the CUDA emulator swaps stacks in a way that Windows does not allow. "
                           "Run the course in WSL: in a terminal, `wsl --install`, then follow the "
                           "installation for Linux")
    refused = []
    for command, linker, flags in _candidates():
        version, problem = _ask(command, "--version")
        if not problem:  # a Mac has a g++ that only asks to install the real one
            compiler = CxxCompiler(command=command, linker=linker, flags=flags, version=version)
            problem = _problem_of(compiler)
            if not problem:
                return compiler
        refused.append(f"{' '.join(command)} ({problem})")
    found = f" Found, but not usable: {'; '.join(refused)}." if refused else ""
    raise RuntimeError("the CUDA emulator compiles kernels for the CPU and needs a C++ compiler "
                       f"for C++20: g++ 11 or newer, clang++ 12 or newer.{found} Install one, or "
                       "a Python package that contains one: "
                       f"{sys.executable} -m pip install ziglang")


def _candidates() -> Iterator[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """Yields compilers that may be here, the likeliest first: command, linker, and flags."""
    # The processor's features are given by name, so that machines that share a cache do not share
    # programs for different processors.
    has_fma = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    for path in _programs():
        yield (path,), (path,), ("-march=x86-64-v3",) if has_fma else ()
    if importlib.util.find_spec("ziglang"):
        # Linked as C, because zig would otherwise compile a C++ library first, which nothing here
        # calls. Without the sanitizer that zig adds by default.
        zig = (sys.executable, "-m", "ziglang")
        machine = "-mcpu=x86_64_v3" if has_fma else "-mcpu=baseline"
        yield (*zig, "c++"), (*zig, "cc"), (machine, "-fno-sanitize=undefined")


def _programs() -> list[str]:
    """Returns every C++ compiler in the folders of PATH, plain names before names with a version.

    The first one may be too old, and a newer one may follow with the same name or as `g++-12`.
    """
    by_place = {os.path.realpath(folder): folder for folder in reversed(os.get_exec_path())}
    folders = [folder for folder in os.get_exec_path() if folder in by_place.values()]
    plain = [shutil.which(name, path=folder) for name in COMPILERS for folder in folders]
    return [*filter(None, plain), *(path for folder in folders for path in _numbered(folder))]


def _numbered(folder: str) -> list[str]:
    """Returns the compilers of a folder with a version in their name, newest first."""
    try:
        paths = sorted(Path(folder).iterdir(), key=_number, reverse=True)
    except OSError:  # it does not exist, or cannot be read
        return []
    return [str(path) for path in paths if _number(path) and os.access(path, os.X_OK)]


def _number(path: Path) -> int:
    return int(match[1]) if (match := _NUMBERED.fullmatch(path.name)) else 0


def _ask(command: Sequence[str], *arguments: str, folder: Path | None = None) -> tuple[str, str]:
    """Returns what a program prints and why it failed; the reason is empty if it did not fail."""
    try:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=folder,
                              errors="replace")
    except OSError as error:
        return "", str(error)
    if done.returncode == 0:
        return done.stdout, ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line] or lines
    return done.stdout, errors[0].strip() if errors else f"it ended with status {done.returncode}"


def _problem_of(compiler: CxxCompiler) -> str:
    """Returns why a compiler cannot build the smallest library as kernels are built, or "".

    A success is kept in the disk cache, so that each compiler is tried once. A compiler that is too
    old fails, and so does a clang++ without the libraries of a g++.
    """
    flags = (*FLAGS, *compiler.flags)

    def make(path: Path) -> None:
        (path.parent / "probe.cpp").write_text(PROBE)
        for command in ([*compiler.command, *flags, "-c", "probe.cpp", "-o", "probe.o"],
                        [*compiler.linker, "-shared", "probe.o", "-o", str(path), *LIBRARIES]):
            _, problem = _ask(command, folder=path.parent)
            if problem:
                raise _Useless(f"{compiler.version.partition(chr(10))[0]}: {problem}")

    key = digest("probe", PROBE, *compiler.command, *flags, *LIBRARIES, compiler.version)
    try:
        cached_file(key, suffix=".so", make=make, is_program=True)
    except _Useless as problem:
        return str(problem)
    return ""


class _Useless(Exception):
    """Raised with a compiler's error message when it was tried."""


def wrapper(program: Program, *, is_executable: bool) -> str:
    """Returns the text to compile: emulator, kernel source, a function per entry point."""
    entries = program.source.entries.values()
    # In an unnamed namespace nothing is shared with other files. Static variables of inline
    # functions would be shared.
    machine = ["cuda_on_cpu.h", *(emulated for header, emulated in EMULATED.items()
                                  if f'#include "{header}"' in program.source.text)]
    lines = [*(f'#include "{name}"' for name in machine), "namespace {",
             f'#include "{program.source.name}.cu"', "}"]
    for entry in entries:
        arguments = ", ".join(
            f"emu::unaligned<{p.c_type}>(args[{i}])" if p.is_map
            else f"*({p.c_type}{'*' * p.is_pointer}*)args[{i}]"
            for i, p in enumerate(entry.parameters))
        name, visible = entry.name, '__attribute__((visibility("default")))'
        lines += [f"EMU_NO_TRACE static void call_{name}(void** args) {{ {name}({arguments}); }}",
                  f'extern "C" {visible} const char* emulate_{name}(',
                  "    const unsigned grid[3], const unsigned block[3], size_t shared_bytes,",
                  "    void** args, int n_workers, int order, unsigned seed) {",
                  f"    return emu::launch(call_{name}, args, grid, block, shared_bytes,",
                  "        n_workers, order, seed);",
                  "}"]
    if is_executable:
        table = ", ".join(f'{{"{entry.name}", emulate_{entry.name}}}' for entry in entries)
        lines += [f"#define EMU_ENTRIES {table}", '#include "standalone.h"']
    return "\n".join(lines) + "\n"


def build(program: Program, *, kind: str, folder: Path | None = None) -> Path:
    """Returns the program as a shared library, or for some kinds an executable, through the cache.

    Raises CompileError for a source with an error, with the compiler's log and the lines of the
    `.cu` file. Raises RuntimeError if there is no compiler, and ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    compiler = find_compiler()
    headers = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.h"))}
    text = wrapper(program, is_executable=kind in EXECUTABLES)
    flags = (*FLAGS, *compiler.flags, *KINDS[kind], f"-DREAL={program.real_name}")
    flags += CLANG_TRACED if kind == "traced" and "clang" in compiler.version else ()
    key = digest(program.key, text, GUARD, *headers, *headers.values(), *flags, compiler.version)

    def make(path: Path) -> None:
        scratch = path.parent
        texts = {f"{program.source.name}.cu": program.source.text, **program.source.headers,
                 **headers, "wrapper.cpp": text}
        for name, content in texts.items():
            (scratch / name).write_text(content)
        # Paths of source files are cut to the name, so that messages are the same wherever the
        # cache is.
        compile_it = [*compiler.command, *flags, f"-ffile-prefix-map={scratch}=.", "-c",
                      "wrapper.cpp", "-o", "wrapper.o"]
        sanitizers = [flag for flag in KINDS[kind] if flag.startswith("-fsanitize")]
        how = sanitizers if kind in EXECUTABLES else ["-shared"]
        link_it = [*compiler.linker, *how, "wrapper.o", "-o", str(path),
                   *LIBRARIES]
        commands = [compile_it, link_it]
        if kind == "traced":
            (scratch / "guard.cpp").write_text(GUARD)
            commands.insert(1, [*compiler.command, *compiler.flags, "-O1", "-fPIC", "-c",
                                "guard.cpp", "-o", "guard.o"])
            link_it.insert(link_it.index("wrapper.o") + 1, "guard.o")
        for command in commands:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                _explain_failure(program, done)

    return cached_file(key, suffix="" if kind in EXECUTABLES else ".so", make=make, folder=folder,
                       is_program=True)


def _explain_failure(program: Program, done: subprocess.CompletedProcess) -> NoReturn:
    """Raises the error for a compilation that failed because of the source or the machine."""
    words = done.stderr.strip()
    if done.returncode < 0 or "signal terminated program" in words or "Killed" in words:
        raise RuntimeError(f"the compiler was killed while it compiled {program.source.name}.cu, "
                           "which happens when memory runs out. Close other programs and run this "
                           f"again; nothing was left behind. {words}")
    if "No space left on device" in words:
        raise RuntimeError("the disk was full while a kernel was compiled. Free some space in the "
                           f"temporary folder, or set TMPDIR to another one: {words}")
    raise CompileError(f"{program.source.name}.cu does not compile for {program.real_name}:\n"
                       f"{words}")

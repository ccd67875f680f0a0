"""A kernel's source made into a program for this CPU, by whatever C++ compiler there is.

The `.cu` file is included, unchanged, behind the header that plays CUDA (`cuda_on_cpu.h`), and one
exported function per entry point is added that takes a grid, a block and a list of pointers. How it
is compiled decides what it can find: see KINDS.

Notebook 30.
"""

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery.cache import cached_file
from llama_from_scratch.kernels.machinery.nvrtc import CompileError
from llama_from_scratch.kernels.machinery.source import Program

FOLDER = Path(__file__).parent

# A GPU's compiler fuses a * b + c into one rounding wherever it can (nvcc's default, -fmad=true),
# and with -ffp-contract=fast so does ours. A kernel's rounding errors are then the same here and
# there, except for the order in which the compilers pair factors. Nothing else of -ffast-math is
# wanted: a reordered sum would hide what the kernel's own order does.
FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-w",
         "-DCUDA_ON_CPU", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
         "-fno-strict-aliasing", "-U_FORTIFY_SOURCE")

KINDS = {
    # On several OS threads.
    "fast": ("-O2", "-g1"),
    # On one, with poisoned shared memory and guarded tensors.
    "checked": ("-O1", "-g1", "-DEMU_CHECKED"),
    # Compiled with that flag but linked without it, as trace.h has the hooks. With as little about
    # lines as possible, because Python reads it.
    "traced": ("-O1", "-gdwarf-4", "-g1", "-gno-column-info", "-DEMU_TRACE", "-fsanitize=thread"),
    # Executables, with the compiler's own finders of memory errors and of races.
    "address": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
}
EXECUTABLES = ("address", "thread")
# clang leaves out the read of `a += b`, because a finder of races needs only the write; a count of
# traffic needs both. It also skips accesses of 32 bytes, which it makes itself when it vectorizes.
CLANG_TRACED = ("-mllvm", "-tsan-instrument-read-before-write", "-fno-vectorize",
                "-fno-slp-vectorize")
# Compilers differ in whether they put a guard of trace.h before or after its array: this one comes
# after the last of all.
GUARD = ('char emu_guard_last[128] __attribute__((section("emu_shared"), aligned(128), '
         'visibility("hidden"), used)) = {1};\n')


@record
class CxxCompiler:
    """A C++ compiler: the words that start it and its linker, its flags here, its version."""

    command: tuple[str, ...]
    linker: tuple[str, ...]
    flags: tuple[str, ...]
    version: str


@functools.cache
def find_compiler() -> CxxCompiler:
    """g++ or clang++ of this machine, or the one in the wheel `ziglang`.

    Raises RuntimeError, with what to install, if there is none.
    """
    if sys.platform == "win32":
        raise RuntimeError("the CUDA emulator swaps stacks in a way that Windows does not allow. "
                           "Run the course in WSL: in a terminal, `wsl --install`, then follow the "
                           "installation for Linux")
    # What this processor can do beyond the oldest of its family, by name: a cache shared by
    # machines then keeps them apart.
    has_fma = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    candidates = [((path,), (path,), ("-march=x86-64-v3",) if has_fma else ())
                  for name in ("g++", "clang++", "c++") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang"):
        # Linked as C, or zig would first compile a C++ library that nothing here calls; and without
        # the sanitizer that zig adds by default.
        zig = (sys.executable, "-m", "ziglang")
        machine = "-mcpu=x86_64_v3" if has_fma else "-mcpu=baseline"
        candidates.append(((*zig, "c++"), (*zig, "cc"), (machine, "-fno-sanitize=undefined")))
    for command, linker, flags in candidates:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        if done.returncode == 0:   # a Mac has a g++ that only asks to install the real one
            return CxxCompiler(command=command, linker=linker, flags=flags, version=done.stdout)
    raise RuntimeError("the CUDA emulator compiles kernels for the CPU and needs a C++ compiler: "
                       f"g++, clang++, or the one in a Python package: {sys.executable} -m pip "
                       "install ziglang")


def wrapper(program: Program, *, is_executable: bool) -> str:
    """The text that is compiled: emulator, kernel source, and a way in for each entry point."""
    entries = program.source.entries.values()
    # In an unnamed namespace nothing is shared with other files, as `static` things of inline
    # functions would be.
    lines = ['#include "cuda_on_cpu.h"', "namespace {", f'#include "{program.source.name}.cu"', "}"]
    for entry in entries:
        arguments = ", ".join(f"*({p.c_type}{'*' * p.is_pointer}*)args[{i}]"
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
    """The program as a shared library or, for some kinds, an executable, through the disk cache.

    Raises CompileError, with the compiler's log and the lines of the `.cu` file, for a source with
    an error in it; RuntimeError if there is no compiler; ValueError for an unknown kind.
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
        # Names of source files are cut to the last part, so that messages are the same wherever the
        # cache is.
        compile_it = [*compiler.command, *flags, f"-ffile-prefix-map={scratch}=.", "-c",
                      "wrapper.cpp", "-o", "wrapper.o"]
        sanitizers = [flag for flag in KINDS[kind] if flag.startswith("-fsanitize")]
        how = sanitizers if kind in EXECUTABLES else ["-shared"]
        link_it = [*compiler.linker, *how, "wrapper.o", "-o", str(path),
                   "-lpthread", "-ldl", "-lm"]
        commands = [compile_it, link_it]
        if kind == "traced":
            (scratch / "guard.cpp").write_text(GUARD)
            commands.insert(1, [*compiler.command, *compiler.flags, "-O1", "-fPIC", "-c",
                                "guard.cpp", "-o", "guard.o"])
            link_it.insert(link_it.index("wrapper.o") + 1, "guard.o")
        for command in commands:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                raise CompileError(f"{program.source.name}.cu does not compile for "
                                   f"{program.real_name}:\n{done.stderr.strip()}")

    return cached_file(key, suffix="" if kind in EXECUTABLES else ".so", make=make, folder=folder)

"""Reads from machine code what each kernel takes of a GPU: registers, shared memory, accesses.

A processor has 65536 registers. A block of 256 threads with 64 registers each leaves room for three
more such blocks; with 255 registers each, for none. If registers are too few, values spill to
memory. If the compiler splits a vector, an access moves 4 bytes instead of 16. None of this changes
a result, but all of it changes the time, and a compiler shows it without a GPU.

`python -m llama_from_scratch.kernels.machinery.resources` prints the table, `--update` writes
budget.json, and `--check` compares every kernel with it, on every architecture, in every dtype and
with both compilers. The tests do so for fewer of these.

Notebook 30. Source: NVIDIA, "CUDA C++ Best Practices Guide", section "Execution Configuration
Optimizations".
"""

import argparse
import functools
import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from llama_from_scratch.config import record
from llama_from_scratch.files import digest, replacing_file
from llama_from_scratch.kernels.machinery import nvrtc
from llama_from_scratch.kernels.machinery.cache import cached_file
from llama_from_scratch.kernels.machinery.nvrtc import Compiled, CompileError, flags_of
from llama_from_scratch.kernels.machinery.source import FOLDER, REAL_NAMES, Program, Source

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
BUDGET = Path(__file__).with_name("budget.json")
# The CUDA version that the budget was written with. Other compilers use other numbers of registers.
BUDGET_CUDA = "13.0"

# Double programs only check gradients by finite differences; their speed does not matter, so they
# have no budget.
BUDGETED = (torch.float32, torch.bfloat16, torch.float16)
# The only GPU whose accesses are measured, because the assembler never splits a vector.
SASS_ARCHITECTURES = ("sm_90", "sm_90a")   # the second for sources of Hopper alone

# The bytes that an entry point may spill, by architecture; nothing else may spill. The registers of
# the first two are limited so that three blocks share a processor, and the third needs all 255. On
# sm_90, none of them spills.
MAY_SPILL = {
    ("rms_norm_backward_by2", "sm_100"): 96, ("rms_norm_backward_by2", "sm_120"): 96,
    ("attention_backward_keys", "sm_86"): 100, ("attention_backward_keys", "sm_89"): 100,
    ("attention_mma_backward_128", "sm_100"): 24,
}

_PROPERTIES = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?")
# LD and ST without G are accesses that the compiler cannot prove to be global.
_ACCESS = re.compile(r"\b(LD|ST)G?((?:\.\w+)+)")
_OPERATION = re.compile(
    r"^ +/\*[0-9a-f]{4,}\*/ +(?:@!?U?PT?\d* +)?([A-Z][A-Z0-9]*)", re.MULTILINE)
# The last is how ptxas says that it waits after every wgmma, or ignores setmaxnreg.
_WARNING = re.compile(r"warning|performance loss|\(C75\d\d\)", re.IGNORECASE)


@record
class EntryResources:
    """What one entry point takes: registers and bytes of a thread, shared bytes of a block.

    load_bits, store_bits: the width of the widest access to global memory. n_local: the number of
    accesses to a thread's local memory, which is as slow as global memory. operations: the names of
    its instructions, such as HMMA, sorted. Without a disassembly of the machine code, these four
    are None.
    """

    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    load_bits: int | None = None
    store_bits: int | None = None
    n_local: int | None = None
    operations: tuple[str, ...] | None = None


@record
class Resources:
    """What a program's entry points take, by name, and the compiler's warnings."""

    entries: dict[str, EntryResources]
    warnings: tuple[str, ...]


class Nvcc:
    """The CUDA toolkit's compiler, only for checks: the budget holds for it and for NVRTC."""

    def __init__(self, path: str) -> None:
        self.path = path
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        major, minor = re.search(r"release (\d+)\.(\d+)", done.stdout).groups()
        self.version = (int(major), int(minor))

    def compile(self, program: Program, architecture: str) -> Compiled:
        """Returns the program compiled for `sm_XX`. Raises CompileError with nvcc's log."""
        with tempfile.TemporaryDirectory(prefix="llama_from_scratch-nvcc-") as name:
            folder, file = Path(name), f"{program.source.name}.cu"
            for path, text in {file: program.source.text, **program.source.headers}.items():
                (folder / path).write_text(text)
            command = [self.path, "-cubin", "-o", "out.cubin", *flags_of(program, architecture),
                       file]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            log = run.stdout + run.stderr
            if run.returncode:
                raise CompileError(f"{file} does not compile for {architecture} with real = "
                                   f"{program.real_name} (nvcc "
                                   f"{self.version[0]}.{self.version[1]}):\n{log}")
            return Compiled(cubin=(folder / "out.cubin").read_bytes(), log=log)


@functools.cache
def nvcc() -> Nvcc:
    """Returns the toolkit's compiler, from its wheels or the path.

    Raises RuntimeError, with the way to install one, if there is none.
    """
    if not (path := tool("nvcc")):
        wheels = " ".join(f"'nvidia-{name}=={BUDGET_CUDA}.*'"
                          for name in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-runtime"))
        raise RuntimeError(f"no nvcc was found. Install it with: {sys.executable} -m pip install "
                           f"{wheels} (100 MB, Linux)")
    return Nvcc(path)


def tool(name: str) -> str | None:
    """Returns the path of a program of the CUDA toolkit, or None if it was not found.

    The wheels, whose versions the tests fix, come before the machine's own programs.
    """
    wheels = importlib.util.find_spec("nvidia")
    folders = [Path(root) / f"cu{major}" / "bin"
               for root in (wheels.submodule_search_locations if wheels else ())
               for major in nvrtc.MAJORS]
    triton = importlib.util.find_spec("triton")
    folders += [Path(root) / "backends" / "nvidia" / "bin"
                for root in (triton.submodule_search_locations if triton else ())]
    found = [path for folder in folders if (path := shutil.which(name, path=str(folder)))]
    found += filter(None, (shutil.which(name), shutil.which(name, path="/usr/local/cuda/bin")))
    return found[0] if found else None


def read_log(log: str) -> dict[str, EntryResources]:
    """Returns what ptxas, the assembler of both compilers, logs for each entry point (`-v`)."""
    found = {}
    for section in re.split(r"Compiling entry function '(?=\w+')", log)[1:]:
        # After an entry point come the stacks and spills of the functions that it calls (pow, say).
        found_here = [[int(n) for n in numbers] for numbers in _PROPERTIES.findall(section)]
        stacks, stores, loads = zip(*found_here, strict=True)
        registers, shared_bytes = _USED.search(section).groups()
        found[section.partition("'")[0]] = EntryResources(
            registers=int(registers), spill_bytes=sum(stores) + sum(loads),
            stack_bytes=max(stacks), shared_bytes=int(shared_bytes or 0))
    return found


def read_warnings(log: str) -> list[str]:
    """Returns the warnings of a compiler's log, and what it reports as lost performance."""
    return [line for line in log.splitlines() if _WARNING.search(line)]


def read_sass(text: str) -> dict[str, dict]:
    """Returns each entry point's widest global load and store, local accesses and operations."""
    facts = {}
    for section in re.split(r"^//-+ (?=\.)", text, flags=re.MULTILINE):
        if found := re.match(r"\.text\.(\w+)", section):
            widths = {"LD": [0], "ST": [0]}
            for operation, modifiers in _ACCESS.findall(section):
                width = re.search(r"\.[US]?(8|16|64|128|256)\b", modifiers)
                widths[operation].append(int(width[1]) if width else 32)
            facts[found[1]] = {"load_bits": max(widths["LD"]), "store_bits": max(widths["ST"]),
                               "n_local": len(re.findall(r"\b(?:LDL|STL)\b", section)),
                               "operations": tuple(sorted({*_OPERATION.findall(section)}))}
    return facts


def measure(
    program: Program, architecture: str, *, compiler: nvrtc.Compiler | Nvcc,
    disassembler: str | None = None, folder: Path | None = None,
) -> Resources:
    """Returns what the program's entry points take on one architecture, through the disk cache."""
    def make(path: Path) -> None:
        compiled = compiler.compile(program, architecture)
        entries, sass = read_log(compiled.log), {}
        if disassembler:
            cubin = path.with_suffix(".cubin")
            cubin.write_bytes(compiled.cubin)
            done = subprocess.run([disassembler, cubin], capture_output=True, text=True, check=True)
            sass = read_sass(done.stdout)
        warnings = read_warnings(compiled.log)
        # Compilers report the last entry point first.
        in_order = sorted(entries, key=[*program.source.entries, *entries].index)
        path.write_text(json.dumps({"warnings": warnings, "entries": {
            name: asdict(entries[name]) | sass.get(name, {}) for name in in_order}}))

    readers = [inspect.getsource(each) for each in (read_log, read_warnings, read_sass)]
    patterns = [each.pattern for each in (_PROPERTIES, _USED, _ACCESS, _OPERATION, _WARNING)]
    key = digest("resources", *readers, *patterns, program.key, *flags_of(program, architecture),
                 compiler.path, repr(compiler.version), str(disassembler))
    data = json.loads(cached_file(key, suffix=".json", make=make, folder=folder).read_text())
    entries = {name: EntryResources(**each | {"operations": each["operations"] and
                                              tuple(each["operations"])})
               for name, each in data["entries"].items()}
    return Resources(warnings=tuple(data["warnings"]), entries=entries)


def measure_all(jobs: Sequence[tuple[Program, str, nvrtc.Compiler | Nvcc]]) -> list[Resources]:
    """Returns the resources of each (program, architecture, compiler), two at a time.

    Only `SASS_ARCHITECTURES` are disassembled, and only if there is a disassembler.
    """
    disassembler = tool("nvdisasm")

    def one(job: tuple[Program, str, nvrtc.Compiler | Nvcc]) -> Resources:
        program, architecture, compiler = job
        return measure(program, architecture, compiler=compiler,
                       disassembler=disassembler if architecture in SASS_ARCHITECTURES else None)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(one, jobs))


# ---- the budget ----------------------------------------------------------------------------------


def complaints(
    program: Program, architecture: str, taken: Resources, budget: dict[str, dict]
) -> Iterator[str]:
    """Yields what is wrong: warnings, spills, local memory, or more than the budget.

    Narrower accesses than the budget's, missing instructions that the source names, and entry
    points without a budget are wrong too.
    """
    where = f"{program.source.name}.cu, {program.real_name}, {architecture}"
    for line in taken.warnings:
        yield f"{where}: {line}"
    if missing := sorted({*program.source.entries} ^ {*taken.entries}):
        yield (f"{where}: the source's entry points and those in the compiler's log differ in "
               f"{', '.join(missing)}")
    for name, found in taken.entries.items():
        if found.operations is None:
            continue
        if lacks := [each for each in program.source.instructions if each not in found.operations]:
            yield f"{where}: the machine code of {name} must hold {', '.join(lacks)}"
    for name, found in taken.entries.items() if program.real in BUDGETED else ():
        allowed = budget.get(f"{name} {program.real_name}")
        if allowed is None or architecture not in allowed["registers"]:
            yield (f"{where}: {name} has no budget; "
                   "python -m llama_from_scratch.kernels.machinery.resources --update writes one")
            continue
        spill_bytes = MAY_SPILL.get((name, architecture), 0)
        limits = {"spill_bytes": spill_bytes, "stack_bytes": spill_bytes, "n_local": 0,
                  "shared_bytes": allowed["shared_bytes"],
                  "registers": allowed["registers"][architecture]}
        for what, most in limits.items():
            if (getattr(found, what) or 0) > most:
                yield f"{where}: {name} has {what} {getattr(found, what)}, but may have {most}"
        for what in ("load_bits", "store_bits"):
            bits = getattr(found, what)
            if bits is not None and bits < allowed[what]:
                yield f"{where}: {name} has {what} {bits}, but must have {allowed[what]}"


def every_job(
    dtypes: Iterable[torch.dtype] = tuple(REAL_NAMES),
) -> list[tuple[Program, str, nvrtc.Compiler | Nvcc]]:
    """Returns every (program, architecture, compiler) there is, for `measure_all`."""
    return [(program, architecture, compiler) for program in programs(dtypes)
            for architecture in architectures_of(program.source)
            for compiler in (nvrtc.compiler(), nvcc())]


def all_complaints(jobs: Sequence[tuple[Program, str, nvrtc.Compiler | Nvcc]]) -> list[str]:
    """Returns the complaints about all these jobs, measured now."""
    budget = read_budget()
    return [line for (program, architecture, _), taken in zip(jobs, measure_all(jobs), strict=True)
            for line in complaints(program, architecture, taken, budget)]


def read_budget(path: Path = BUDGET) -> dict[str, dict]:
    """Returns, by "entry dtype", the most registers, most shared bytes and least access widths."""
    return json.loads(path.read_text())


def write_budget(path: Path = BUDGET) -> None:
    """Writes what both compilers need now to budget.json. Raises RuntimeError without a tool."""
    if not tool("nvdisasm"):
        raise RuntimeError(f"no nvdisasm was found. Install it with: {sys.executable} -m pip "
                           "install nvidia-cuda-nvdisasm (5 MB)")
    jobs = every_job(BUDGETED)
    budget = {}
    for (program, architecture, _), taken in zip(jobs, measure_all(jobs), strict=True):
        for name, found in taken.entries.items():
            line = budget.setdefault(
                f"{name} {program.real_name}", {"registers": {}, "shared_bytes": 0})
            registers = line["registers"]
            registers[architecture] = max(found.registers, registers.get(architecture, 0))
            line["shared_bytes"] = max(found.shared_bytes, line["shared_bytes"])
            if architecture in SASS_ARCHITECTURES:
                for what in ("load_bits", "store_bits"):
                    line[what] = min(getattr(found, what), line.get(what, 256))
    lines = [f"{json.dumps(key)}: {json.dumps(line)}" for key, line in budget.items()]
    with replacing_file(path) as unfinished:
        unfinished.write_text("{\n" + ",\n".join(lines) + "\n}\n")


# ---- the table -----------------------------------------------------------------------------------


def programs(dtypes: Iterable[torch.dtype] = tuple(REAL_NAMES)) -> list[Program]:
    """Returns every kernel file, for each of the dtypes."""
    sources = [Source.read(path.stem) for path in sorted(FOLDER.glob("*.cu"))]
    return [Program(source=source, real=real) for source in sources for real in dtypes
            if real in source.reals]


def architectures_of(source: Source) -> tuple[str, ...]:
    """Returns the members of `ARCHITECTURES` that a source compiles for, or the only one."""
    oldest, is_only = source.architectures
    return (oldest,) if is_only else tuple(filter(source.runs_on, ARCHITECTURES))


def compiler_name() -> str:
    """Returns the name of this machine's GPU compiler, such as "NVRTC 13.0", or "no NVRTC"."""
    try:
        return "NVRTC {}.{}".format(*nvrtc.compiler().version)
    except RuntimeError:
        return "no NVRTC"


def table(architecture: str = "sm_90") -> str:
    """Returns a line per entry point: registers by dtype, most bytes, narrowest accesses."""
    try:
        compiler = nvrtc.compiler()
    except RuntimeError as error:
        return f"registers, spills and shared memory are not known here: {error}"
    made = programs()
    measured = measure_all([(program, architecture, compiler) for program in made])
    head = f"{architecture + ', ' + compiler_name():28}{'registers':^28}"
    head += f"  {'bytes':>12}{'bits, at widest':>20}\n"
    head += f"{'':28}" + "".join(f"{name:>7}" for name in REAL_NAMES.values())
    lines = [head + f"  {'spilled':>8}{'shared':>8}  {'load':>6}{'store':>6}"]
    for source in dict.fromkeys(program.source.name for program in made):
        mine = [taken.entries for program, taken in zip(made, measured, strict=True)
                if program.source.name == source]
        for name in mine[0]:
            found = [entries[name] for entries in mine]
            spilled = max(each.spill_bytes for each in found)
            shared = max(each.shared_bytes for each in found)
            load, store = ("-" if None in bits else min(bits) for bits in (
                [each.load_bits for each in found], [each.store_bits for each in found]))
            lines.append(f"{name:28}" + "".join(f"{each.registers:7}" for each in found)
                         + f"  {spilled:8}{shared:8}  {load:>6}{store:>6}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, or writes the budget, or prints the complaints and returns 1 for any."""
    parser = argparse.ArgumentParser(
        description="Registers, spills, shared memory and access widths of every kernel.")
    parser.add_argument("--arch", default="sm_90", help="the GPU architecture, such as sm_90")
    parser.add_argument("--update", action="store_true",
                        help="write what the kernels take now as their budget (minutes)")
    parser.add_argument("--check", action="store_true",
                        help="compare everything with the budget instead (minutes)")
    options = parser.parse_args(arguments)
    if options.check:
        found = all_complaints(every_job())
        print("\n".join(found) or "every kernel keeps its budget")
        return int(bool(found))
    if options.update:
        write_budget()
        print(f"written: {BUDGET}")
    print(table(options.arch))
    return 0


if __name__ == "__main__":
    sys.exit(main())

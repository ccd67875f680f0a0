"""Says in plain words what on this machine is missing or wrong for the course, and the cure.

`look` measures and `judge` decides, so that every verdict can be tested on any machine. What may crash is asked in a
process of its own: a PyTorch that cannot be loaded is a finding here, never an exception. Used by `llama doctor`.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)
NEED_MEMORY_BYTES = 4 * 10**9
"""Twice what the largest notebook takes."""
NEED_DISK_BYTES = 10**9
TIMEOUT_S = 60

SET_UP = "run `python3 start.py` in the project's folder"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_ok: bool
    """False if some part of the course fails for it; what is merely optional is ok and may still have a cure."""
    found: str
    cure: str = ""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """What PyTorch says of itself."""

    version: str
    cuda: str | None
    """The CUDA version it was built for; None for a CPU build."""
    devices: tuple[str, ...]
    """Accelerators it can use, by name."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What `look` measured; None where it could not be known."""

    python: tuple[int, int, int]
    n_bits: int
    torch: Torch | str
    """A string says why PyTorch cannot be imported."""
    n_memory_bytes: int | None
    n_free_bytes: int | None
    gpus: tuple[str, ...]
    """As NVIDIA's driver names them, with its version."""
    cxx: str | None
    """The C++ compiler that the CUDA emulator uses, and what it says it is."""
    no_cxx: str
    """Without one: why, and the cure, in the emulator's words."""
    nvcc: str | None
    prefix: str
    kernel: str
    """The folder of the Python behind the Jupyter kernel "python3", or why there is none."""
    missing: dict[str, tuple[str, ...]] | None
    """Missing packages by group ("" for the library itself); None if the project is not installed here."""


def report() -> list[Finding]:
    """Every finding about this machine, the good ones too."""
    return judge(look())


# --- looking ---------------------------------------------------------------------------------------------------------

ASK_TORCH = """
import json, torch
devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
devices += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip, "devices": devices}))
"""

ASK_KERNEL = """
import json, subprocess, sys
from jupyter_client.kernelspec import KernelSpecManager
program = KernelSpecManager().get_kernel_spec("python3").argv[0]
program = sys.executable if program.startswith("python") else program  # as Jupyter itself replaces it
print(json.dumps(subprocess.check_output([program, "-c", "import sys; print(sys.prefix)"], text=True).strip()))
"""

ASK_COMPILER = """
import json
from llama_from_scratch.kernels.emulator.build import find_compiler
compiler = find_compiler()
print(json.dumps(" ".join(compiler.command) + ": " + compiler.version.splitlines()[0]))
"""


def look() -> Machine:
    """This machine, measured; takes as long as PyTorch takes to import."""
    facts, why = _ask([sys.executable, "-c", ASK_TORCH])
    torch = why if facts is None else Torch(**{**facts, "devices": tuple(facts["devices"])})
    kernel, why = _ask([sys.executable, "-c", ASK_KERNEL])
    cxx, no_cxx = _ask([sys.executable, "-c", ASK_COMPILER])
    smi = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    return Machine(
        python=tuple(sys.version_info[:3]),
        n_bits=8 * struct.calcsize("P"),
        torch=torch,
        n_memory_bytes=_memory_bytes(),
        n_free_bytes=_free_bytes(),
        gpus=tuple(line.strip() for line in (smi or "").splitlines() if line.strip()),
        cxx=cxx,
        no_cxx=no_cxx,
        nvcc=shutil.which("nvcc"),
        prefix=sys.prefix,
        kernel=why if kernel is None else kernel,
        missing=_missing_packages(),
    )


def _output(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _ask(command: list[str]) -> tuple[object, str]:
    """The JSON that a program prints, or None and the reason in its own last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, errors="replace")
    except (OSError, subprocess.SubprocessError) as problem:
        return None, str(problem)
    words = done.stderr.strip().splitlines()
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except (IndexError, ValueError):
        return None, words[-1] if words else f"its process ended with status {done.returncode}"


def _memory_bytes() -> int | None:
    """Memory of the machine, or of the container around us if that is less."""
    if os.name == "nt":
        return _windows_memory_bytes()
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def _windows_memory_bytes() -> int | None:
    import ctypes

    kilobytes = ctypes.c_ulonglong()
    is_known = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return 1024 * kilobytes.value if is_known else None


def _free_bytes() -> int | None:
    try:
        return shutil.disk_usage(".").free
    except OSError:
        return None


def _missing_packages() -> dict[str, tuple[str, ...]] | None:
    try:
        needs = metadata.requires("llama_from_scratch") or []
    except metadata.PackageNotFoundError:
        return None
    missing: dict[str, tuple[str, ...]] = {"": (), "notebooks": (), "test": ()}
    for need in needs:
        name = re.match(r"[\w.-]+", need)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", need)
        group = extra[1] if extra else ""
        if group in missing and not _is_installed(name):
            missing[group] += (name,)
    return missing


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- judging ---------------------------------------------------------------------------------------------------------


def judge(machine: Machine) -> list[Finding]:
    """What the measurements mean for a reader of the course."""
    return [
        _python(machine),
        _packages(machine, "", "the library"),
        _torch(machine),
        _memory(machine),
        _disk(machine),
        _gpu(machine),
        _compiler(machine),
        _nvcc(machine),
        _kernel(machine),
        _packages(machine, "notebooks", "the notebooks"),
        _packages(machine, "test", "the tests"),
    ]


def _python(machine: Machine) -> Finding:
    is_ok = machine.python[:2] >= OLDEST_PYTHON and machine.n_bits == 64
    found = f"{'.'.join(map(str, machine.python))}, {machine.n_bits} bit"
    newer = ".".join(map(str, OLDEST_PYTHON))
    cure = "" if is_ok else f"install a 64-bit Python {newer} or newer, remove .venv and {SET_UP} with it"
    return Finding(name="Python", is_ok=is_ok, found=found, cure=cure)


def _torch(machine: Machine) -> Finding:
    if isinstance(machine.torch, str):
        return Finding(name="PyTorch", is_ok=False, found=f"cannot be imported: {machine.torch}", cure=SET_UP)
    found = f"{machine.torch.version}, built for {f'CUDA {machine.torch.cuda}' if machine.torch.cuda else 'the CPU'}"
    version = tuple(int(part) for part in re.findall(r"\d+", machine.torch.version)[:2])
    is_ok = version >= OLDEST_TORCH
    cure = "" if is_ok else f"the library needs {'.'.join(map(str, OLDEST_TORCH))} or newer: {SET_UP}"
    return Finding(name="PyTorch", is_ok=is_ok, found=found, cure=cure)


def _amount(name: str, n_bytes: int | None, need: int, cure: str) -> Finding:
    if n_bytes is None:
        return Finding(name=name, is_ok=True, found="could not be measured")
    is_ok = n_bytes >= need
    found = f"{n_bytes / 1e9:.1f} GB" + ("" if is_ok else f", {need / 1e9:.0f} GB are needed")
    return Finding(name=name, is_ok=is_ok, found=found, cure="" if is_ok else cure)


def _memory(machine: Machine) -> Finding:
    cure = "run one notebook at a time and close other programs"
    return _amount("memory", machine.n_memory_bytes, NEED_MEMORY_BYTES, cure)


def _disk(machine: Machine) -> Finding:
    return _amount("free disk here", machine.n_free_bytes, NEED_DISK_BYTES, "make room: training saves checkpoints")


def _gpu(machine: Machine) -> Finding:
    known = machine.torch if isinstance(machine.torch, Torch) else None
    if known and known.devices:
        driver = "".join(f" (driver {gpu.rpartition(', ')[2]})" for gpu in machine.gpus[:1])
        return Finding(name="GPU", is_ok=True, found=", ".join(known.devices) + driver)
    if not machine.gpus:
        return Finding(name="GPU", is_ok=True, found="none that PyTorch can use; everything runs on the CPU")
    found = f"{'; '.join(machine.gpus)} (name, driver), which PyTorch cannot use"
    if known and known.cuda is None:
        cure = "this PyTorch is the CPU build: remove .venv and run `python3 start.py` without --cpu"
    elif known:
        cure = f"update NVIDIA's driver to one for CUDA {known.cuda}"
    else:
        cure = "mend PyTorch first"
    return Finding(name="GPU", is_ok=False, found=found, cure=cure)


def _compiler(machine: Machine) -> Finding:
    if machine.cxx:
        return Finding(name="C++ compiler", is_ok=True, found=machine.cxx)
    if isinstance(machine.torch, str):
        return Finding(name="C++ compiler", is_ok=True, found="not known without PyTorch", cure="mend PyTorch first")
    cure = "for the chapters on kernels: " + machine.no_cxx.removeprefix("RuntimeError: ")
    return Finding(name="C++ compiler", is_ok=True, found="none; the course runs without, but for its kernels", cure=cure)


def _nvcc(machine: Machine) -> Finding:
    if machine.nvcc:
        return Finding(name="CUDA compiler", is_ok=True, found=machine.nvcc)
    cure = "if you want to compile kernels: install the CUDA toolkit, which brings nvcc" if machine.gpus else ""
    return Finding(name="CUDA compiler", is_ok=True, found="none; the course runs without", cure=cure)


def _kernel(machine: Machine) -> Finding:
    is_ok = os.path.normcase(machine.kernel) == os.path.normcase(machine.prefix)
    if is_ok:
        return Finding(name="Jupyter kernel", is_ok=True, found=f"this environment, {machine.prefix}")
    if os.path.isabs(machine.kernel):
        found = f"the kernel `python3` runs {machine.kernel}, while this is {machine.prefix}"
        cure = "list the kernels with `jupyter kernelspec list` and remove the foreign one: jupyter kernelspec remove python3"
    else:
        found, cure = f"none: {machine.kernel}", SET_UP
    return Finding(name="Jupyter kernel", is_ok=False, found=found, cure=cure)


def _packages(machine: Machine, group: str, what: str) -> Finding:
    name = f"packages of {what}"
    if machine.missing is None:
        return Finding(name=name, is_ok=False, found="the project is not installed in this Python", cure=SET_UP)
    missing = machine.missing[group]
    if not missing:
        return Finding(name=name, is_ok=True, found="all there")
    cure = "`python3 start.py test` installs them" if group == "test" else SET_UP
    return Finding(name=name, is_ok=group == "test", found=f"missing: {', '.join(missing)}", cure=cure)

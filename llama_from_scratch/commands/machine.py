"""Measures for `llama doctor` what the course needs of this machine.

Whatever may crash runs in a process of its own. If PyTorch cannot be loaded, the record holds the
reason, and no exception is raised here. `symptoms` judges the measurements.
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

TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Torch:
    """What PyTorch reports about itself."""

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
    """The name of each NVIDIA GPU and its driver's version, from nvidia-smi."""
    cxx: str | None
    """The C++ compiler that the CUDA emulator uses, with the first line of its version."""
    no_cxx: str
    """The emulator's error message, with the cure, if there is no compiler."""
    cache: str
    """The folder of compiled kernels; empty if PyTorch cannot be imported."""
    no_cache: str
    """Why kernels cannot be kept in that folder; empty if they can."""
    nvcc: str | None
    prefix: str
    kernel: str
    """The folder of the Python behind the Jupyter kernel "python3", or why there is none."""
    missing: dict[str, tuple[str, ...]] | None
    """Missing packages by group ("" for the library); None if the project is not installed here."""


ASK_TORCH = """
import json, torch
n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
devices = [torch.cuda.get_device_name(k) for k in range(n_gpus)]
devices += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
cuda = torch.version.cuda or torch.version.hip
print(json.dumps({"version": torch.__version__, "cuda": cuda, "devices": devices}))
"""

ASK_KERNEL = """
import json, subprocess, sys
from jupyter_client.kernelspec import KernelSpecManager
program = KernelSpecManager().get_kernel_spec("python3").argv[0]
if program.startswith("python"):
    program = sys.executable  # as Jupyter itself replaces it
ask = [program, "-c", "import sys; print(sys.prefix)"]
print(json.dumps(subprocess.check_output(ask, text=True).strip()))
"""

ASK_COMPILER = """
import json
from llama_from_scratch.kernels.emulator.build import find_compiler
compiler = find_compiler()
print(json.dumps(" ".join(compiler.command) + ": " + compiler.version.splitlines()[0]))
"""

ASK_CACHE = """
import json
from llama_from_scratch.kernels.machinery.cache import default_folder, problem_with
print(json.dumps([str(default_folder()), problem_with(default_folder())]))
"""


def look() -> Machine:
    """Returns the measurements of this machine. Takes as long as importing PyTorch."""
    facts, why = _ask([sys.executable, "-c", ASK_TORCH])
    torch = why if facts is None else Torch(**{**facts, "devices": tuple(facts["devices"])})
    kernel, why = _ask([sys.executable, "-c", ASK_KERNEL])
    cxx, no_cxx = _ask([sys.executable, "-c", ASK_COMPILER])
    cache, _ = _ask([sys.executable, "-c", ASK_CACHE])
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
        cache=cache[0] if cache else "",
        no_cache=cache[1] if cache else "",
        nvcc=shutil.which("nvcc"),
        prefix=sys.prefix,
        kernel=why if kernel is None else kernel,
        missing=_missing_packages(),
    )


def _output(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S,
                              check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _ask(command: list[str]) -> tuple[object, str]:
    """Returns the JSON value that a program prints and "", or None and the last line of stderr."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S,
                              errors="replace")
    except (OSError, subprocess.SubprocessError) as problem:
        return None, str(problem)
    words = done.stderr.strip().splitlines()
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except (IndexError, ValueError):
        return None, words[-1] if words else f"its process ended with status {done.returncode}"


def _memory_bytes() -> int | None:
    """Returns the memory of this machine, or of the container around it if that is less."""
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

"""Where a run comes from: the version of the code, of the libraries, and the machine.

Nothing here leaves the machine. The name of the user, the host and the folder is not recorded.

Notebook 09.
"""

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import torch

import llama_from_scratch
from llama_from_scratch.files import digest

_PACKAGE = Path(llama_from_scratch.__file__).parent
_NUMERIC = ("config", "family.py", "model", "tokenizer", "train",
            *(f"experiments/{name}.py" for name in ("experiment", "settings", "parts",
                                                    "torch_optimizer", "running")))
"""The parts of the library that decide the numbers of a run: not how runs are stored or shown."""


@functools.cache
def code() -> dict[str, Any]:
    """Returns the version of the library: its number, the commit, and whether files differ from it.

    `digest` covers the sources that decide a run's numbers, so it changes with any edit there.
    `commit` and `is_dirty` are None where there is no git.
    """
    sources = sorted(path for name in _NUMERIC for path in _python_files(_PACKAGE / name))
    texts = [part for path in sources
             for part in (str(path.relative_to(_PACKAGE)), path.read_bytes())]
    commit, state = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    return {"version": _version(), "commit": commit,
            "is_dirty": None if commit is None or state is None else bool(state),
            "digest": digest(*texts)[:12]}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that compute."""
    return {"python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__}


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns what decides the speed and the rounding of a run on this machine."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {"processor": _processor(), "n_cores": usable_cores(),
            "n_threads": torch.get_num_threads(), "system": platform.system(),
            "architecture": platform.machine(), "device": name}


def usable_cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))


def _version() -> str:
    try:
        return metadata.version("llama_from_scratch")
    except metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _processor() -> str:
    """Returns the name of the processor, from the system's own list where there is one."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        try:
            return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], text=True,
                                  capture_output=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str | None:
    """Returns what git prints about the library's folder; None without git or a repository."""
    command = ["git", "-C", str(_PACKAGE), *arguments]
    try:
        ran = subprocess.run(command, text=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None

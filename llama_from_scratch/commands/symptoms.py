"""Judges what the course lacks on a machine, and names the cures in plain words.

`machine.look` measures and `judge` decides, so that every verdict can be tested on any machine.
"""

import os
import re
from dataclasses import dataclass

from llama_from_scratch.commands.machine import Machine, Torch

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)
NEED_MEMORY_BYTES = 4 * 10**9
"""Twice what the largest notebook takes."""
NEED_DISK_BYTES = 10**9

SET_UP = "run `python3 start.py` in the project's folder"


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """One thing that was looked at."""

    name: str
    is_ok: bool
    """False if a part of the course would fail. What is optional is ok, and may still have a
    cure."""
    found: str
    cure: str = ""


def judge(machine: Machine) -> list[Symptom]:
    """Returns what the measurements mean for a reader of the course."""
    return [
        _python(machine),
        _packages(machine, "", "the library"),
        _torch(machine),
        _memory(machine),
        _disk(machine),
        _gpu(machine),
        _compiler(machine),
        _cache(machine),
        _nvcc(machine),
        _kernel(machine),
        _packages(machine, "notebooks", "the notebooks"),
        _packages(machine, "test", "the tests"),
    ]


def _python(machine: Machine) -> Symptom:
    is_ok = machine.python[:2] >= OLDEST_PYTHON and machine.n_bits == 64
    found = f"{'.'.join(map(str, machine.python))}, {machine.n_bits} bit"
    newer = ".".join(map(str, OLDEST_PYTHON))
    cure = f"install a 64-bit Python {newer} or newer, remove .venv and {SET_UP} with it"
    return Symptom(name="Python", is_ok=is_ok, found=found, cure="" if is_ok else cure)


def _torch(machine: Machine) -> Symptom:
    if isinstance(machine.torch, str):
        return Symptom(name="PyTorch", is_ok=False, found=f"cannot be imported: {machine.torch}",
                       cure=SET_UP)
    target = f"CUDA {machine.torch.cuda}" if machine.torch.cuda else "the CPU"
    found = f"{machine.torch.version}, built for {target}"
    version = tuple(int(part) for part in re.findall(r"\d+", machine.torch.version)[:2])
    is_ok = version >= OLDEST_TORCH
    oldest = ".".join(map(str, OLDEST_TORCH))
    cure = "" if is_ok else f"the library needs {oldest} or newer: {SET_UP}"
    return Symptom(name="PyTorch", is_ok=is_ok, found=found, cure=cure)


def _amount(name: str, n_bytes: int | None, need: int, cure: str) -> Symptom:
    if n_bytes is None:
        return Symptom(name=name, is_ok=True, found="could not be measured")
    is_ok = n_bytes >= need
    found = f"{n_bytes / 1e9:.1f} GB" + ("" if is_ok else f", {need / 1e9:.0f} GB are needed")
    return Symptom(name=name, is_ok=is_ok, found=found, cure="" if is_ok else cure)


def _memory(machine: Machine) -> Symptom:
    cure = "run one notebook at a time and close other programs"
    return _amount("memory", machine.n_memory_bytes, NEED_MEMORY_BYTES, cure)


def _disk(machine: Machine) -> Symptom:
    cure = "free some space, because training saves checkpoints"
    return _amount("free disk here", machine.n_free_bytes, NEED_DISK_BYTES, cure)


def _gpu(machine: Machine) -> Symptom:
    known = machine.torch if isinstance(machine.torch, Torch) else None
    if known and known.devices:
        driver = "".join(f" (driver {gpu.rpartition(', ')[2]})" for gpu in machine.gpus[:1])
        return Symptom(name="GPU", is_ok=True, found=", ".join(known.devices) + driver)
    if not machine.gpus:
        return Symptom(name="GPU", is_ok=True,
                       found="none that PyTorch can use; everything runs on the CPU")
    found = f"{'; '.join(machine.gpus)} (name, driver), which PyTorch cannot use"
    if known and known.cuda is None:
        cure = ("this PyTorch is the CPU build: "
                "remove .venv and run `python3 start.py` without --cpu")
    elif known:
        cure = f"update NVIDIA's driver to one for CUDA {known.cuda}"
    else:
        cure = "fix PyTorch first"
    return Symptom(name="GPU", is_ok=False, found=found, cure=cure)


def _compiler(machine: Machine) -> Symptom:
    if machine.cxx:
        return Symptom(name="C++ compiler", is_ok=True, found=machine.cxx)
    if isinstance(machine.torch, str):
        return Symptom(name="C++ compiler", is_ok=True, found="not known without PyTorch",
                       cure="fix PyTorch first")
    cure = "for the chapters on kernels: " + machine.no_cxx.removeprefix("RuntimeError: ")
    return Symptom(name="C++ compiler", is_ok=True,
                   found="none that can be used; only the chapters on kernels need one",
                   cure=cure)


def _cache(machine: Machine) -> Symptom:
    name = "compiled kernels"
    if not machine.cache:
        return Symptom(name=name, is_ok=True, found="not known without PyTorch",
                       cure="fix PyTorch first")
    if not machine.no_cache:
        return Symptom(name=name, is_ok=True, found=f"kept in {machine.cache}")
    found = (f"not kept in {machine.cache} ({machine.no_cache}), so every process compiles them "
             "again")
    cure = "set XDG_CACHE_HOME to a folder of your own from which programs may run"
    return Symptom(name=name, is_ok=False, found=found, cure=cure)


def _nvcc(machine: Machine) -> Symptom:
    if machine.nvcc:
        return Symptom(name="CUDA compiler", is_ok=True, found=machine.nvcc)
    cure = "to compile kernels, install the CUDA toolkit, which contains nvcc"
    return Symptom(name="CUDA compiler", is_ok=True, found="none; the course works without it",
                   cure=cure if machine.gpus else "")


def _kernel(machine: Machine) -> Symptom:
    is_ok = os.path.normcase(machine.kernel) == os.path.normcase(machine.prefix)
    if is_ok:
        return Symptom(name="Jupyter kernel", is_ok=True,
                       found=f"this environment, {machine.prefix}")
    if os.path.isabs(machine.kernel):
        found = f"the kernel `python3` runs {machine.kernel}, but this is {machine.prefix}"
        cure = ("list the kernels with `jupyter kernelspec list` and remove the wrong one: "
                "jupyter kernelspec remove python3")
    else:
        found, cure = f"none: {machine.kernel}", SET_UP
    return Symptom(name="Jupyter kernel", is_ok=False, found=found, cure=cure)


def _packages(machine: Machine, group: str, what: str) -> Symptom:
    name = f"packages of {what}"
    if machine.missing is None:
        return Symptom(name=name, is_ok=False, found="the project is not installed in this Python",
                       cure=SET_UP)
    missing = machine.missing[group]
    if not missing:
        return Symptom(name=name, is_ok=True, found="all installed")
    cure = "`python3 start.py test` installs them" if group == "test" else SET_UP
    return Symptom(name=name, is_ok=group == "test", found=f"missing: {', '.join(missing)}",
                   cure=cure)

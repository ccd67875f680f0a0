"""Checks that the device exists and has enough memory, before anything is read.

Notebook 18.
"""

import os
from pathlib import Path

import torch

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import shown


def refuse_absent_device(device: torch.device | str) -> None:
    """Raises ValueError unless `device` names a device that can hold numbers here."""
    rule = "a model needs a device that PyTorch can use on this machine"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{rule}; got device={shown(device)}, which is not a device. "
                         "Choose \"cpu\", \"cuda\", or \"cuda:1\" for the second GPU (on the "
                         "command line --device cuda:1)") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        why = ("no NVIDIA GPU or driver was found" if torch.backends.cuda.is_built()
               else "this PyTorch is built without CUDA")
        raise ValueError(f"{rule}; got device={str(device)!r}, and {why}. Choose "
                         "device=\"cpu\" (on the command line --device cpu), or install a "
                         "driver and a PyTorch with CUDA")
    if wanted.type == "meta":
        raise ValueError(f"{rule}; got device='meta', which keeps shapes and no numbers. Choose "
                         "device=\"cpu\" (on the command line --device cpu)")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{rule}; got device={str(device)!r}, which it cannot use "
                         f"({reason:.160}). Choose device=\"cpu\" (on the command line "
                         "--device cpu), or another device of this machine") from error


def refuse_what_does_not_fit(
    config: LlamaConfig, *, where: Path, dtype: torch.dtype, device: torch.device | str,
    memory_bytes: int | None = None,
) -> None:
    """Raises ValueError if the model of the checkpoint at `where` needs more memory than there is.

    `memory_bytes`: the available memory, by default what is free on `device`.
    """
    room = free_bytes(torch.device(device)) if memory_bytes is None else memory_bytes
    need = config.n_params * dtype.itemsize
    if room is None or need <= room:
        return
    smaller = (" Choose dtype=torch.bfloat16, which needs half as much as float32 (on the command "
               "line --dtype bfloat16), or use" if dtype.itemsize > 2
               else " Use")
    raise ValueError(f"a model must fit into memory: the {config.n_params / 1e9:.2f} billion "
                     f"parameters of {where} need {need / 1e9:.2f} GB in "
                     f"{str(dtype).removeprefix('torch.')}, and {room / 1e9:.2f} GB are free on "
                     f"{device}.{smaller} a smaller model, close other programs, or use a machine "
                     "with more memory")


def free_bytes(device: torch.device) -> int | None:
    """Returns the free memory for a new model in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        machine = next(int(line.split()[1]) << 10
                       for line in Path("/proc/meminfo").read_text().splitlines()
                       if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    return min(machine, _container_free_bytes(Path("/sys/fs/cgroup"), machine))


def _container_free_bytes(group: Path, otherwise: int) -> int:
    """Returns the free memory in bytes of the container that we run in.

    Memory of cached files counts as free, because the system gives it up when it is needed.
    """
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["active_file"]) + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return otherwise

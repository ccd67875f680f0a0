"""Refuses a run before its first step if it does not fit into memory or onto the disk.

Notebook 17.
"""

import errno
import os
import shutil
from pathlib import Path

import torch

from llama_from_scratch.checkpoint.machine import free_bytes

_TRAINING_COPIES = 4
"""Numbers per weight: itself, its gradient, and the optimizer's two averages."""


class DiskFull(ValueError):
    """Too little is free on a disk. It has the error number that the system gives to that."""

    errno = errno.ENOSPC


def refuse_too_little_memory(
    n_params: int, *, n_logits: int, device: torch.device | str, is_built: bool,
    memory_bytes: int | None = None,
) -> None:
    """Raises ValueError if training this many parameters needs more memory than is free.

    `n_logits`: the logits of all windows that go through the model at once; their gradients are
    counted too. `is_built`: whether the weights are in memory already. Everything is in fp32. What
    the layers keep for the backward pass is not counted, so only impossible runs are refused.
    """
    room = free_bytes(torch.device(device)) if memory_bytes is None else memory_bytes
    need = 4 * (n_params * (_TRAINING_COPIES - is_built) + 2 * n_logits)
    if room is None or need <= room:
        return
    raise ValueError(f"training must fit into memory: {n_params:,} parameters with their gradients "
                     f"and averages, and {n_logits:,} logits, need {need / 1e9:,.1f} GB, and "
                     f"{room / 1e9:,.1f} GB are free on {device}. Choose a smaller model, or fewer "
                     "or shorter windows at once")


def refuse_full_disk(folder: Path, *, n_bytes: int, n_copies: int) -> None:
    """Raises DiskFull if fewer than `n_copies` checkpoints of `n_bytes` fit where `folder` is.

    A checkpoint is replaced only when the next one is complete, so for a moment there are two.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    free = shutil.disk_usage(there).free
    if n_bytes * n_copies > free:
        raise DiskFull(f"the checkpoints of a run must fit onto the disk: {n_copies} of "
                       f"{n_bytes / 1e9:,.2f} GB exist for a moment, and "
                       f"{free / 1e9:,.2f} GB are free at {there}. Free some space, or choose a "
                       "folder on another disk")

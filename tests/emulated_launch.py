"""What the tests of several kernels share: launches on the emulator with every guard on, odd
layouts, tensors beyond memory."""

import ctypes
import mmap

import torch

from llama_from_scratch.kernels.emulator.machine import load

SUMS = [("d_q", "float")]   # of the attention kernels on tensor cores; others have real* d_q


def checked_launch(program, entry, args, *, grid, block, shared_bytes=0, order="forward", seed=0):
    """Launches as `kernels.machinery.launch.launch` does, on the checked build.

    It stops at the first byte outside a tensor. Outputs are filled with NaN before, but not sums
    that blocks add to, which a launch finds at 0."""
    for parameter, arg in zip(program.entry(entry).parameters, args, strict=True):
        is_sum = (parameter.name, parameter.c_type) in SUMS
        if parameter.is_pointer and not parameter.is_const and arg is not None and not is_sum:
            arg.fill_(float("nan"))
    load(program, kind="checked").launch(
        entry, args, grid=grid, block=block, shared_bytes=shared_bytes, order=order, seed=seed)


def layouts_of(x):
    """Returns x (B, D) in the layouts of views, copies and expansions, with a name for each."""
    yield "transposed", x.t().contiguous().t()
    yield "every second column", x.repeat_interleave(2, dim=1)[:, ::2]
    yield "misaligned", torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    yield "one row for all", x[:1].expand(x.shape)
    yield "one number for all", x[0, 0].expand(x.shape)
    yield "the columns from the third on", x[:, 3:]


class Vast:
    """A tensor of more than 2^31 elements that takes memory only for the pages that are written.

    The address space before it has the same size, so that an index that wrapped around at 2^31
    writes to no other tensor, and the result is missing.
    """

    def __init__(self, n, dtype):
        n_bytes = n * dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self.memory = mmap.mmap(-1, 2 * n_bytes + 16, flags=flags)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + n_bytes
        self.tensor = torch.frombuffer(self.memory, dtype=dtype, offset=n_bytes + -address % 16,
                                       count=n)

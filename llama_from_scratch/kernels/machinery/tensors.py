"""What all wrappers need: memory as kernels read it, a refusal of CPU tensors, processors.

Notebook 30.
"""

import functools

import torch
from torch import Tensor

# So few that several blocks share a processor, and a persistent grid visits several rows per block.
EMULATED_PROCESSORS = 2


def aligned(x: Tensor) -> Tensor:
    """Returns x if it has no gaps and starts at a multiple of 16 bytes, otherwise such a copy."""
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x


def with_whole_rows(x: Tensor) -> Tensor:
    """Returns x if a kernel can read its rows along the last axis, otherwise a copy without gaps.

    A kernel reads a row from its first number on, without gaps, and 16 bytes at a time if its width
    allows. The other axes may have any strides; `span` is what to pass for the tensor.
    """
    vector = 16 // x.dtype.itemsize
    steps = [step for step, n in zip(x.stride()[:-1], x.shape[:-1], strict=True) if n > 1]
    is_dense = x.shape[-1] == 1 or x.stride(-1) == 1
    is_placed = x.shape[-1] % vector or not any(step % vector for step in steps)
    return x if is_dense and is_placed and x.data_ptr() % 16 == 0 else aligned(x)


def span(x: Tensor) -> Tensor:
    """Returns the stretch of memory from x's first number to its last, as one axis without gaps.

    It is what a kernel gets that takes the strides of x as arguments. It shares x's memory.
    """
    length = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((length if x.numel() else 0,), (1,))


def require_cuda(name: str, x: Tensor, *, emulate: bool) -> None:
    """Raises ValueError for a CPU tensor, unless `emulate` allows the slow emulator."""
    if not x.is_cuda and not emulate:
        raise ValueError(f"{name} runs on a CUDA device; the tensor is on {x.device}. Move it with "
                         ".cuda(), use the plain PyTorch module, or pass emulate=True to run the "
                         "same source on the CPU, hundreds of times slower")


@functools.cache
def n_processors(device: torch.device) -> int:
    """Returns the number of a GPU's streaming multiprocessors, or the emulator's made-up number."""
    if device.type != "cuda":
        return EMULATED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count

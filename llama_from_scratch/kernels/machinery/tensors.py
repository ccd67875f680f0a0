"""What all wrappers need: aligned memory, a refusal of CPU tensors, the number of processors.

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

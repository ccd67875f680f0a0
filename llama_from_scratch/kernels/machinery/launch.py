"""One call that runs an entry point where its tensors are: on their GPU, or on the emulator.

Both take the same source and the same packed arguments, so a kernel that is right on the emulator
is launched unchanged.

Notebook 30.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from llama_from_scratch.kernels.emulator.machine import MAX_WORKERS, load
from llama_from_scratch.kernels.machinery.driver import Driver, libcuda
from llama_from_scratch.kernels.machinery.nvrtc import compiler
from llama_from_scratch.kernels.machinery.source import Argument, Program, Source, pack
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap


@functools.cache
def program(name: str, real: torch.dtype) -> Program:
    """Returns the kernel file `name`.cu for tensors of one dtype. It is read only once."""
    return Program(source=Source.read(name), real=real)


@functools.cache
def gpu() -> Driver:
    """Returns the driver of this machine, with code from NVRTC through the disk cache.

    Raises RuntimeError if there is no NVIDIA driver.
    """
    def cubin(program: Program, capability: tuple[int, int]) -> bytes:
        return compiler().cubin(program, compiler().architecture(capability, program.source))

    return Driver(libcuda(), cubin=cubin)


def launch(
    program: Program, entry: str, args: Sequence[Argument], *,
    grid: int | tuple[int, ...], block: int | tuple[int, ...], shared_bytes: int = 0,
) -> None:
    """Runs `grid` blocks of `block` threads of an entry point, which changes the tensors in `args`.

    On a GPU it is queued on PyTorch's current stream of the tensors' device. The first launch
    compiles it. Raises ValueError, TypeError or OverflowError for arguments that do not fit (see
    `pack`) and for a shape that no GPU launches, CompileError for an error in the source, CudaError
    for an error that the driver reports, and KernelFault for a fault on the emulator.
    """
    tensors = [arg.tensor if isinstance(arg, TensorMap) else arg for arg in args]
    device = next((x.device for x in tensors if isinstance(x, Tensor)), torch.device("cpu"))
    if device.type == "cuda":
        arguments = pack(program, entry, args, encode=gpu().encode)
        gpu().launch(program, entry, arguments, grid=_triple("grid", grid),
                     block=_triple("block", block), shared_bytes=shared_bytes, device=device.index,
                     stream=torch.cuda.current_stream(device).cuda_stream)
    elif device.type == "cpu":
        load(program, kind="fast").launch(
            entry, args, grid=grid, block=block, shared_bytes=shared_bytes,
            n_workers=min(torch.get_num_threads(), MAX_WORKERS))
    else:
        raise ValueError(
            f"kernels run on NVIDIA GPUs and on the CPU; {entry} got tensors on {device}. "
            "Move them with .cuda() or .cpu()")


def _triple(name: str, size: int | tuple[int, ...]) -> tuple[int, int, int]:
    if isinstance(size, int):
        return size, 1, 1
    if not 1 <= len(size) <= 3:
        raise ValueError(f"{name} must have 1 to 3 sizes, along x, y and z; got {size}")
    return (*size, *[1] * (3 - len(size)))

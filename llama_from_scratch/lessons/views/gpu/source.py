"""Makes a program that can be launched and traced from CUDA source in a notebook."""

from collections.abc import Sequence

import torch

from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.emulator.trace import Trace, trace
from llama_from_scratch.kernels.machinery.nvrtc import CompileError
from llama_from_scratch.kernels.machinery.source import FOLDER, Argument, Program, Source
from llama_from_scratch.lessons.check.failures import CheckFailed

_INCLUDED_BY = {"tensor_cores.cuh": ("tensor_cores.cuh", "hopper.cuh"),
                "hopper.cuh": ("hopper.cuh",)}


def program(text: str, *, real: torch.dtype = torch.float32) -> Program:
    """Returns a program that can be launched and traced.

    Its source may include "common.cuh", and "tensor_cores.cuh" or "hopper.cuh", which include it.
    """
    names = {name for name, within in _INCLUDED_BY.items()
             if any(f'#include "{each}"' in text for each in within)}
    headers = {name: (FOLDER / name).read_text() for name in sorted({"common.cuh", *names})}
    return Program(source=Source(name="notebook", text=text.strip("\n") + "\n", headers=headers),
                   real=real)


def checked_trace(
    program: Program, entry: str, args: Sequence[Argument], *,
    grid: int | tuple[int, ...], block: int | tuple[int, ...], shared_bytes: int = 0,
) -> Trace:
    """Returns the trace of a launch that is sound, for the check of an exercise.

    Raises CheckFailed, in words, if the source does not compile or the launch does not reach its
    end, leaves the bounds of an array, or races.
    """
    try:
        found = trace(program, entry, args, grid=grid, block=block, shared_bytes=shared_bytes)
    except (CompileError, KernelFault) as fault:
        raise CheckFailed(str(fault)) from None
    if found.out_of_bounds:
        raise CheckFailed(str(found.out_of_bounds))
    if found.races:
        raise CheckFailed(str(found.races[0]))
    return found


def listing(program: Program) -> str:
    """Returns the source with the line numbers that traces use."""
    lines = program.source.text.rstrip("\n").split("\n")
    return "\n".join(f"{n:3} {line}" for n, line in enumerate(lines, start=1))

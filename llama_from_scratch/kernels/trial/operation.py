"""The record of an operation: three ways to compute the same, and its rivals.

An operation computes the same numbers by the exact formula in float64, by the plain model's own
code, and by the kernel. Its rivals are PyTorch's own functions for the same.

Notebook 30.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llama_from_scratch.config import record

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Outputs = tuple[Tensor, ...]


@record
class Rival:
    """PyTorch's own code for the same: a `name` to print, and `way(*prepare(*inputs))`.

    `prepare` is what a user would do once, such as packing weights, and is not timed.
    """

    name: str
    way: Callable[..., Outputs]
    prepare: Callable[..., Outputs] = lambda *inputs: inputs


@record
class Operation:
    """Three ways to compute a result from the same inputs, the first of which have gradients.

    `part`: the part of the trial that times it. `operations`: what is counted of a bf16 forward and
    backward pass; None if memory limits them. `is_one_pass`: whether forward and backward are timed
    together. `is_mean`: whether the output is the mean of many numbers. `checked`: the size that is
    compared with float64 in place of `large`, where that is too large for it. `beyond`: over 2^31
    elements in bf16, or None.
    `why_not(device)`: why a GPU cannot run it, or "".
    """

    name: str
    sizes: tuple[tuple[int, ...], ...]       # small and awkward
    large: tuple[int, ...]                   # as in a training step of an 8B model
    beyond: tuple[int, ...] | None
    inputs: Callable[..., Outputs]           # (size, draw) -> float64; draw(*shape): normal numbers
    exact: Callable[..., Outputs]
    plain: Callable[..., Outputs]
    fused: Callable[..., Outputs]            # takes emulate=
    traffic: Callable[..., tuple[int, int]]  # (size) -> bytes of bf16 that each direction must move
    gradient_names: tuple[str, ...]          # of the first inputs; the others are constants
    # The axis of the outputs along which rows do not depend on each other.
    row_axis: int
    rivals: tuple[Rival, ...] = ()
    dtypes: tuple[torch.dtype, ...] = DTYPES
    part: str = "memory-bound"
    operations: Callable[..., tuple[float, float]] | None = None
    is_one_pass: bool = False
    is_mean: bool = False
    checked: tuple[int, ...] | None = None
    is_deterministic: bool = True
    why_not: Callable[[torch.device], str] = lambda device: ""

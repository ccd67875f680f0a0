"""SwiGLU's gate as one kernel: silu(gate) * up read once, written once.

Plain PyTorch takes two passes over memory, and writes and reads silu(gate) in between; its backward
takes five. Here each direction is one pass. For backward, only the two inputs are kept, which the
matrix products keep anyway. Every result is rounded where the plain model rounds it, but gradients
are rounded only at the end (swiglu.cu explains why).

Notebook 32. In the feed-forward network of every Llama: `model.feed_forward`, notebook 14. Source:
Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202, eq. 6.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import aligned, require_cuda

THREADS = 256       # as in swiglu.cu
VECTOR_BYTES = 16   # of one memory access


@record
class SwigluRung:
    """One entry point of swiglu.cu.

    vectors: how many 16-byte vectors of each tensor a thread reads at once; None: one number.
    """

    entry: str
    vectors: int | None


RUNGS = ladder(
    SwigluRung(entry="swiglu_forward_1", vectors=None),
    SwigluRung(entry="swiglu_forward_2", vectors=1),
    SwigluRung(entry="swiglu_forward", vectors=2),
)
BACKWARD_RUNGS = ladder(
    SwigluRung(entry="swiglu_backward_1", vectors=None),
    SwigluRung(entry="swiglu_backward", vectors=1),
)


def swiglu(
    gate: Float[Tensor, "*batch F"], up: Float[Tensor, "*batch F"], *, emulate: bool = False
) -> Float[Tensor, "*batch F"]:
    """Returns silu(gate) * up in the inputs' dtype, with the sigmoid in fp32.

    Differentiable in both. Raises ValueError for tensors of different shapes, dtypes or devices,
    and for CPU tensors unless `emulate`.
    """
    require_cuda("swiglu", gate, emulate=emulate)
    return torch.ops.llama_from_scratch.swiglu(gate, up)


def run_forward(
    gate: Tensor, up: Tensor, *, rung: str = "swiglu_forward", n_blocks: int | None = None,
    launcher: Callable[..., object] | None = None,
) -> Tensor:
    """Returns the result of the forward pass by one rung. Autograd does not record it.

    `n_blocks` replaces the number of blocks that covers everything. `launcher`: a function to call
    instead of `launch`, with the same arguments, such as `emulator.trace.trace`.
    """
    gate, up = aligned(gate), aligned(up)
    y = torch.empty_like(gate)
    _launch(rung_named(rung, RUNGS), [gate, up, y], n_blocks=n_blocks, launcher=launcher)
    return y


def run_backward(
    d_y: Tensor, gate: Tensor, *, up: Tensor, rung: str = "swiglu_backward",
    n_blocks: int | None = None, launcher: Callable[..., object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the gradients by gate and up, by one rung. The other arguments: see `run_forward`."""
    d_y, gate, up = aligned(d_y), aligned(gate), aligned(up)
    d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
    _launch(rung_named(rung, BACKWARD_RUNGS), [d_y, gate, up, d_gate, d_up], n_blocks=n_blocks,
            launcher=launcher)
    return d_gate, d_up


def _launch(
    rung: SwigluRung, tensors: list[Tensor], *, n_blocks: int | None,
    launcher: Callable[..., object] | None
) -> None:
    n, real = tensors[0].numel(), tensors[0].dtype
    per_thread = 1 if rung.vectors is None else rung.vectors * VECTOR_BYTES // real.itemsize
    if n:
        (launcher or launch)(program("swiglu", real), rung.entry, [*tensors, n],
                             grid=n_blocks or -(-n // (THREADS * per_thread)), block=THREADS)


def _check(gate: Tensor, *others: Tensor) -> None:
    kinds = [f"{tuple(x.shape)} {x.dtype} on {x.device}" for x in (gate, *others)]
    if len(set(kinds)) > 1:
        raise ValueError("swiglu multiplies number by number, so its tensors must share shape, "
                         f"dtype and device; got {', '.join(kinds)}. Convert them with .to(...) "
                         "before the call")


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    _check(gate, up)
    return run_forward(gate, up)


def _backward(d_y: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    _check(gate, up, d_y)
    return run_backward(d_y, gate, up=up)


def _fake_forward(gate: Tensor, up: Tensor) -> Tensor:
    _check(gate, up)
    return gate.new_empty(gate.shape)


def _fake_backward(d_y: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    _check(gate, up, d_y)
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape)


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("swiglu(Tensor gate, Tensor up) -> Tensor")
_library.define("swiglu_backward(Tensor d_y, Tensor gate, Tensor up) -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("swiglu", _forward, _device)
    _library.impl("swiglu_backward", _backward, _device)
torch.library.register_fake("llama_from_scratch::swiglu", _fake_forward, lib=_library)
torch.library.register_fake("llama_from_scratch::swiglu_backward", _fake_backward, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::swiglu",
    lambda ctx, d_y: torch.ops.llama_from_scratch.swiglu_backward(d_y, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs), lib=_library)

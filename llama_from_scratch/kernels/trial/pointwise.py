"""The operations that memory limits: norms, rotation and SwiGLU.

Notebooks 31 and 32.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.kernels.rms_norm import add_rms_norm, rms_norm
from llama_from_scratch.kernels.rope import rope
from llama_from_scratch.kernels.swiglu import swiglu
from llama_from_scratch.kernels.trial.operation import Operation, Outputs, Rival
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import apply_rope

EPS = 1e-5


def _norm_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return draw(*size), 1 + 0.3 * draw(size[-1])


def _add_norm_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return draw(*size), draw(*size), 1 + 0.3 * draw(size[-1])


def _streams(forward: int, backward: int) -> Callable[..., tuple[int, int]]:
    """Returns a function that gives the bytes of this many tensors of the first input's size.

    A weight that all rows share is not counted.
    """
    return lambda size: (2 * forward * math.prod(size), 2 * backward * math.prod(size))


def _rope_traffic(size: Sequence[int]) -> tuple[int, int]:
    B, T, H, G, K = size
    # Heads in and out, and one complex64 per pair.
    n_bytes = B * T * (2 * 2 * (H + G) * K + 8 * K // 2)
    return n_bytes, n_bytes


def _exact_norm(x: Tensor, weight: Tensor) -> Outputs:
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight,)


def _plain_norm(x: Tensor, weight: Tensor) -> Outputs:
    norm = RMSNorm(x.shape[-1], eps=EPS)
    return (torch.func.functional_call(norm, {"weight": weight}, (x,)),)


def _library_norm(x: Tensor, weight: Tensor) -> Outputs:
    return (F.rms_norm(x, (x.shape[-1],), weight, EPS),)


def _library_add_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    total = x + residual
    return F.rms_norm(total, (x.shape[-1],), weight, EPS), total


def _rope_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    B, T, H, G, K = size
    angles = 1e5 * draw(B, T, K // 2).double()
    return draw(B, T, H, K), draw(B, T, G, K), torch.polar(torch.ones_like(angles), angles)


def _exact_rope(q: Tensor, k: Tensor, rotation: Tensor) -> Outputs:
    def turn(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * rotation[:, :, None]).flatten(-2)
    return turn(q), turn(k)


def _swiglu_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return 3 * draw(*size), draw(*size)


def _plain_swiglu(gate: Tensor, up: Tensor) -> Outputs:
    return (F.silu(gate) * up,)


POINTWISE = (
    Operation(
        name="rms_norm", sizes=((1, 2), (3, 7), (5, 64), (2, 3, 1000), (33, 4097)),
        large=(16384, 4096), beyond=(2**19 + 3, 4096), row_axis=0,
        inputs=_norm_inputs, exact=_exact_norm, plain=_plain_norm,
        fused=lambda x, weight, emulate: (rms_norm(x, weight, eps=EPS, emulate=emulate),),
        traffic=_streams(2, 3), gradient_names=("x", "weight"),
        rivals=(Rival(name="F.rms_norm", way=_library_norm),)),
    Operation(
        name="add_rms_norm", sizes=((1, 8), (3, 77), (2, 5, 128), (9, 4096)),
        large=(16384, 4096), beyond=(2**19 + 3, 4096), row_axis=0,
        inputs=_add_norm_inputs,
        exact=lambda x, residual, weight: (*_exact_norm(x + residual, weight), x + residual),
        plain=lambda x, residual, weight: (*_plain_norm(x + residual, weight), x + residual),
        fused=lambda x, residual, weight, emulate: add_rms_norm(
            x, residual, weight=weight, eps=EPS, emulate=emulate),
        traffic=_streams(4, 4), gradient_names=("x", "residual", "weight"),
        rivals=(Rival(name="F.rms_norm", way=_library_add_norm),)),
    Operation(
        name="rope",
        sizes=((1, 1, 1, 1, 2), (2, 3, 3, 1, 6), (1, 33, 4, 2, 64), (2, 7, 5, 5, 80),
               (1, 5, 7, 1, 128)),
        large=(2, 8192, 32, 8, 128), beyond=(1, 2**19 + 3, 32, 1, 128), row_axis=1,
        inputs=_rope_inputs, exact=_exact_rope,
        plain=lambda q, k, rotation: (apply_rope(q, rotation), apply_rope(k, rotation)),
        fused=lambda q, k, rotation, emulate: rope(q, k, rotation=rotation, emulate=emulate),
        traffic=_rope_traffic, gradient_names=("q", "k")),
    Operation(
        name="swiglu", sizes=((1, 1), (7, 33), (2, 3, 1000), (5, 4099)),
        large=(16384, 14336), beyond=(2**18 + 3, 8192), row_axis=0,
        inputs=_swiglu_inputs, exact=_plain_swiglu, plain=_plain_swiglu,
        fused=lambda gate, up, emulate: (swiglu(gate, up, emulate=emulate),),
        traffic=_streams(3, 5), gradient_names=("gate", "up")),
)

"""The contests of `trial.tuning`: every kernel that can be launched in several shapes.

The sizes are an 8B model's, in a training step or a decoding step.

Notebook 36.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from llama_from_scratch.kernels.attention import BACKWARD_RUNGS as ATTENTION_BACKWARD_RUNGS
from llama_from_scratch.kernels.attention import FORWARD_RUNGS as ATTENTION_RUNGS
from llama_from_scratch.kernels.attention import AttentionRule, AttentionRung, choose
from llama_from_scratch.kernels.attention import run_backward as run_attention_backward
from llama_from_scratch.kernels.attention import run_forward as run_attention
from llama_from_scratch.kernels.cross_entropy import CHUNK_BYTES, linear_cross_entropy
from llama_from_scratch.kernels.decode import run as run_decode
from llama_from_scratch.kernels.quantized import Weight
from llama_from_scratch.kernels.quantized import run as run_quantized
from llama_from_scratch.kernels.rms_norm import (
    BACKWARD_RUNGS,
    FORWARD_RUNGS,
    run_backward,
    run_forward,
    shape_for,
)
from llama_from_scratch.kernels.rope import run as run_rope
from llama_from_scratch.kernels.swiglu import RUNGS as SWIGLU_RUNGS
from llama_from_scratch.kernels.swiglu import run_forward as run_swiglu
from llama_from_scratch.kernels.trial.operation import Operation, Outputs
from llama_from_scratch.kernels.trial.operations import OPERATIONS
from llama_from_scratch.kernels.trial.pointwise import EPS
from llama_from_scratch.kernels.trial.tuning import Candidate, Contest


def _norm_forward(size: tuple[int, int]) -> Contest:
    norm = _operation("rms_norm")
    shape = shape_for("forward", n_columns=size[1], n_rows=size[0], dtype=torch.bfloat16)
    ways = {name: lambda x, weight, name=name: run_forward(
        x, weight, eps=EPS, rung=name)[:1] for name in FORWARD_RUNGS}
    return Contest(name=f"rms_norm forward {size[0]}x{size[1]}", size=size, default=shape.entry,
                   candidates=_candidates(ways), inputs=norm.inputs, exact=norm.exact,
                   plain=norm.plain)


def _gradients(formula: Callable[..., Outputs], *inputs: Tensor, n: int) -> Outputs:
    """Returns a formula's gradients by its first n inputs. The arriving one comes before them."""
    dy, *inputs = inputs
    leaves = [x.detach().requires_grad_() for x in inputs[:n]]
    return torch.autograd.grad(formula(*leaves, *inputs[n:]), leaves, [dy])


def _norm_backward(size: tuple[int, int]) -> Contest:
    norm = _operation("rms_norm")
    shape = shape_for("backward", n_columns=size[1], n_rows=size[0], dtype=torch.bfloat16)

    def prepare(dy: Tensor, x: Tensor, weight: Tensor) -> Outputs:
        return dy, x, weight, run_forward(x, weight, eps=EPS)[2]

    def fused(dy: Tensor, x: Tensor, weight: Tensor, inverse_size: Tensor, *, rung: str) -> Outputs:
        return run_backward(dy, x, weight=weight, inverse_size=inverse_size, rung=rung)

    return Contest(
        name=f"rms_norm backward {size[0]}x{size[1]}", size=size, default=shape.entry,
        candidates=_candidates({name: partial(fused, rung=name) for name in BACKWARD_RUNGS}),
        inputs=lambda size, draw: (draw(*size), *norm.inputs(size, draw)), prepare=prepare,
        exact=partial(_gradients, norm.exact, n=2), plain=partial(_gradients, norm.plain, n=2),
        is_gradient=True)


def _swiglu_forward(size: tuple[int, int]) -> Contest:
    gated = _operation("swiglu")
    ways = {name: lambda gate, up, name=name: (run_swiglu(gate, up, rung=name),)
            for name in SWIGLU_RUNGS}
    return Contest(name=f"swiglu forward {size[0]}x{size[1]}", size=size, default="swiglu_forward",
                   candidates=_candidates(ways), inputs=gated.inputs, exact=gated.exact,
                   plain=gated.plain)


def _rope(size: tuple[int, ...]) -> Contest:
    turned = _operation("rope")
    ways = {"as in the table": lambda q, k, rotation: run_rope(q, k, rotation=rotation)}
    ways |= {f"{n} blocks per token": lambda q, k, rotation, n=n: run_rope(
        q, k, rotation=rotation, n_groups=n) for n in (1, 2, 4, 8)}
    return Contest(name=f"rope {'x'.join(map(str, size))}", size=size, default="as in the table",
                   candidates=_candidates(ways), inputs=turned.inputs, exact=turned.exact,
                   plain=turned.plain)


# Causal attention over all tokens, at the size (B, T, S, H, G, K).
ATTENTION_SIZE = (2, 8192, 8192, 32, 8, 128)
CAUSAL = AttentionRule(is_causal=True)


def _default_rung(direction: str, size: tuple[int, ...], device: torch.device) -> str:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)
    return choose(direction, dtype=torch.bfloat16, head_dim=size[-1],
                            capability=capability).rung.name


def _fast(rungs: Mapping[str, AttentionRung], default: str) -> list[str]:
    """Returns the rungs on tensor cores, and the default. A scalar rung would take minutes."""
    return [name for name, rung in rungs.items() if name == default or not rung.is_general]


def _attention_forward(size: tuple[int, ...], device: torch.device) -> Contest:
    causal = _operation("attention")
    default = _default_rung("forward", size, device)
    ways = {name: lambda q, k, v, name=name: run_attention(q, k, v, rule=CAUSAL, rung=name)[:1]
            for name in _fast(ATTENTION_RUNGS, default)}
    return Contest(
        name=f"attention forward {'x'.join(map(str, size))}", size=size, default=default,
        candidates=_candidates(ways),
        inputs=causal.inputs, exact=causal.exact, plain=causal.plain, fits_cache=True,
        checked=(1, 1024, 1024, *size[3:]))


def _attention_backward(size: tuple[int, ...], device: torch.device) -> Contest:
    causal = _operation("attention")

    def prepare(d_out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Outputs:
        return d_out, q, k, v, *run_attention(q, k, v, rule=CAUSAL)

    default = _default_rung("backward", size, device)
    ways = {name: lambda d_out, q, k, v, out, lse, name=name: run_attention_backward(
        d_out, q, k, v, out=out, lse=lse, rule=CAUSAL, rung=name)
        for name in _fast(ATTENTION_BACKWARD_RUNGS, default)}

    def inputs(size: tuple[int, ...], draw: Callable[..., Tensor]) -> Outputs:
        B, T, _, H, _, K = size
        return draw(B, T, H, K), *causal.inputs(size, draw)

    return Contest(
        name=f"attention backward {'x'.join(map(str, size))}", size=size, default=default,
        candidates=_candidates(ways), inputs=inputs, prepare=prepare,
        exact=partial(_gradients, causal.exact, n=3),
        plain=partial(_gradients, causal.plain, n=3), is_gradient=True, fits_cache=True,
        checked=(1, 1024, 1024, *size[3:]))


def _loss(size: tuple[int, int, int]) -> Contest:
    loss = _operation("linear_cross_entropy")

    def fused(x: Tensor, weight: Tensor, targets: Tensor, *, chunk_bytes: int) -> Outputs:
        leaves = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
        return torch.autograd.grad(linear_cross_entropy(
            *leaves, targets, chunk_bytes=chunk_bytes, emulate=not x.is_cuda), leaves)

    def gradients(x: Tensor, weight: Tensor, targets: Tensor) -> Outputs:
        one = torch.ones((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        return _gradients(loss.exact, one, x, weight, targets, n=2)

    sizes = (CHUNK_BYTES // 4, CHUNK_BYTES // 2, CHUNK_BYTES, 2 * CHUNK_BYTES)
    return Contest(
        name=f"linear_cross_entropy {'x'.join(map(str, size))}", size=size,
        default=f"chunks of {CHUNK_BYTES >> 20} MiB", inputs=loss.inputs, exact=gradients,
        plain=gradients, is_gradient=True, fits_cache=True, checked=(512, *size[1:]),
        candidates=_candidates({f"chunks of {n >> 20} MiB": partial(fused, chunk_bytes=n)
                                for n in sizes}))


def _quantized(name: str, size: tuple[int, int, int]) -> Contest:
    """Returns the contest of one row of x with a weight of 8 or 4 bits: the warps per block."""
    product = _operation(name)

    def fused(x: Tensor, stored: Tensor, scale: Tensor, *, n_warps: int | None) -> Outputs:
        return tuple(run_quantized(x, [Weight(stored=stored, scale=scale)],
                                   n_warps=n_warps))

    ways = {"as in the table": partial(fused, n_warps=None)}
    ways |= {f"{n} warps": partial(fused, n_warps=n) for n in (2, 4, 8)}
    return Contest(name=f"{name} {'x'.join(map(str, size))}", size=size,
                   default="as in the table", candidates=_candidates(ways),
                   inputs=product.inputs, exact=product.exact, plain=product.plain)


def _decode(size: tuple[int, ...]) -> Contest:
    """Returns the contest of one token per sequence: into how many parts its keys are divided."""
    decode = _operation("decode_attention")

    def fused(
        q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, *, n_splits: int | None
    ) -> Outputs:
        return (run_decode(q, keys, values, lengths=lengths, n_splits=n_splits),)

    ways = {"as in the table": partial(fused, n_splits=None)}
    ways |= {f"{n} splits": partial(fused, n_splits=n) for n in (1, 4, 16, 64)}
    return Contest(name=f"decode_attention {'x'.join(map(str, size))}", size=size,
                   default="as in the table", candidates=_candidates(ways),
                   inputs=decode.inputs, exact=decode.exact, plain=decode.plain)


def _operation(name: str) -> Operation:
    return next(each for each in OPERATIONS if each.name == name)


def _candidates(ways: dict[str, Callable[..., Outputs]]) -> tuple[Candidate, ...]:
    return tuple(Candidate(name=name, way=way) for name, way in ways.items())


def contests(device: torch.device) -> list[Contest]:
    """Returns all contests, at sizes of training and of a decoding step, for this device."""
    return [
        _attention_forward(ATTENTION_SIZE, device), _attention_backward(ATTENTION_SIZE, device),
        _decode((32, 8192, 32, 8, 128)), _decode((1, 32768, 32, 8, 128)),
        _quantized("int8_linear", (1, 14336, 4096)), _quantized("int8_linear", (1, 4096, 14336)),
        _quantized("int4_linear", (1, 14336, 4096)), _quantized("int4_linear", (1, 4096, 14336)),
        _norm_forward((16384, 4096)), _norm_forward((16, 4096)), _norm_backward((16384, 4096)),
        _swiglu_forward((16384, 14336)), _rope((2, 8192, 32, 8, 128)), _rope((16, 1, 32, 8, 128)),
        _loss((8192, 4096, 128256)),
    ]

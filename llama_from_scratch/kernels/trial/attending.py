"""Attention as operations: over all tokens in training, and of one token with a cache in decoding.

Letters: B sequences, T queries, S keys, H query heads, G key/value heads, K their width. Every
backend of PyTorch's own attention is forced by name, because PyTorch does not always choose the
fastest one. Operations are counted as in the papers of FlashAttention: 4 B H T S K for both
products forward, half of it under a causal mask, and 2.5 times as many backward, which computes the
scores a second time.

Notebooks 33 and 35.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from llama_from_scratch.kernels.attention import (
    BACKWARD_RUNGS,
    FORWARD_RUNGS,
    AttentionRule,
    attention,
    choose,
    run_backward,
    run_forward,
)
from llama_from_scratch.kernels.decode import decode_attention
from llama_from_scratch.kernels.trial.operation import Operation, Outputs, Rival
from llama_from_scratch.model.mask import Tokens, Visible

BACKENDS = {"flash SDPA": SDPBackend.FLASH_ATTENTION, "cuDNN SDPA": SDPBackend.CUDNN_ATTENTION,
            "efficient SDPA, keys repeated": SDPBackend.EFFICIENT_ATTENTION}
RAGGED_BELOW = 1024   # shorter caches have sequences of different lengths


def _attended(q: Tensor, k: Tensor, v: Tensor, is_visible: Tensor) -> Tensor:
    """Returns the formula in the inputs' dtype, with the softmax in fp32 or fp64.

    is_visible: (B or 1, T, S).
    """
    grouped = q.unflatten(2, (k.shape[2], -1))
    scores = torch.einsum("btgnk,bsgk->bgnts", grouped, k) * q.shape[3]**-0.5
    wide = scores if scores.dtype == torch.float64 else scores.float()
    hidden = wide.masked_fill(~is_visible[:, None, None], float("-inf"))
    return torch.einsum("bgnts,bsgk->btgnk", hidden.softmax(-1).to(q.dtype), v).flatten(2, 3)


# --- all tokens at once ---------------------------------------------------------------------------


def _inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    B, T, S, H, G, K = size
    return draw(B, T, H, K), draw(B, S, G, K), draw(B, S, G, K)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Outputs:
    T, S = q.shape[1], k.shape[1]
    is_visible = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return (_attended(q, k, v, is_visible[None]),)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, *, emulate: bool, is_deterministic: bool = False
) -> Outputs:
    T, S = q.shape[1], k.shape[1]
    tokens = Tokens(positions=torch.arange(S, device=q.device)[None], documents=None, is_plain=True)
    visible = Visible(tokens=tokens, n_queries=T, chunk_size=None)
    return (attention(q, k, v, visible=visible, is_deterministic=is_deterministic,
                      emulate=emulate),)


class _ByRung(torch.autograd.Function):
    """Attention by one rung in both directions."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, rung: str) -> Tensor:
        out, lse = run_forward(q, k, v, rule=AttentionRule(is_causal=True), rung=rung)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.rung = rung
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        return *run_backward(d_out, q, k, v, out=out, lse=lse, rule=AttentionRule(is_causal=True),
                             rung=ctx.rung), None


def _fused_by(q: Tensor, k: Tensor, v: Tensor, *, rung: str, emulate: bool) -> Outputs:
    return (_ByRung.apply(q, k, v, rung),)


def _why_not(device: torch.device, *, rung: str) -> str:
    """Returns why a GPU cannot run a rung for heads of 128 in bf16, or ""."""
    if device.type != "cuda":
        return ""
    capability = torch.cuda.get_device_capability(device)
    try:
        for direction in ("forward", "backward"):
            choose(direction, dtype=torch.bfloat16, head_dim=128, capability=capability, rung=rung)
    except ValueError as error:
        return str(error)
    return ""


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, backend: SDPBackend, is_causal: bool) -> Outputs:
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    if backend == SDPBackend.EFFICIENT_ATTENTION:   # it takes as many key heads as query heads
        n = q.shape[2] // k.shape[2]
        heads_first[1:] = [x.repeat_interleave(n, dim=1) for x in heads_first[1:]]
    with sdpa_kernel([backend]):
        out = F.scaled_dot_product_attention(*heads_first, is_causal=is_causal, enable_gqa=True)
    return (out.transpose(1, 2),)


def _traffic(size: Sequence[int]) -> tuple[int, int]:
    B, T, S, H, G, K = size
    queries, keys = 2 * B * T * H * K, 2 * B * S * G * K
    # In: q, k, v; out: the result. Backward also reads it and its gradient, and writes three.
    return 2 * queries + 2 * keys, 4 * queries + 4 * keys


def _operations(size: Sequence[int]) -> tuple[float, float]:
    B, T, S, H, _, K = size
    forward = 4 * B * H * T * S * K / 2
    return forward, 2.5 * forward


ATTENTION = Operation(
    name="attention",
    # With one key, gradients are exactly 0 and PyTorch finds 0, which leaves no room for rounding.
    sizes=((1, 1, 2, 1, 1, 64), (2, 33, 77, 3, 1, 64), (1, 65, 65, 4, 2, 128),
           (1, 70, 150, 8, 1, 128), (2, 5, 9, 5, 5, 80)),
    large=(2, 8192, 8192, 32, 8, 128), checked=(1, 2048, 2048, 32, 8, 128), beyond=None,
    inputs=_inputs, exact=_causal, plain=_causal, fused=_fused, traffic=_traffic,
    operations=_operations, gradient_names=("q", "k", "v"), row_axis=0, part="attention",
    # The fast backward pass adds d_q in the order in which blocks finish.
    is_deterministic=False,
    rivals=tuple(Rival(name=name, way=partial(_sdpa, backend=backend, is_causal=True))
                 for name, backend in BACKENDS.items()))

ATTENTION_64 = Operation(**{
    **vars(ATTENTION), "name": "attention, heads of 64", "sizes": (),
    "large": (2, 8192, 8192, 32, 8, 64), "checked": (1, 2048, 2048, 32, 8, 64)})

DETERMINISTIC = Operation(**{
    **vars(ATTENTION), "name": "attention, deterministic", "sizes": (), "rivals": (),
    "dtypes": (torch.bfloat16,), "fused": partial(_fused, is_deterministic=True),
    "is_deterministic": True})

def _sizes(name: str) -> tuple[tuple[int, ...], ...]:
    """Returns the awkward sizes whose heads a rung takes in both directions."""
    rungs = FORWARD_RUNGS[name], BACKWARD_RUNGS[name]
    return tuple(size for size in ATTENTION.sizes
                 if all(rung.is_general or size[-1] in rung.kernels for rung in rungs))


# Each rung with both directions, next to what `attention` chooses. The scalar one has less to do.
BY_RUNG = tuple(
    Operation(**{**vars(ATTENTION), "name": f"attention by the {name} rung", "sizes": _sizes(name),
                 "rivals": (), "dtypes": (torch.bfloat16,),
                 "large": (1, 2048, 2048, 32, 8, 128) if rung.is_general else ATTENTION.large,
                 "fused": partial(_fused_by, rung=name), "why_not": partial(_why_not, rung=name)})
    for name, rung in FORWARD_RUNGS.items() if name in BACKWARD_RUNGS)


# --- one token with a cache -----------------------------------------------------------------------


def _decode_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    B, S, H, G, K = size
    q, keys, values = draw(B, 1, H, K), draw(B, S, G, K), draw(B, S, G, K)
    shorter = torch.arange(B, device=q.device) * 7 % S if S < RAGGED_BELOW else 0
    lengths = torch.full((B,), S, device=q.device) - shorter
    return q, keys, values, lengths.int()


def _up_to_length(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Outputs:
    is_visible = torch.arange(keys.shape[1], device=q.device) < lengths[:, None]
    return (_attended(q, keys, values, is_visible[:, None]),)


def _decode_traffic(size: Sequence[int]) -> tuple[int, int]:
    B, S, H, G, K = size
    return 2 * (2 * B * S * G * K + 2 * B * H * K), 0


def _whole_cache(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, *, backend: SDPBackend
) -> Outputs:
    """Returns PyTorch's attention of one token with a full cache: its path for decoding."""
    return _sdpa(q, keys, values, backend=backend, is_causal=False)


DECODE = Operation(
    name="decode_attention",
    sizes=((1, 1, 1, 1, 64), (3, 70, 7, 1, 128), (2, 129, 5, 5, 64), (2, 300, 16, 2, 128)),
    large=(32, 8192, 32, 8, 128), beyond=None, inputs=_decode_inputs, exact=_up_to_length,
    plain=_up_to_length, traffic=_decode_traffic, gradient_names=(), row_axis=0, part="decode",
    fused=lambda q, keys, values, lengths, emulate: (
        decode_attention(q, keys, values, lengths=lengths, emulate=emulate),),
    rivals=tuple(Rival(name=name, way=partial(_whole_cache, backend=backend))
                 for name, backend in BACKENDS.items()))

DECODE_LONG = Operation(**{
    **vars(DECODE), "name": "decode_attention of one sequence", "sizes": (),
    "large": (1, 32768, 32, 8, 128)})

ATTENDING = (ATTENTION, ATTENTION_64, DETERMINISTIC, *BY_RUNG, DECODE, DECODE_LONG)

"""Launches of the attention kernels for tensor cores on the emulator, and what they must give.

For tests/kernels/test_attention_mma.py and test_attention_hopper.py, which plant bugs in the
kernels. The entry points are launched here directly, so that nothing of `kernels.attention` can
hide a fault of a kernel.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from changed_kernels import together
from torch import Tensor

from llama_from_scratch.kernels.emulator import machine
from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap
from llama_from_scratch.kernels.trial.tolerance import judge

GAP = 3   # tokens of a cache after the keys, which a kernel must not read


@dataclass(frozen=True)
class Size:
    """The sizes of one problem, as in shapes.py. n_documents: of a batch's tokens; 0: no groups."""

    B: int = 1
    T: int = 64
    S: int = 64
    H: int = 1
    G: int = 1
    K: int = 64
    is_causal: bool = True
    n_documents: int = 0


@dataclass(frozen=True)
class Problem:
    """Inputs, and every output twice: exact in float64, and as eager PyTorch computes it."""

    size: Size
    inputs: dict[str, Tensor]          # q, k, v, d_out
    groups: Tensor | None
    exact: dict[str, Tensor]           # out, lse, d_q, d_k, d_v, delta
    eager: dict[str, Tensor]


def _plain(size: Size, inputs: dict[str, Tensor], sees: Tensor) -> dict[str, Tensor]:
    """Attention and its gradients in the inputs' dtype; rows that see nothing give 0."""
    q, k, v = (inputs[name].detach().clone().requires_grad_() for name in "qkv")
    keys, values = (x.repeat_interleave(size.H // size.G, 2) for x in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, keys) * size.K**-0.5
    scores = scores.masked_fill(~sees[:, None], -math.inf)
    weights = torch.where(sees[:, None], scores.softmax(-1), 0)
    out = torch.einsum("bhts,bshk->bthk", weights, values)
    out.backward(inputs["d_out"])
    wide = scores.detach().float() if scores.dtype != torch.float64 else scores.detach()
    delta = (out.detach().double() * inputs["d_out"].double()).sum(-1).transpose(1, 2)
    return {"out": out.detach(), "lse": wide.logsumexp(-1), "d_q": q.grad, "d_k": k.grad,
            "d_v": v.grad, "delta": delta}


@cache
def problem(size: Size, real: torch.dtype = torch.bfloat16) -> Problem:
    """Random tensors of these sizes; keys and values are views of a longer cache."""
    torch.manual_seed(1)
    B, T, S, H, G, K = size.B, size.T, size.S, size.H, size.G, size.K
    cache = torch.randn(2, B, S + GAP, G, K).to(real)
    inputs = {"q": torch.randn(B, T, H, K).to(real), "k": cache[0][:, :S], "v": cache[1][:, :S],
              "d_out": torch.randn(B, T, H, K).to(real)}
    sees = torch.ones(T, S, dtype=torch.bool)
    if size.is_causal:
        sees = sees.tril(S - T)
    sees, groups = sees.expand(B, T, S), None
    if size.n_documents:
        # Documents of different lengths, other ones in each sequence.
        groups = torch.stack([(torch.arange(S) * size.n_documents + 7 * b) // S + 10 * b
                              for b in range(B)])
        of_queries = torch.nn.functional.pad(groups, (max(T - S, 0), 0), value=-99)[:, -T:]
        sees = sees & (of_queries[:, :, None] == groups[:, None])
    exact = _plain(size, {name: x.double() for name, x in inputs.items()}, sees)
    eager = _plain(size, inputs, sees)
    # A row that sees nothing has no softmax; its gradient is 0.
    for found in (exact, eager):
        for name in ("d_q", "d_k", "d_v"):
            found[name] = found[name].nan_to_num(nan=0.0)
    eager["lse"] = _plain(size, {name: x.float() for name, x in inputs.items()}, sees)["lse"]
    return Problem(size=size, inputs=inputs, groups=groups, exact=exact, eager=eager)


def _ends_of_groups(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last token with each token's group, (B, S) in int32."""
    same = groups[:, :, None] == groups[:, None]
    positions = torch.arange(groups.shape[1])
    first = torch.where(same, positions, groups.shape[1]).amin(-1)
    last = torch.where(same, positions, -1).amax(-1)
    return first.int(), last.int()


def _span(x: Tensor) -> Tensor:
    """The numbers between a view's first and last, as one row."""
    n = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
    return x.as_strided((n,), (1,), x.storage_offset())


def _nan(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.full(shape or like.shape, math.nan, dtype=dtype or like.dtype)


# How each entry point is launched: the parts of shared memory and of the grid that are sizes here.
MMA_TILE, HOPPER_TILE, HOPPER_QUERIES = 64, 128, 64


def run_mma(
    source: Source, entry: str, given: Problem, *, order: str = "forward", seed: int = 0
) -> dict[str, Tensor]:
    """The outputs of one entry point of attention_mma.cu, by name."""
    s, x = given.size, given.inputs
    B, T, S, H, G, K = s.B, s.T, s.S, s.H, s.G, s.K
    first, last = (None, None) if given.groups is None else _ends_of_groups(given.groups)
    sizes = [T, S, H, G, *x["q"].stride()[:3], *x["k"].stride()[:3],
             S if given.groups is not None else 0, int(s.is_causal), K**-0.5]
    tensors = [_span(x["q"]), _span(x["k"]), _span(x["v"])]
    sums = [x["d_out"], _float(given.exact["lse"]), _float(given.exact["delta"])]
    real = Program(source=source, real=x["q"].dtype)
    n_queries = 64 if K == 64 else 32
    d_k, d_v = (_nan(x["q"], B, S, G, K) for _ in "kv")
    backward_bytes = (2 * K * (2 * MMA_TILE + 4 * n_queries) + MMA_TILE * (n_queries + 8) * 2
                      + 4 * n_queries * 4)
    if "forward" in entry:
        out = {"out": _nan(x["q"]), "lse": _nan(x["q"], B, H, T, dtype=torch.float32)}
        args = [*tensors, *out.values(), given.groups, first, *sizes]
        grid, shared_bytes = (-(-T // MMA_TILE), H, B), 2 * K * 5 * MMA_TILE
    elif "backward_q" in entry:
        out = {"d_q": _nan(x["q"])}
        args = [*tensors, *sums, *out.values(), given.groups, first, *sizes]
        grid, shared_bytes = (-(-T // MMA_TILE), H, B), 2 * K * 6 * MMA_TILE
    else:
        out = {} if "backward_kv" in entry else {"d_q": torch.zeros(B, T, H, K)}
        out |= {"d_k": d_k, "d_v": d_v}
        args = [*tensors, *sums, *out.values(), given.groups, last, *sizes]
        grid, shared_bytes = (-(-S // MMA_TILE), G, B), backward_bytes
    machine.load(real, kind="checked").launch(entry, args, grid=grid, block=128, order=order,
                                              shared_bytes=shared_bytes, seed=seed)
    return out


def run_hopper(
    source: Source, entry: str, given: Problem, *, order: str = "forward", seed: int = 0
) -> dict[str, Tensor]:
    """The outputs of one entry point of attention_hopper.cu, by name."""
    s, x = given.size, given.inputs
    B, T, S, H, G, K = s.B, s.T, s.S, s.H, s.G, s.K
    first, last = (None, None) if given.groups is None else _ends_of_groups(given.groups)
    sizes = [T, S, H, G, S if given.groups is not None else 0, int(s.is_causal), K**-0.5]
    tiles = lambda name, rows: TensorMap(tensor=x[name], box=(1, rows, 1, 64))
    keys = [tiles("k", HOPPER_TILE), tiles("v", HOPPER_TILE)]
    if "forward" in entry:
        out = {"out": _nan(x["q"]), "lse": _nan(x["q"], B, H, T, dtype=torch.float32)}
        args = [tiles("q", HOPPER_TILE), *keys, *out.values(), given.groups, first, *sizes]
        grid, shared_bytes = (-(-T // HOPPER_TILE), H, B), 2 * K * 5 * HOPPER_TILE
    else:
        out = {"d_q": torch.zeros(B, T, H, K)} | {name: _nan(x["q"], B, S, G, K)
                                                  for name in ("d_k", "d_v")}
        args = [tiles("q", HOPPER_QUERIES), *keys, tiles("d_out", HOPPER_QUERIES),
                _float(given.exact["lse"]), _float(given.exact["delta"]), *out.values(),
                given.groups, last, *sizes]
        grid = (-(-S // HOPPER_TILE), G, B)
        shared_bytes = 2 * K * (2 * HOPPER_TILE + 4 * HOPPER_QUERIES)
        shared_bytes += 2 * HOPPER_TILE * HOPPER_QUERIES * 2
    program = Program(source=source, real=x["q"].dtype)
    machine.load(program, kind="checked").launch(entry, args, grid=grid, block=384, order=order,
                                                 shared_bytes=shared_bytes, seed=seed)
    return out


def _float(x: Tensor) -> Tensor:
    return x.float().contiguous()


def complaint(given: Problem, found: dict[str, Tensor]) -> str:
    """Which output is wrong and how, or "". The fp32 sums of d_q are judged as rounded once."""
    for name, result in found.items():
        is_gradient = name.startswith("d_")
        result = result.to(given.inputs["q"].dtype) if is_gradient else result
        verdict = judge(result, exact=given.exact[name], eager=given.eager[name],
                        is_gradient=is_gradient)
        if not verdict.is_ok:
            return f"{name}: {verdict}"
    return ""


# ---- planted bugs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bug:
    """One change to a kernel that is right, and the orders that must find it: all others must not.

    entry: what follows "attention_mma_" or "attention_hopper_". says: a part of a fault's message.
    """

    entry: str
    size: Size
    old: str
    new: str
    by: str
    says: str = ""


EVERY_ORDER = " ".join(machine.ORDERS)


def planted(source: Source, bugs: dict[str, Bug]) -> dict[str, tuple[Program, str]]:
    """For each bug, the program that has it, and the entry point in which it is."""
    return together({name: (source.replace(bug.old, bug.new), f"{source.name}_{bug.entry}")
                     for name, bug in bugs.items()})


SEEDS = {"forward": (0,), "reverse": (0,), "random": (1, 2, 3, 4)}


def caught_by(run, planted: tuple[Program, str], bug: Bug) -> dict[str, str]:
    """What each order finds: a fault's message, a wrong output, or "". Random has four tries."""
    given, (program, entry) = problem(bug.size), planted

    def one(order: str, seed: int) -> str:
        try:
            return complaint(given, run(program.source, entry, given, order=order, seed=seed))
        except KernelFault as fault:
            return str(fault)

    return {order: next(filter(None, (one(order, seed) for seed in SEEDS[order])), "")
            for order in machine.ORDERS}

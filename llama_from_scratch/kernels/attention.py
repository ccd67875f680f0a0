"""Attention as one kernel per direction, without ever storing the scores; forward and backward.

Plain attention writes T x S scores per head. Here a softmax is summed in passing, tile by tile, and
only its logarithm per query is kept, from which backward computes the probabilities again. Masks
are rules: order, documents and chunks are compared inside the kernel, and tiles that no query sees
are never read. A rung is a kernel file; the fastest one that takes the tensors runs.

Notebook 33. The plain code is `model.attention`, notebook 13. Sources: Milakov and Gimelshein,
Online normalizer calculation for softmax, arXiv:1805.02867; Dao et al., FlashAttention,
arXiv:2205.14135; Dao, FlashAttention-2, arXiv:2307.08691.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.source import REAL_NAMES
from llama_from_scratch.kernels.machinery.tensor_map import ROW_BYTES, TensorMap
from llama_from_scratch.kernels.machinery.tensors import (
    aligned,
    require_cuda,
    span,
    with_whole_rows,
)
from llama_from_scratch.model.mask import Everything, GivenMask, Visible

NAIVE, THREADS, ROW_PADDING = 32, 128, 4   # as in attention.cu and attention.cuh
STRIPES, LANES = 16, 8
TENSOR_CORE_DTYPES, FAST_WIDTHS = (torch.bfloat16, torch.float16), (64, 128)
# The emulator runs instructions of every GPU. What it chooses by itself is what this one would.
EMULATED_CAPABILITY = (8, 0)


@record
class AttentionRule:
    """Which keys a query sees, as a kernel takes it. See `model.mask.TokenGroups`.

    mask: True where a query sees a key; a kernel takes it together with no groups.
    """

    groups: Int[Tensor, "#B S"] | None = None
    first: Int[Tensor, "#B S"] | None = None
    last: Int[Tensor, "#B S"] | None = None
    mask: Bool[Tensor, "#B 1 T S"] | None = None
    is_causal: bool = False

    @property
    def batch_step(self) -> int:
        """The distance between two sequences' groups, or masks, in elements; 0 if they share."""
        of_all = self.groups if self.mask is None else self.mask
        return 0 if of_all is None or of_all.shape[0] == 1 else of_all[0].numel()


@record
class AttentionKernel:
    """One entry point, and how a launch divides its work among blocks.

    queries, keys: the sizes of a tile. is_by_keys: whether a block keeps a tile of keys and visits
    tiles of queries; otherwise it keeps queries and visits keys.
    shared_bytes: of a block; a double program takes twice as many.
    writes: the outputs that it has as arguments, in this order.
    adds_d_q: whether it adds to d_q, which is then fp32 and zero before the launch.
    """

    entry: str
    writes: tuple[str, ...]
    queries: int
    keys: int
    threads: int
    shared_bytes: int
    is_by_keys: bool = False
    adds_d_q: bool = False


def pointers(rows: Sequence[Tensor], kernel: AttentionKernel) -> list[Tensor]:
    """Returns what most rungs take for q, k, v (and d_out): the memory of each."""
    return [span(x) for x in rows]


def tensor_maps(rows: Sequence[Tensor], kernel: AttentionKernel) -> list[TensorMap]:
    """Returns what the Hopper rungs take: the tensors for the TMA, in boxes of a tile's rows."""
    sizes = (kernel.queries, kernel.keys, kernel.keys, kernel.queries)
    width = ROW_BYTES // rows[0].dtype.itemsize
    return [TensorMap(tensor=x.detach(), box=(1, n_rows, 1, width))
            for x, n_rows in zip(rows, sizes, strict=False)]


@record
class AttentionRung:
    """A kernel file of one direction, and the tensors that it takes.

    kernels: by the width of the heads, the entry points to launch one after the other.
    is_general: whether it takes every width up to the largest, and masks of any pattern. Its entry
    points have two parameters more, the mask and the width.
    oldest: the compute capability of the oldest GPU that it runs on. is_only_there: whether it runs
    on no newer GPU either.
    is_deterministic: whether its results are the same bits on every run.
    inputs: returns what an entry point takes for q, k, v, and in backward d_out.
    takes_strides: whether it also takes their strides; a tensor map contains them.
    """

    name: str
    source: str
    dtypes: tuple[torch.dtype, ...]
    kernels: dict[int, tuple[AttentionKernel, ...]]
    is_general: bool = False
    oldest: tuple[int, int] = (7, 5)
    is_only_there: bool = False
    is_deterministic: bool = True
    inputs: Callable[[Sequence[Tensor], AttentionKernel], list] = pointers
    takes_strides: bool = True

    def kernels_for(self, head_dim: int) -> tuple[AttentionKernel, ...]:
        """Returns the entry points for heads of this width, which the rung must take."""
        return self.kernels[min(width for width in self.kernels if width >= head_dim)]


def _scalar_kernel(
    entry: str, width: int, *, rows: int, columns: int, tiles: tuple[int, int],
    writes: tuple[str, ...], is_by_keys: bool = False,
) -> AttentionKernel:
    """Returns a scalar kernel whose threads own `rows` x `columns` scores of a tile.

    tiles: how many tiles of the rows, and how many of the columns, are in shared memory.
    """
    n_rows, n_columns = STRIPES * rows, LANES * columns
    numbers = (tiles[0] * n_rows + tiles[1] * n_columns) * (width + ROW_PADDING)
    numbers += n_rows * (n_columns + ROW_PADDING)
    queries, keys = (n_columns, n_rows) if is_by_keys else (n_rows, n_columns)
    return AttentionKernel(entry=entry, writes=writes, queries=queries, keys=keys, threads=THREADS,
                           shared_bytes=4 * numbers, is_by_keys=is_by_keys)


def _scalar_backward(
    width: int, *, by_keys: tuple[int, int], by_queries: tuple[int, int]
) -> tuple[AttentionKernel, ...]:
    return (
        _scalar_kernel("attention_backward_keys", width, rows=by_keys[0], columns=by_keys[1],
                       tiles=(2, 2), writes=("d_k", "d_v"), is_by_keys=True),
        _scalar_kernel("attention_backward_queries", width, rows=by_queries[0],
                       columns=by_queries[1], tiles=(2, 2), writes=("d_q",)))


def _scalar_forward(width: int, *, rows: int, columns: int) -> tuple[AttentionKernel, ...]:
    return (_scalar_kernel("attention_forward", width, rows=rows, columns=columns, tiles=(1, 1),
                           writes=("out", "lse")),)


def _mma_forward(width: int) -> tuple[AttentionKernel, ...]:
    """Returns the kernel of 4 warps with 16 queries each; two tiles of keys and of values."""
    return (AttentionKernel(
        entry=f"attention_mma_forward_{width}", writes=("out", "lse"), queries=64, keys=64,
        threads=128, shared_bytes=2 * width * (64 + 4 * 64)),)


def _mma_backward(width: int, *, is_deterministic: bool) -> tuple[AttentionKernel, ...]:
    """Returns the kernel that computes all gradients, or one for d_k and d_v and one for d_q."""
    queries = {64: 64, 128: 32}[width]
    shared_bytes = 2 * width * (2 * 64 + 4 * queries) + 2 * 64 * (queries + 8) + 4 * 4 * queries
    by_keys = partial(AttentionKernel, queries=queries, keys=64, threads=128,
                      shared_bytes=shared_bytes, is_by_keys=True)
    if not is_deterministic:
        return (by_keys(entry=f"attention_mma_backward_{width}", writes=("d_q", "d_k", "d_v"),
                        adds_d_q=True),)
    return (by_keys(entry=f"attention_mma_backward_kv_{width}", writes=("d_k", "d_v")),
            AttentionKernel(entry=f"attention_mma_backward_q_{width}", writes=("d_q",), queries=64,
                            keys=64, threads=128, shared_bytes=2 * width * (2 * 64 + 4 * 64)))


def _hopper_forward(width: int) -> tuple[AttentionKernel, ...]:
    return (AttentionKernel(
        entry=f"attention_hopper_forward_{width}", writes=("out", "lse"), queries=128, keys=128,
        threads=384, shared_bytes=2 * width * (128 + 4 * 128)),)


def _hopper_backward(width: int) -> tuple[AttentionKernel, ...]:
    """Returns the kernel of all gradients; K, V, two tiles of Q and dO, and two of dS."""
    return (AttentionKernel(
        entry=f"attention_hopper_backward_{width}", writes=("d_q", "d_k", "d_v"), queries=64,
        keys=128, threads=384, is_by_keys=True, adds_d_q=True,
        shared_bytes=2 * width * (2 * 128 + 4 * 64) + 2 * 2 * 128 * 64),)


def _ladder(*rungs: AttentionRung) -> dict[str, AttentionRung]:
    return {rung.name: rung for rung in rungs}


# From the naive one to the fast one.
FORWARD_RUNGS = _ladder(
    AttentionRung(
        name="naive", source="attention", dtypes=tuple(REAL_NAMES), is_general=True,
        kernels={256: (AttentionKernel(
            entry="attention_forward_1", writes=("out", "lse"), queries=NAIVE, keys=1,
            threads=NAIVE, shared_bytes=4 * 256 * NAIVE),)}),
    AttentionRung(
        name="scalar", source="attention", dtypes=tuple(REAL_NAMES), is_general=True,
        kernels={64: _scalar_forward(64, rows=4, columns=4),
                 128: _scalar_forward(128, rows=4, columns=4),
                 256: _scalar_forward(256, rows=2, columns=2)}),
    AttentionRung(
        name="mma", source="attention_mma", dtypes=TENSOR_CORE_DTYPES, oldest=(8, 0),
        kernels={width: _mma_forward(width) for width in FAST_WIDTHS}),
    AttentionRung(
        name="hopper", source="attention_hopper", dtypes=TENSOR_CORE_DTYPES, oldest=(9, 0),
        is_only_there=True, inputs=tensor_maps, takes_strides=False,
        kernels={width: _hopper_forward(width) for width in FAST_WIDTHS}),
)
BACKWARD_RUNGS = _ladder(
    AttentionRung(
        name="scalar", source="attention_backward", dtypes=tuple(REAL_NAMES), is_general=True,
        kernels={64: _scalar_backward(64, by_keys=(4, 2), by_queries=(4, 4)),
                 128: _scalar_backward(128, by_keys=(2, 2), by_queries=(2, 2)),
                 256: _scalar_backward(256, by_keys=(1, 1), by_queries=(1, 1))}),
    AttentionRung(
        name="mma_deterministic", source="attention_mma", dtypes=TENSOR_CORE_DTYPES, oldest=(8, 0),
        kernels={width: _mma_backward(width, is_deterministic=True) for width in FAST_WIDTHS}),
    AttentionRung(
        name="mma", source="attention_mma", dtypes=TENSOR_CORE_DTYPES, oldest=(8, 0),
        is_deterministic=False,
        kernels={width: _mma_backward(width, is_deterministic=False) for width in FAST_WIDTHS}),
    AttentionRung(
        name="hopper", source="attention_hopper", dtypes=TENSOR_CORE_DTYPES, oldest=(9, 0),
        is_only_there=True, is_deterministic=False, inputs=tensor_maps, takes_strides=False,
        kernels={width: _hopper_backward(width) for width in FAST_WIDTHS}),
)
LADDERS = {"forward": FORWARD_RUNGS, "backward": BACKWARD_RUNGS}


@record
class Choice:
    """The rung that runs, and why no faster one does, in words; "" if it is the fastest."""

    rung: AttentionRung
    reason: str


def choose(
    direction: str, *, dtype: torch.dtype, head_dim: int, has_mask: bool = False,
    is_deterministic: bool = False, capability: tuple[int, int] | None = None,
    rung: str | None = None,
) -> Choice:
    """Returns the fastest rung that takes such tensors, or the given `rung`.

    direction: "forward" or "backward". has_mask: whether the mask is a `GivenMask`. capability: of
    the GPU; None is the emulator, which runs every rung that it is asked for by name.
    Raises ValueError if no rung fits, or not the one asked for; then it names the one that does.
    """
    rungs = LADDERS[direction]
    asked = None if rung is None else rung_named(rung, rungs)
    is_named_on_emulator = capability is None and asked is not None
    problems = {name: _problem(each, dtype=dtype, head_dim=head_dim, has_mask=has_mask,
                               is_deterministic=is_deterministic,
                               capability=None if is_named_on_emulator and each is asked
                               else capability or EMULATED_CAPABILITY)
                for name, each in rungs.items()}
    fitting = [name for name, problem in problems.items() if not problem]
    if not fitting:
        raise ValueError(f"{problems['scalar']}, and no other rung takes this either. Use "
                         "model.attention.SoftmaxAttention")
    if asked is not None:
        if problems[rung]:
            raise ValueError(f"{problems[rung]}. Leave `rung` out, or ask for "
                             f"{fitting[-1]!r}, which takes these tensors")
        return Choice(rung=asked, reason="")
    fastest = fitting[-1]
    faster = list(rungs)[list(rungs).index(fastest) + 1:]
    reason = "; ".join(problems[name] for name in faster)
    return Choice(rung=rungs[fastest], reason=reason and f"{reason}: the {fastest} rung runs")


def _problem(
    rung: AttentionRung, *, dtype: torch.dtype, head_dim: int, has_mask: bool,
    is_deterministic: bool, capability: tuple[int, int] | None,
) -> str:
    """Returns why a rung does not take such tensors, or ""."""
    widths, widest = sorted(rung.kernels), max(rung.kernels)
    the_rung, (major, minor) = f"the {rung.name} rung", rung.oldest
    if dtype not in rung.dtypes:
        names = " or ".join(REAL_NAMES[each] for each in rung.dtypes)
        return f"{the_rung} computes in {names}; got {REAL_NAMES[dtype]}"
    if rung.is_general and head_dim > widest:
        return f"{the_rung} takes heads of width 1 to {widest}; got {head_dim}"
    if not rung.is_general and head_dim not in rung.kernels:
        return f"{the_rung} needs head width {' or '.join(map(str, widths))}; got {head_dim}"
    if has_mask and not rung.is_general:
        return f"{the_rung} knows order, documents and chunks; got a GivenMask"
    if is_deterministic and not rung.is_deterministic:
        return f"{the_rung} adds d_q in an order that differs from run to run"
    if capability is None:
        return ""
    if capability < rung.oldest or (rung.is_only_there and capability != rung.oldest):
        newer = "" if rung.is_only_there else " or newer"
        return (f"{the_rung} needs compute capability {major}.{minor}{newer}; this GPU has "
                f"{capability[0]}.{capability[1]}")
    return ""


# --- the functions --------------------------------------------------------------------------------


def attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], v: Float[Tensor, "B S G K"], *,
    visible: Visible | GivenMask | Everything, is_deterministic: bool = False,
    emulate: bool = False,
) -> Float[Tensor, "B T H K"]:
    """Returns softmax(q k^T / sqrt(K)) v per head, over the visible keys; the arithmetic is fp32.

    It equals `model.attention.SoftmaxAttention`, and is differentiable once. A query that sees no
    key gets 0, and no gradient passes through it; SoftmaxAttention gives NaN. k and v may be views
    of a longer cache. With `is_deterministic`, or PyTorch's use_deterministic_algorithms, the
    gradients are the same bits on every run. Raises ValueError for shapes, dtypes or devices that
    do not fit, for heads wider than 256, and for CPU tensors unless `emulate`.
    """
    return attention_with_lse(q, k, v, visible=visible, is_deterministic=is_deterministic,
                              emulate=emulate)[0]


def attention_with_lse(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], v: Float[Tensor, "B S G K"], *,
    visible: Visible | GivenMask | Everything, is_deterministic: bool = False,
    emulate: bool = False,
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B H T"]]:
    """Returns `attention` and the logarithm of each query's sum of exp(score), both differentiable.

    Two results over different keys can be joined with it. It is fp32 (fp64 for fp64), and -infinity
    for a query that sees no key.
    """
    require_cuda("attention", q, emulate=emulate)
    _check(q, k, v)
    rule = rule_for(visible, batch=q.shape[0], n_queries=q.shape[1], n_keys=k.shape[1])
    is_deterministic |= torch.are_deterministic_algorithms_enabled()
    return torch.ops.llama_from_scratch.attention(
        q, k, v, rule.groups, rule.first, rule.last, rule.mask, rule.is_causal,
        is_deterministic)


def has_fast_kernel(q: Tensor) -> bool:
    """Returns whether a tensor-core kernel takes such queries, in both directions."""
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else None
    return _has_fast_kernel(q.dtype, q.shape[-1], capability)


@functools.cache
def _has_fast_kernel(
    dtype: torch.dtype, head_dim: int, capability: tuple[int, int] | None
) -> bool:
    return all(choose(direction, dtype=dtype, head_dim=head_dim,
                      capability=capability).rung.name != "scalar" for direction in LADDERS)


def rule_for(
    visible: Visible | GivenMask | Everything, *, batch: int, n_queries: int, n_keys: int
) -> AttentionRule:
    """Returns a mask as the kernels take it. Its groups are computed once and kept in `visible`.

    Raises ValueError if it is for another number of queries, keys or sequences.
    """
    if isinstance(visible, Everything):
        return AttentionRule()
    if isinstance(visible, GivenMask):
        mask = visible.mask
        if (mask.ndim != 4 or mask.dtype != torch.bool or mask.shape[0] not in (1, batch)
                or mask.shape[1] != 1 or mask.shape[2] not in (1, n_queries)
                or mask.shape[3] != n_keys):
            raise ValueError(f"a mask must be bool and ({batch} or 1, 1, {n_queries}, {n_keys}), "
                             f"for {n_queries} queries and {n_keys} keys; got {mask.dtype} "
                             f"{tuple(mask.shape)}")
        return AttentionRule(mask=mask.expand(-1, -1, n_queries, -1).contiguous())
    groups, n_rows = visible.groups, visible.tokens.positions.shape[0]
    if visible.shape != (n_queries, n_keys) or n_rows not in (1, batch):
        raise ValueError(f"`visible` must be for {n_queries} queries and {n_keys} keys of {batch} "
                         f"sequences (or 1 for all); got {visible.shape} of {n_rows}")
    if groups is None:
        return AttentionRule(is_causal=True)
    return AttentionRule(groups=groups.number, first=groups.first, last=groups.last, is_causal=True)


def run_forward(
    q: Tensor, k: Tensor, v: Tensor, *, rule: AttentionRule, rung: str | None = None
) -> tuple[Tensor, Tensor]:
    """Returns (out, lse), by the fastest rung that takes the tensors, or by `rung`.

    Autograd does not record it. Keys may be fewer than queries: a causal query i sees key j if
    j <= i + S - T, so the first T - S queries see nothing.
    """
    chosen = _chosen("forward", q, rule, rung=rung).rung
    B, T, H, _ = q.shape
    out = q.new_empty(q.shape)
    lse = q.new_empty((B, H, T), dtype=program(chosen.source, q.dtype).accum)
    if not k.shape[1]:
        return out.zero_(), lse.fill_(float("-inf"))
    if q.numel():
        _launch(chosen, (q, k, v), rule, written={"out": out, "lse": lse})
    return out, lse


def run_backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *, out: Tensor, lse: Tensor,
    rule: AttentionRule, d_lse: Tensor | None = None, is_deterministic: bool = False,
    rung: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (d_q, d_k, d_v), given what `run_forward` returned, by the fastest rung or `rung`.

    d_lse: the gradient that arrives at lse, if any.
    """
    chosen = _chosen("backward", q, rule, rung=rung, is_deterministic=is_deterministic).rung
    d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
    if not q.numel() or not k.numel():
        return d_q.zero_(), d_k.zero_(), d_v.zero_()
    d_out, lse, delta = aligned(d_out), aligned(lse), torch.empty_like(lse)
    (_, T, H, K), n_rows = q.shape, lse.numel()
    launch(program("attention_backward", q.dtype), "attention_delta",
           [aligned(out), d_out, None if d_lse is None else aligned(d_lse), delta, n_rows, T, H, K],
           grid=-(-n_rows // (THREADS // 32)), block=THREADS)
    adds_d_q = any(kernel.adds_d_q for kernel in chosen.kernels_for(K))
    sum_of_d_q = torch.zeros_like(d_q, dtype=lse.dtype) if adds_d_q else d_q
    _launch(chosen, (q, k, v, d_out), rule, given=(lse, delta),
            written={"d_q": sum_of_d_q, "d_k": d_k, "d_v": d_v})
    return sum_of_d_q.to(q.dtype), d_k, d_v


def _launch(
    rung: AttentionRung, rows: tuple[Tensor, ...], rule: AttentionRule, *,
    written: dict[str, Tensor], given: tuple[Tensor, ...] = (),
) -> None:
    """Launches the entry points of a rung for these heads. rows: q, k, v, and in backward d_out."""
    q, k, v, *others = rows
    q, k, v = (with_whole_rows(x) for x in (q, k, v))
    if not _share_steps(k, v):   # the kernels take one set of strides for both
        k, v = aligned(k), aligned(v)
    (B, T, H, K), (_, S, G, _) = q.shape, k.shape
    code = program(rung.source, q.dtype)
    mask = None if rule.mask is None else rule.mask.view(torch.uint8)
    for kernel in rung.kernels_for(K):
        bound = rule.last if kernel.is_by_keys else rule.first
        masks = [rule.groups, bound, *([mask] if rung.is_general else [])]
        sizes = [T, S, H, G, *([K] if rung.is_general else [])]
        strides = [*q.stride()[:3], *k.stride()[:3]] if rung.takes_strides else []
        n_tiles, n_heads = (-(-S // kernel.keys), G) if kernel.is_by_keys else (
            -(-T // kernel.queries), H)
        launch(code, kernel.entry,
               [*rung.inputs((q, k, v, *others), kernel), *given,
                *(written[name] for name in kernel.writes), *masks, *sizes, *strides,
                rule.batch_step, int(rule.is_causal), K**-0.5],
               grid=(n_tiles, n_heads, B), block=kernel.threads,
               shared_bytes=kernel.shared_bytes * (code.accum.itemsize // 4))


def _share_steps(k: Tensor, v: Tensor) -> bool:
    return all(a == b or n == 1 for a, b, n in zip(k.stride(), v.stride(), k.shape, strict=True))


def _chosen(
    direction: str, q: Tensor, rule: AttentionRule, *, rung: str | None,
    is_deterministic: bool = False,
) -> Choice:
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else None
    return choose(direction, dtype=q.dtype, head_dim=q.shape[3], has_mask=rule.mask is not None,
                  is_deterministic=is_deterministic, capability=capability, rung=rung)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    got = f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == 4 or k.shape != v.shape:
        raise ValueError(f"q must be (B, T, H, K), and k and v must both be (B, S, G, K); {got}")
    (B, _, H, K), G = q.shape, k.shape[2]
    if k.shape[0] != B or k.shape[3] != K or not K or not G or H % G:
        raise ValueError(f"q must be (B, T, H, K) and k (B, S, G, K), where G divides H; {got}. "
                         "Put the axis of heads after the axis of tokens: x.transpose(1, 2) "
                         "exchanges them")
    if not q.dtype == k.dtype == v.dtype or not q.device == k.device == v.device:
        raise ValueError("q, k and v must share a dtype and a device; got "
                         + ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
                         + ". Convert with .to(q)")
    if q.dtype not in REAL_NAMES:
        raise ValueError(f"the kernels compute in {', '.join(map(str, REAL_NAMES))}; got {q.dtype}")


# --- PyTorch operators ----------------------------------------------------------------------------


def _attention(
    q: Tensor, k: Tensor, v: Tensor, groups: Tensor | None, first: Tensor | None,
    last: Tensor | None, mask: Tensor | None, is_causal: bool, is_deterministic: bool,
) -> tuple[Tensor, Tensor]:
    _check(q, k, v)
    rule = AttentionRule(groups=groups, first=first, last=last, mask=mask, is_causal=is_causal)
    return run_forward(q, k, v, rule=rule)


def _gradients(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    groups: Tensor | None, first: Tensor | None, last: Tensor | None, mask: Tensor | None,
    is_causal: bool, is_deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    rule = AttentionRule(groups=groups, first=first, last=last, mask=mask, is_causal=is_causal)
    return run_backward(d_out, q, k, v, out=out, lse=lse, rule=rule, d_lse=d_lse,
                        is_deterministic=is_deterministic)


def _fake_attention(
    q: Tensor, k: Tensor, v: Tensor, groups: Tensor | None, first: Tensor | None,
    last: Tensor | None, mask: Tensor | None, is_causal: bool, is_deterministic: bool,
) -> tuple[Tensor, Tensor]:
    _check(q, k, v)
    B, T, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=program("attention", q.dtype).accum)


def _fake_gradients(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx, inputs, output) -> None:
    q, k, v, groups, first, last, mask, ctx.is_causal, ctx.is_deterministic = inputs
    ctx.save_for_backward(q, k, v, *output, groups, first, last, mask)
    # A gradient that does not exist must not be read as zeros from memory.
    ctx.set_materialize_grads(False)


def _backward(ctx, d_out, d_lse):
    if d_out is None and d_lse is None:
        return (None,) * 9
    saved = ctx.saved_tensors
    gradients = torch.ops.llama_from_scratch.attention_backward(
        torch.zeros_like(saved[3]) if d_out is None else d_out, d_lse, *saved, ctx.is_causal,
        ctx.is_deterministic)
    return *gradients, *(None,) * 6


def _no_second_derivative(ctx, *gradients):
    raise NotImplementedError("the attention kernels have no second derivative. For one, use "
                              "model.attention.SoftmaxAttention")


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("attention(Tensor q, Tensor k, Tensor v, Tensor? groups, Tensor? first, "
                "Tensor? last, Tensor? mask, bool is_causal, bool is_deterministic)"
                " -> (Tensor, Tensor)")
_library.define("attention_backward(Tensor d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, "
                "Tensor out, Tensor lse, Tensor? groups, Tensor? first, Tensor? last, "
                "Tensor? mask, bool is_causal, bool is_deterministic) -> (Tensor, Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("attention", _attention, _device)
    _library.impl("attention_backward", _gradients, _device)
torch.library.register_fake("llama_from_scratch::attention", _fake_attention, lib=_library)
torch.library.register_fake("llama_from_scratch::attention_backward", _fake_gradients, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::attention", _backward, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::attention_backward", _no_second_derivative, lib=_library)

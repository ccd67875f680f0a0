"""Attention of a few new tokens over a long cache, with the keys split among the whole GPU.

PyTorch's attention gives every query head a block of its own, which at batch 1 leaves most of a GPU
without work, and its length is the shape of a tensor, which a CUDA graph cannot change. Here, a
sequence's keys are divided among blocks, all heads of a group read them together, and the lengths
are numbers in the GPU's memory. So one launch, captured once, serves every step and every batch of
texts with different lengths.

Notebook 35. The plain code is `model.attention`. Sources: Dao et al., Flash-Decoding for
long-context inference (2023); Milakov and Gimelshein, Online normalizer calculation for softmax,
arXiv:1805.02867.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.source import REAL_NAMES
from llama_from_scratch.kernels.machinery.tensors import (
    aligned,
    n_processors,
    require_cuda,
    span,
    with_whole_rows,
)

THREADS, WARPS = 128, 4   # as in decode.cu
TILE = 64                 # keys: a split is whole tiles
FEWEST_TILES = 4          # per split of a full cache
MOST_SPLITS = 128
ENOUGH = 0.85             # of the best efficiency: more splits mean more to combine
NEWEST = (9, 0)           # the capability of the emulator


@record
class DecodeRung:
    """One entry point of decode.cu, or of decode_mma.cu for tensor cores.

    width: of a head, or None for any. rows: how many of the queries that share a key/value head
    read its keys together. dtypes: that it computes in. oldest: the compute capability of the
    oldest GPU that it runs on. has_splits: whether it takes several splits. resident: about how
    many of its blocks a processor holds at once, limited by registers or shared memory.
    stage_bytes: of shared memory, for keys and values on their way.
    """

    entry: str
    source: str = "decode"
    width: int | None = None
    rows: int = 1
    dtypes: tuple[torch.dtype, ...] = tuple(REAL_NAMES)
    oldest: tuple[int, int] = (7, 5)
    has_splits: bool = True
    resident: int = 8
    stage_bytes: int = 0

    def fits(self, *, width: int, dtype: torch.dtype, capability: tuple[int, int]) -> bool:
        return (self.width in (None, width) and dtype in self.dtypes
                and capability >= self.oldest)


def _mma(width: int, *, stages: int, resident: int) -> DecodeRung:
    # Each of the 4 warps has stages of 16 keys and their values, in 2 bytes.
    return DecodeRung(entry=f"decode_attention_mma_{width}", source="decode_mma", width=width,
                      rows=16, dtypes=(torch.bfloat16, torch.float16), oldest=(8, 0),
                      resident=resident, stage_bytes=WARPS * stages * 2 * 16 * width * 2)


RUNGS = ladder(
    DecodeRung(entry="decode_attention_1", has_splits=False),
    DecodeRung(entry="decode_attention_2"),
    *(DecodeRung(entry=f"decode_attention_{width}_by{rows}", width=width, rows=rows,
                 resident=resident)
      for width in (64, 128) for rows, resident in ((1, 6), (4, 3), (8, 2))),
    _mma(64, stages=4, resident=3),
    _mma(128, stages=3, resident=2),
)


def decode_attention(
    q: Float[Tensor, "B T H K"], keys: Float[Tensor, "B S G K"], values: Float[Tensor, "B S G K"],
    *, lengths: Int[Tensor, " B"], starts: Int[Tensor, " B"] | None = None,
    chunk_size: int | None = None, n_splits: int | None = None, emulate: bool = False,
) -> Float[Tensor, "B T H K"]:
    """Returns softmax(q k^T / sqrt(K)) v over the tokens of each cache row.

    The tokens of a row are in the slots before its `lengths`; with `starts`, from that slot on,
    because padding comes before. The T queries are the last of them, and each sees itself and what
    comes before it; with a `chunk_size`, only its own chunk of that many tokens. A query that would
    be before the first token sees nothing and gets zeros. `lengths`, `starts`: int32, on q's
    device; the host does not read them there. Without a gradient. bf16 and fp16 heads of width 64
    or 128 run on tensor cores if more than one query shares a key/value head and the GPU has them
    (compute capability 8.0 or newer). Other widths are correct, and slower.

    n_splits: into how many parts the keys of a sequence are divided, by default as many as the
    shapes call for. Raises ValueError for shapes, dtypes and devices that do not fit, for CPU
    tensors unless `emulate`, and on the CPU for lengths that are not from 0 to S. On a GPU such a
    length ends the program with CUDA's error for a trap.
    """
    require_cuda("decode_attention", q, emulate=emulate)
    return torch.ops.llama_from_scratch.decode_attention(
        q, keys, values, lengths, starts, chunk_size, n_splits)


def run(
    q: Tensor, keys: Tensor, values: Tensor, *, lengths: Tensor, starts: Tensor | None = None,
    chunk_size: int | None = None, n_splits: int | None = None, rung: str | None = None,
    launcher: Callable[..., object] | None = None,
) -> Tensor:
    """Returns what `decode_attention` does, by the fastest rung that fits, or by `rung`.

    launcher: a function to call instead of `launch`, with the same arguments.
    """
    B, T, H, K = q.shape
    S, G = keys.shape[1:3]
    chosen = _rung_for(q, n_rows=T * H // max(1, G), rung=rung)
    is_split_by_head = chosen.width is None
    n_blocks = T * H if is_split_by_head else -(-T * H // max(1, G) // chosen.rows) * G
    if not chosen.has_splits:
        n_splits = 1
    elif n_splits is None:
        n_splits = splits_for(n_blocks=B * n_blocks, n_keys=min(S, chunk_size or S),
                              n_places=chosen.resident * n_processors(q.device))
    q, keys, values = aligned(q), with_whole_rows(keys), with_whole_rows(values)
    if keys.stride() != values.stride():
        keys, values = aligned(keys), aligned(values)
    kernel, launcher = program(chosen.source, q.dtype), launcher or launch
    out = torch.empty_like(q)
    if not q.numel():
        return out
    if not keys.numel():
        return out.zero_()
    part = largest_and_sum = None
    if n_splits > 1:
        part = torch.empty(B * T * H, n_splits, K, dtype=kernel.accum, device=q.device)
        largest_and_sum = torch.empty(B * T * H, n_splits, 2, dtype=kernel.accum, device=q.device)
    args = [q, span(keys), span(values), aligned(lengths),
            None if starts is None else aligned(starts), out]
    args += [part, largest_and_sum] if chosen.has_splits else []
    args += [T, S, H, G, K, *([n_splits, TILE] if chosen.has_splits else []), *keys.stride()[:3],
             chunk_size or 0, 1 / math.sqrt(K)]
    n_sums = K * (WARPS if chosen.has_splits else 1) if is_split_by_head else 0
    launcher(kernel, chosen.entry, args, grid=(n_blocks, n_splits, B), block=THREADS,
             shared_bytes=chosen.stage_bytes + n_sums * kernel.accum.itemsize)
    if n_splits > 1:
        launcher(program("decode", q.dtype), "decode_combine",
                 [part, largest_and_sum, out, n_splits, K], grid=B * T * H, block=THREADS)
    return out


def _rung_for(q: Tensor, *, n_rows: int, rung: str | None) -> DecodeRung:
    """Returns the rung of that name, or the one that reads the cache least often.

    One query per key/value head leaves tensor cores nothing to do.
    """
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else NEWEST
    facts = dict(width=q.shape[3], dtype=q.dtype, capability=capability)
    if rung is None:
        fast = [each for each in RUNGS.values() if each.width and each.fits(**facts)]
        if n_rows > 1 and fast and fast[-1].stage_bytes:
            return fast[-1]
        enough = (each for each in fast if each.rows >= n_rows)
        return next(enough, fast[-1]) if fast else RUNGS["decode_attention_2"]
    chosen = rung_named(rung, RUNGS)
    if not chosen.fits(**facts):
        raise ValueError(f"{rung} is for heads of width {chosen.width or 'any'}, "
                         f"{', '.join(map(str, chosen.dtypes))} and compute capability "
                         f"{chosen.oldest} or newer; got {q.shape[3]}, {q.dtype} and {capability}. "
                         "decode_attention_2 runs everywhere")
    return chosen


def splits_for(*, n_blocks: int, n_keys: int, n_places: int) -> int:
    """Returns into how many parts to divide the keys of every sequence, from shapes alone.

    n_blocks: the blocks without a split. n_places: how many blocks the GPU holds at once. The last
    wave of blocks may leave places empty; the fewest splits are taken whose waves are filled nearly
    as well as the best. A split of a full cache has at least `FEWEST_TILES` tiles.
    """
    most = min(MOST_SPLITS, n_places, n_keys // (FEWEST_TILES * TILE))
    if n_blocks >= 0.8 * n_places or most < 2:
        return 1

    def efficiency(n_splits: int) -> float:
        waves = n_blocks * n_splits / n_places
        return waves / math.ceil(waves)

    best = max(map(efficiency, range(1, most + 1)))
    return next(n for n in range(1, most + 1) if efficiency(n) >= ENOUGH * best)


# --- PyTorch operator -----------------------------------------------------------------------------


def _check(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, starts: Tensor | None,
    chunk_size: int | None, n_splits: int | None,
) -> None:
    program("decode", q.dtype)   # refuses integers
    told = f"got q {_told(q)}, keys {_told(keys)} and values {_told(values)}"
    if (q.ndim != 4 or keys.ndim != 4 or keys.shape != values.shape or not q.shape[3]
            or (keys.shape[0], keys.shape[3]) != (q.shape[0], q.shape[3])
            or not keys.shape[2] or q.shape[2] % keys.shape[2]):
        raise ValueError("q must be (B, T, H, K), and keys and values must be (B, S, G, K), where "
                         f"G divides H; {told}. Put the axis of heads after the axis of tokens: "
                         "x.transpose(1, 2) exchanges them")
    slots = {"lengths": lengths} | ({} if starts is None else {"starts": starts})
    if not q.dtype == keys.dtype == values.dtype or not all(
            x.device == q.device for x in (keys, values, *slots.values())):
        where = ", ".join(f"{name} on {x.device}" for name, x in slots.items())
        raise ValueError("q, keys and values must share a dtype, and everything a device; "
                         f"{told}, {where}")
    for name, x in slots.items():
        if x.shape != q.shape[:1] or x.dtype != torch.int32:
            raise ValueError(f"{name} must be one int32 per sequence, ({q.shape[0]},); got "
                             f"{_told(x)}")
    for name, number in (("chunk_size", chunk_size), ("n_splits", n_splits)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, or None; got {number}")


def _told(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} on {x.device}"


def _decode(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, starts: Tensor | None,
    chunk_size: int | None, n_splits: int | None,
) -> Tensor:
    _check(q, keys, values, lengths, starts, chunk_size, n_splits)
    if not lengths.is_cuda and len(lengths):
        slots = [lengths] if starts is None else [lengths, starts]
        least, most = min(x.min().item() for x in slots), lengths.max().item()
        if least < 0 or most > keys.shape[1]:
            raise ValueError(f"lengths and starts must be from 0 to {keys.shape[1]}, the tokens "
                             f"that the cache has room for; got {least} to {most}. Make a larger "
                             "cache")
    return run(q, keys, values, lengths=lengths, starts=starts, chunk_size=chunk_size,
               n_splits=n_splits)


def _fake(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, starts: Tensor | None,
    chunk_size: int | None, n_splits: int | None,
) -> Tensor:
    _check(q, keys, values, lengths, starts, chunk_size, n_splits)
    return q.new_empty(q.shape)


def _no_derivative(ctx, *gradients):
    raise NotImplementedError("decode_attention has no derivative, because a cache is for "
                              "inference. Train with kernels.attention")


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("decode_attention(Tensor q, Tensor keys, Tensor values, Tensor lengths,"
                " Tensor? starts, int? chunk_size, int? n_splits) -> Tensor")
for _device in ("CPU", "CUDA"):
    _library.impl("decode_attention", _decode, _device)
torch.library.register_fake("llama_from_scratch::decode_attention", _fake, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::decode_attention", _no_derivative, lib=_library)

"""Products with weights of 8 or 4 bits, for decoding: the weights are never written to memory.

A decoding step multiplies a few rows of x by every weight of the model. Its time is the time to
read the weights, as long as unpacking them is not slower. Up to 8 rows of x go through the kernel,
which reads each integer once and multiplies in fp32. More rows are bound by arithmetic: then the
weight is dequantized, a slice of 64 MB at a time, and PyTorch multiplies.

Notebook 35. The format and the plain code are `model.quantized`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import aligned, n_processors, require_cuda
from llama_from_scratch.model.quantized import (
    GROUP_STEP,
    PER_WORD,
    check_group,
    dequantize_int4,
    dequantize_int8,
)

WARP, THREADS = 32, 256      # as in quantized.cu
MOST_ROWS = 8                # of x, in the kernel
MOST_WEIGHTS = 3             # of one launch
OLDEST_MMA, MMA_GROUP = (8, 0), 128   # on tensor cores: compute capability; 4-bit numbers per group
SHARED_BYTES = 48 * 1024     # of x in shared memory: what every GPU gives without being asked
SLICE_BYTES = 64 * 2**20     # of dequantized weights, for more rows of x
BLOCKS_PER_PROCESSOR = 2     # at least, if a block with fewer warps makes it possible


@record
class QuantizedRung:
    """One entry point of quantized.cu, or of quantized_mma.cu for tensor cores.

    least_x, most_x: the rows of x that it multiplies at once. rows: of the weight, per warp, or
    per block on tensor cores (`is_mma`).
    is_by_vector: whether lanes load 16 bytes at a time, of up to three weights. A warp's step along
    the rows, 512 numbers of 8 bits or 1024 of 4 bits, must then be whole groups. On tensor cores, a
    group of 4-bit weights must be 128.
    is_thread_per_result: whether each thread has its own result; otherwise a warp shares one.
    """

    entry: str
    least_x: int = 1
    most_x: int = MOST_ROWS
    rows: int = 1
    is_by_vector: bool = False
    is_mma: bool = False
    is_thread_per_result: bool = False


def _rungs(kind: str) -> dict[str, QuantizedRung]:
    by_vector = [QuantizedRung(entry=f"{kind}_linear_by{n}", least_x=n // 2 + 1, most_x=n,
                               rows=4 if n == 1 or (n == 2 and kind == "int8") else 2,
                               is_by_vector=True) for n in (1, 2, 4, 8)]
    return ladder(QuantizedRung(entry=f"{kind}_linear_1", is_thread_per_result=True),
                  QuantizedRung(entry=f"{kind}_linear_2"), *by_vector,
                  QuantizedRung(entry=f"{kind}_linear_mma", rows=16, is_by_vector=True,
                                is_mma=True))


INT8_RUNGS, INT4_RUNGS = _rungs("int8"), _rungs("int4")


@record
class Weight:
    """A quantized weight as `model.quantized` stores it: `stored` is int8, or words of int32."""

    stored: Tensor
    scale: Tensor
    minimum: Tensor | None = None

    @property
    def is_int4(self) -> bool:
        return self.stored.dtype == torch.int32

    @property
    def out_features(self) -> int:
        return self.stored.shape[0]

    @property
    def in_features(self) -> int:
        return self.stored.shape[1] * (PER_WORD if self.is_int4 else 1)

    @property
    def group(self) -> int:
        """The numbers that share a scale, or 1 with 8 bits, whose scales belong to rows."""
        return self.in_features // self.scale.shape[1] if self.is_int4 else 1

    def dequantized(self, rows: slice = slice(None)) -> Float[Tensor, "D F"]:
        """Returns these rows of the weight in the scale's dtype."""
        if not self.is_int4:
            return dequantize_int8(self.stored[rows], self.scale[rows])
        minimum = None if self.minimum is None else self.minimum[rows]
        return dequantize_int4(self.stored[rows], self.scale[rows], minimum)


def int8_linear(
    x: Float[Tensor, "*batch F"], numbers: Int8[Tensor, "D F"], *, scale: Float[Tensor, " D"],
    emulate: bool = False,
) -> Float[Tensor, "*batch D"]:
    """Returns x W^T, where row d of W is scale[d] * numbers[d].

    Sums are in fp32 (fp64 for fp64) and rounded once. Differentiable in x. With more than 8 rows
    of x, W is dequantized in slices and multiplied by PyTorch.
    Raises ValueError for shapes, dtypes or devices that do not fit, and for CPU tensors unless
    `emulate`.
    """
    return int8_linears(x, [(numbers, scale)], emulate=emulate)[0]


def int8_linears(
    x: Float[Tensor, "*batch F"], weights: Sequence[tuple[Tensor, Tensor]], *,
    emulate: bool = False,
) -> list[Tensor]:
    """Returns `int8_linear` of x with each (numbers, scale): three of them in one launch."""
    require_cuda("int8_linear", x, emulate=emulate)
    numbers, scales = map(list, zip(*weights, strict=True))
    return torch.ops.llama_from_scratch.int8_linear(x, numbers, scales)


def int4_linear(
    x: Float[Tensor, "*batch F"], words: Int32[Tensor, "D words"], *,
    scale: Float[Tensor, "D groups"], minimum: Float[Tensor, "D groups"] | None = None,
    emulate: bool = False,
) -> Float[Tensor, "*batch D"]:
    """Returns x W^T, where W has 4 bits per number, as `model.quantized.quantize_int4` packs them.

    In everything else it is `int8_linear`.
    """
    return int4_linears(x, [(words, scale, minimum)], emulate=emulate)[0]


def int4_linears(
    x: Float[Tensor, "*batch F"], weights: Sequence[tuple[Tensor, Tensor, Tensor | None]], *,
    emulate: bool = False,
) -> list[Tensor]:
    """Returns `int4_linear` of x with each (words, scale, minimum): three of them in one launch.

    Raises ValueError also if only some of the weights have minimums.
    """
    require_cuda("int4_linear", x, emulate=emulate)
    words, scales, minimums = map(list, zip(*weights, strict=True))
    have = [minimum for minimum in minimums if minimum is not None]
    if len(have) not in (0, len(words)):
        raise ValueError("weights that are multiplied together must all have minimums, or none; "
                         f"got {len(have)} minimums for {len(words)} weights. Call int4_linear for "
                         "each of them")
    return torch.ops.llama_from_scratch.int4_linear(x, words, scales, have)


def run(
    x: Float[Tensor, "N F"], weights: Sequence[Weight], *, rung: str | None = None,
    n_warps: int | None = None, n_slice: int | None = None,
    launcher: Callable[..., object] | None = None,
) -> list[Tensor]:
    """Returns the product of up to 8 rows x with each weight, by the fastest rung or by `rung`.

    All weights have the same kind, width and group. Autograd does not record it. n_warps: per
    block. n_slice: the columns of x that are in shared memory at a time. launcher: a function to
    call instead of `launch`, with the same arguments.
    """
    make = x.new_empty if x.numel() else x.new_zeros   # a sum over no columns is 0
    outs = [make(len(x), weight.out_features) for weight in weights]
    if not x.numel():
        return outs
    x, launcher = aligned(x), launcher or launch
    chosen, step = _rung_for(x, weights[0], rung), _step(weights[0])
    if not chosen.is_by_vector:
        for weight, out in zip(weights, outs, strict=True):
            _launch_plain(x, weight, out, rung=chosen, launcher=launcher)
        return outs
    for first in range(0, len(weights), MOST_WEIGHTS):
        _launch_by_vector(x, weights[first:first + MOST_WEIGHTS], outs[first:first + MOST_WEIGHTS],
                          rung=chosen, step=step, n_warps=n_warps, n_slice=n_slice,
                          launcher=launcher)
    return outs


def _rung_for(x: Tensor, weight: Weight, rung: str | None) -> QuantizedRung:
    """Returns the rung of that name, or the fastest one. Raises ValueError if it does not fit.

    One row of x with 8-bit weights leaves tensor cores too little to do.
    """
    rungs = INT4_RUNGS if weight.is_int4 else INT8_RUNGS
    if not rung:
        has_work = weight.is_int4 or len(x) > 1
        fast = [each for each in rungs.values() if each.is_by_vector and _fits(each, x, weight)]
        best = [each for each in fast if each.is_mma and has_work] or fast
        return best[0] if best else rungs["int4_linear_2" if weight.is_int4 else "int8_linear_2"]
    chosen = rung_named(rung, rungs)
    if not _fits(chosen, x, weight):
        raise ValueError(f"{chosen.entry} takes {chosen.least_x} to {chosen.most_x} rows of x, of "
                         f"a multiple of {_step(weight) // WARP} numbers, and groups that "
                         f"{'are 128' if chosen.is_mma else f'divide {_step(weight)}'}"
                         f"{'; its dtypes are bf16 and fp16' if chosen.is_mma else ''}; got x "
                         f"{tuple(x.shape)} of {x.dtype} and groups of {weight.group}. Leave "
                         "`rung` out: another one is then chosen")
    return chosen


def _fits(rung: QuantizedRung, x: Tensor, weight: Weight) -> bool:
    step = _step(weight)
    if not rung.least_x <= len(x) <= rung.most_x:
        return False
    if not rung.is_by_vector:
        return True
    if rung.is_mma:
        has_cores = not x.is_cuda or torch.cuda.get_device_capability(x.device) >= OLDEST_MMA
        return (has_cores and x.dtype in (torch.bfloat16, torch.float16)
                and not x.shape[1] % (step // WARP) and weight.group in (1, MMA_GROUP))
    return not x.shape[1] % (step // WARP) and not step % weight.group


def _step(weight: Weight) -> int:
    """Returns how many columns a warp multiplies at a time: 16 bytes of numbers per lane."""
    return WARP * (32 if weight.is_int4 else 16)


def _launch_plain(
    x: Tensor, weight: Weight, out: Tensor, *, rung: QuantizedRung, launcher: Callable
) -> None:
    n_x, n_columns = x.shape
    sizes = [weight.out_features, n_columns]
    tensors = [x, aligned(weight.stored), aligned(weight.scale)]
    if weight.is_int4:
        tensors.append(None if weight.minimum is None else aligned(weight.minimum))
        sizes.append(weight.group)
    if rung.is_thread_per_result:
        sizes, grid = [n_x, *sizes], -(-out.numel() // THREADS)
    else:
        grid = -(-weight.out_features // (THREADS // WARP)), n_x
    if out.numel():
        launcher(program("quantized", x.dtype), rung.entry, [*tensors, out, *sizes],
                 grid=grid, block=THREADS)


def _launch_by_vector(
    x: Tensor, weights: Sequence[Weight], outs: Sequence[Tensor], *, rung: QuantizedRung, step: int,
    n_warps: int | None, n_slice: int | None, launcher: Callable,
) -> None:
    n_x, n_columns = x.shape
    args = [x]
    for weight, out in zip(weights, outs, strict=True):
        args += [aligned(weight.stored), aligned(weight.scale)]
        if weight.is_int4:
            args.append(None if weight.minimum is None else aligned(weight.minimum))
        args += [out, weight.out_features]
    n_missing = MOST_WEIGHTS - len(weights)
    args += [*[None] * (4 if weights[0].is_int4 else 3), 0] * n_missing
    sizes, n_used = [n_x, n_columns], sum(-(-w.out_features // rung.rows) for w in weights)
    if not n_used:
        return
    if rung.is_mma:
        launcher(program("quantized_mma", x.dtype), rung.entry, [*args, *sizes], grid=n_used,
                 block=THREADS)
        return
    most = max(1, SHARED_BYTES // (n_x * x.dtype.itemsize * step)) * step
    n_slice = min(n_slice or most, -(-n_columns // step) * step)
    n_warps = n_warps or _warps_per_block(n_used, x.device)
    sizes += [weights[0].group, n_slice] if weights[0].is_int4 else [n_slice]
    launcher(program("quantized", x.dtype), rung.entry, [*args, *sizes],
             grid=-(-n_used // n_warps), block=n_warps * WARP,
             shared_bytes=n_x * n_slice * x.dtype.itemsize)


def _warps_per_block(n_used: int, device: torch.device) -> int:
    """Returns 8, or less if the GPU would have fewer than two blocks per processor.

    All warps of a block share its copy of x, so larger blocks copy less.
    """
    wanted = BLOCKS_PER_PROCESSOR * n_processors(device)
    return next((n for n in (8, 4) if n_used >= n * wanted), 2)


# --- PyTorch operators ----------------------------------------------------------------------------


def _int8(x: Tensor, numbers: list[Tensor], scales: list[Tensor]) -> list[Tensor]:
    weights = [Weight(stored=w, scale=s) for w, s in zip(numbers, scales, strict=True)]
    return _products(x, weights)


def _int4(
    x: Tensor, words: list[Tensor], scales: list[Tensor], minimums: list[Tensor]
) -> list[Tensor]:
    return _products(x, _int4_weights(words, scales, minimums))


def _int4_weights(
    words: Sequence[Tensor], scales: Sequence[Tensor], minimums: Sequence[Tensor]
) -> list[Weight]:
    return [Weight(stored=w, scale=s, minimum=m) for w, s, m in zip(
        words, scales, minimums or [None] * len(words), strict=True)]


def _products(x: Tensor, weights: list[Weight]) -> list[Tensor]:
    _check(x, weights)
    x_NF = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    is_one_kind = len({weight.scale.shape[1:] for weight in weights}) == 1
    if len(x_NF) > MOST_ROWS:
        outs = [_in_slices(x_NF, weight) for weight in weights]
    elif is_one_kind:
        outs = run(x_NF, weights)
    else:
        outs = [run(x_NF, [weight])[0] for weight in weights]
    return [out.view(*x.shape[:-1], out.shape[1]) for out in outs]


def _in_slices(x_NF: Tensor, weight: Weight) -> Tensor:
    n_rows = max(1, SLICE_BYTES // max(1, weight.in_features * x_NF.dtype.itemsize))
    out = x_NF.new_empty(len(x_NF), weight.out_features)
    for begin in range(0, weight.out_features, n_rows):
        rows = slice(begin, begin + n_rows)
        out[:, rows] = F.linear(x_NF, weight.dequantized(rows))
    return out


def _check(x: Tensor, weights: Sequence[Weight]) -> None:
    program("quantized", x.dtype)   # refuses integers
    for weight in weights:
        stored, scale, minimum = weight.stored, weight.scale, weight.minimum
        if (stored.ndim != 2 or x.ndim == 0 or stored.dtype not in (torch.int8, torch.int32)
                or stored.shape[1] * (PER_WORD if weight.is_int4 else 1) != x.shape[-1]):
            raise ValueError("x (..., F) needs a weight of int8 (D, F), or of int32 (D, F / 8) for "
                             f"4 bits; got x {_told(x)} and {_told(stored)}. model.quantized makes "
                             "such weights")
        floats = [scale] if minimum is None else [scale, minimum]
        if any(each.dtype != x.dtype for each in floats) or any(
                each.device != x.device for each in (stored, *floats)):
            raise ValueError("scales and minimums must have x's dtype, and everything its device; "
                             f"got x {_told(x)}, {', '.join(map(_told, floats))} and numbers on "
                             f"{stored.device}. Convert the model with .to(device, dtype)")
        n_rows, n_columns = stored.shape[0], x.shape[-1]
        if weight.is_int4:
            if scale.ndim != 2 or scale.shape[0] != n_rows or not scale.shape[1]:
                raise ValueError("4-bit weights have one scale per row and group, (D, F / group); "
                                 f"got {_told(scale)} for {n_rows} rows of {n_columns}")
            if n_columns % (GROUP_STEP * scale.shape[1]):
                check_group(-(-n_columns // scale.shape[1]), in_features=n_columns)
        elif scale.shape != (n_rows,):
            raise ValueError("8-bit weights have one scale per row, (D,); got "
                             f"{_told(scale)} for {n_rows} rows")
        if minimum is not None and minimum.shape != scale.shape:
            raise ValueError("minimums must have the shape of the scales; got "
                             f"{_told(minimum)} and {_told(scale)}")


def _told(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} on {x.device}"


def _fake_int8(x: Tensor, numbers: list[Tensor], scales: list[Tensor]) -> list[Tensor]:
    return _fake(x, [Weight(stored=w, scale=s) for w, s in zip(numbers, scales, strict=True)])


def _fake_int4(
    x: Tensor, words: list[Tensor], scales: list[Tensor], minimums: list[Tensor]
) -> list[Tensor]:
    return _fake(x, _int4_weights(words, scales, minimums))


def _fake(x: Tensor, weights: list[Weight]) -> list[Tensor]:
    _check(x, weights)
    return [x.new_empty(*x.shape[:-1], weight.stored.shape[0]) for weight in weights]


def _save(ctx, inputs, output) -> None:
    _, *lists = inputs
    tensors = [tensor for each in lists for tensor in each]
    if any(tensor.requires_grad for tensor in tensors):
        raise ValueError("quantized products have gradients for x only; got scales or minimums "
                         "that require one. Pass them detached, or train the weights before they "
                         "are quantized")
    ctx.counts = [len(each) for each in lists]
    ctx.save_for_backward(*tensors)


def _saved_lists(ctx) -> list[list[Tensor]]:
    tensors = iter(ctx.saved_tensors)
    return [[next(tensors) for _ in range(count)] for count in ctx.counts]


def _int8_backward(ctx, d_outs):
    numbers, scales = _saved_lists(ctx)
    weights = [Weight(stored=w, scale=s) for w, s in zip(numbers, scales, strict=True)]
    nothing = [None] * len(weights)
    return _d_x(d_outs, weights), nothing, nothing


def _int4_backward(ctx, d_outs):
    words, scales, minimums = _saved_lists(ctx)
    weights = _int4_weights(words, scales, minimums)
    nothing = [None] * len(weights)
    return _d_x(d_outs, weights), nothing, nothing, [None] * len(minimums)


def _d_x(d_outs: Sequence[Tensor], weights: Sequence[Weight]) -> Tensor:
    """Returns the gradient of x: backward passes have many rows, so PyTorch multiplies."""
    return sum(d_out @ weight.dequantized() for d_out, weight in zip(d_outs, weights, strict=True))


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("int8_linear(Tensor x, Tensor[] numbers, Tensor[] scales) -> Tensor[]")
_library.define("int4_linear(Tensor x, Tensor[] words, Tensor[] scales, Tensor[] minimums)"
                " -> Tensor[]")
for _device in ("CPU", "CUDA"):
    _library.impl("int8_linear", _int8, _device)
    _library.impl("int4_linear", _int4, _device)
torch.library.register_fake("llama_from_scratch::int8_linear", _fake_int8, lib=_library)
torch.library.register_fake("llama_from_scratch::int4_linear", _fake_int4, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::int8_linear", _int8_backward, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::int4_linear", _int4_backward, setup_context=_save, lib=_library)

"""The output layer and the loss together, without the logits of all tokens in memory.

8192 tokens with 128256 logits each are 2.1 GB in bf16, and their gradient is as large. Here the
tokens are divided into chunks. The logits of a chunk become losses and, in place, their own
gradient. Two matrix products turn this gradient into the gradients of x and of the weight, and the
next chunk takes its memory. So backward finds the gradients finished and only has to scale them.

The weight's gradient is a sum over all tokens. Over many chunks a sum in bf16 would lose most of
what each chunk adds, so it is kept in fp32.

Notebook 34. Every Llama: `model.transformer.Llama.output`, `train.loss`. Sources: Milakov and
Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867, algorithm 3; chunks with
gradients in the forward pass: Hsu et al., Liger Kernel, arXiv:2410.10989; z-loss: Chowdhery et
al., PaLM, arXiv:2204.02311, section 5.
"""

import functools
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import aligned, n_processors, require_cuda

THREADS, WARP = 1024, 32
VECTOR_BYTES = 16
CHUNK_BYTES = 2**28   # of logits. A chunk of 1000 tokens and more keeps a GPU's products efficient.
PIECE = 2**24         # numbers that are rounded at a time when sums become gradients
REDUCTIONS = ("mean", "sum", "none")
OLDEST_TORCH = (2, 10)   # the first whose addmm adds products of bf16 to a matrix in fp32


@record
class CrossEntropyRung:
    """An entry point of cross_entropy.cu.

    is_in_vectors: whether it reads and writes whole vectors, so that rows must begin at multiples
    of 16 bytes, and a block visits row after row.
    """

    entry: str
    is_in_vectors: bool = False


RUNGS = ladder(
    CrossEntropyRung(entry="cross_entropy_1"),
    CrossEntropyRung(entry="cross_entropy_2"),
    CrossEntropyRung(entry="cross_entropy", is_in_vectors=True),
)


def linear_cross_entropy(
    x: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int[Tensor, " N"], *,
    reduction: str = "mean", ignore_index: int = -100, z_loss: float = 0.0,
    chunk_bytes: int = CHUNK_BYTES, emulate: bool = False,
) -> Float[Tensor, "*N"]:
    """Returns the cross-entropy of the logits x @ weight.T with the targets, in nats.

    It equals `F.cross_entropy(F.linear(x, weight), targets)` with the same `reduction` ("mean",
    "sum" or "none") and `ignore_index`, but is in fp32 (fp64 for fp64), like the softmax. The
    logits are rounded to x's dtype. `z_loss` times the square of log(sum(exp(logits))) is added for
    each token. The mean over no token is NaN, and its gradient is 0.

    `chunk_bytes`: the most memory for logits at one time; see `memory_of` for all of it.
    Differentiable once in x and weight. "mean" and "sum" compute the gradients in the forward pass.
    "none" has to know the gradient of every token's loss first, so it computes the logits a second
    time in the backward pass. A second backward pass through the same result does that too. The
    GPU is never waited for.

    Under autocast the products are in autocast's dtype, as in F.linear. The gradients have the
    dtypes of x and weight, and are rounded only once.

    Raises ValueError for CPU tensors unless `emulate`, for other shapes, dtypes or devices, for
    `chunk_bytes` less than one token's logits and, on the CPU, for a target that is neither
    `ignore_index` nor from 0 to V - 1. On a GPU such a target ends the kernel: PyTorch reports a
    launch failure at the next call that waits for the GPU, as it does for an index out of range.
    """
    require_cuda("linear_cross_entropy", x, emulate=emulate)
    products = _dtype_of_products(x)
    if products is None and weight.dtype != x.dtype:
        raise ValueError("without autocast, x and weight must share their dtype; got "
                         f"{_told(x)}, {_told(weight)}. Convert the model with .to(dtype)")
    is_recorded = torch.is_grad_enabled()
    loss, _, _ = torch.ops.llama_from_scratch.linear_cross_entropy(
        x, weight, targets, reduction, ignore_index, z_loss, chunk_bytes, products or x.dtype,
        is_recorded and x.requires_grad, is_recorded and weight.requires_grad)
    return loss


@record
class LossMemory:
    """Bytes that `linear_cross_entropy` takes at one time, in addition to its arguments.

    sums: the two gradients before they are rounded, in fp32. logits: of one chunk.
    other: everything else.
    """

    sums: int
    logits: int
    other: int

    @property
    def workspace(self) -> int:
        """The bytes of everything except the gradients."""
        return self.logits + self.other


def memory_of(
    *, n_tokens: int, dim: int, vocab_size: int, dtype: torch.dtype, chunk_bytes: int = CHUNK_BYTES
) -> LossMemory:
    """Returns the memory of a loss and its backward pass on a GPU, without autocast.

    The gradients are rounded to `dtype` inside the memory of their sums, and keep all of it, so in
    2 bytes a gradient takes twice the memory of its numbers until it is freed.
    """
    chunk = Chunking.of(n_tokens, vocab_size, dtype=dtype, chunk_bytes=chunk_bytes)
    accum = program("cross_entropy", dtype).accum
    rounded = 0 if accum == dtype else min(PIECE, vocab_size * dim) * dtype.itemsize
    return LossMemory(sums=(n_tokens + vocab_size) * dim * accum.itemsize,
                      logits=chunk.n_rows * chunk.row_stride * dtype.itemsize,
                      other=n_tokens * accum.itemsize + rounded)


@record
class Chunking:
    """How tokens are divided: into chunks of `n_rows`, of which the last may have fewer.

    row_stride: the numbers from the beginning of one row of logits to the next, whole vectors.
    """

    n_tokens: int
    n_rows: int
    row_stride: int

    @classmethod
    def of(
        cls, n_tokens: int, vocab_size: int, *, dtype: torch.dtype, chunk_bytes: int
    ) -> "Chunking":
        """Returns as few chunks as possible, of about equal size.

        Raises ValueError if the logits of a single token take more than `chunk_bytes`.
        """
        row_bytes = -(-vocab_size * dtype.itemsize // VECTOR_BYTES) * VECTOR_BYTES
        most = chunk_bytes // row_bytes
        if most < 1:
            raise ValueError(f"a chunk must hold the logits of at least one token, {row_bytes} "
                             f"bytes for a vocabulary of {vocab_size} in {dtype}; got "
                             f"chunk_bytes={chunk_bytes}. Choose {row_bytes} or more")
        n_chunks = max(1, -(-n_tokens // most))
        return cls(n_tokens=n_tokens, n_rows=-(-n_tokens // n_chunks),
                   row_stride=row_bytes // dtype.itemsize)

    def slices(self) -> Iterator[slice]:
        """Yields the tokens of each chunk."""
        for begin in range(0, self.n_tokens, max(1, self.n_rows)):
            yield slice(begin, min(begin + self.n_rows, self.n_tokens))


def run(
    logits: Tensor, targets: Tensor, *, n_columns: int | None = None, scale: Tensor | None = None,
    ignore_index: int = -100, z_loss: float = 0.0, is_gradient: bool = True,
    rung: str = "cross_entropy", n_blocks: int | None = None,
) -> Tensor:
    """Returns the loss of each row of logits (rows, row_stride) in fp32, by the fastest rung.

    With `is_gradient`, the gradient of each loss, times its `scale`, replaces the logits. A row has
    `n_columns` logits; what follows them up to the next row has no effect. n_blocks: the number of
    blocks that visit all rows, by default one full block per processor. Raises ValueError for rows
    that do not begin at multiples of 16 bytes, unless the `rung` takes any.
    """
    kernel, chosen = program("cross_entropy", logits.dtype), rung_named(rung, RUNGS)
    n_rows, row_stride = logits.shape
    n_columns = row_stride if n_columns is None else n_columns
    if chosen.is_in_vectors and row_stride * logits.element_size() % VECTOR_BYTES:
        raise ValueError(f"{rung} takes rows that begin at multiples of {VECTOR_BYTES} bytes; got "
                         f"{row_stride} numbers of {logits.dtype} per row. Make the rows longer "
                         "and give n_columns")
    losses = torch.empty(n_rows, dtype=kernel.accum, device=logits.device)
    if not n_rows:
        return losses
    n_vectors = -(-n_columns * logits.element_size() // VECTOR_BYTES)
    threads = min(THREADS, -(-n_vectors // WARP) * WARP)
    args = [n_columns, row_stride, ignore_index, z_loss, int(is_gradient)]
    if chosen.is_in_vectors:
        n_blocks = n_blocks or n_processors(logits.device) * (THREADS // threads)
        args = [n_rows, *args]
    scale = None if scale is None else aligned(scale)
    launch(kernel, chosen.entry, [logits, aligned(targets), scale, losses, *args],
           grid=min(n_rows, n_blocks) if chosen.is_in_vectors else n_rows, block=threads)
    return losses


def _in_chunks(
    x: Tensor, weight: Tensor, targets: Tensor, *, scale: Tensor | None, ignore_index: int,
    z_loss: float, chunk_bytes: int, products: torch.dtype, needs_x: bool, needs_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the tokens' losses, and the sums that become the gradients of x and weight.

    `scale` multiplies the gradient of each token's loss. Sums that are not needed are empty. All
    are in fp32, or fp64 for products in fp64.
    """
    accum = program("cross_entropy", products).accum
    chunking = Chunking.of(len(x), len(weight), dtype=products, chunk_bytes=chunk_bytes)
    losses = x.new_empty(len(x), dtype=accum)
    d_x = x.new_empty(x.shape if needs_x else 0, dtype=accum)
    d_weight = x.new_empty(weight.shape if needs_weight else 0, dtype=accum)
    if not len(x):
        return losses, d_x, d_weight.zero_()
    targets, weight = _labels(targets, len(weight), ignore_index), weight.to(products)
    room = x.new_empty(chunking.n_rows, chunking.row_stride, dtype=products)
    for tokens in chunking.slices():
        own_x, own_room = x[tokens].to(products), room[: tokens.stop - tokens.start]
        logits = own_room[:, : len(weight)]
        torch.mm(own_x, weight.t(), out=logits)
        losses[tokens] = run(
            own_room, targets[tokens], n_columns=len(weight), ignore_index=ignore_index,
            scale=None if scale is None else scale[tokens], z_loss=z_loss,
            is_gradient=needs_x or needs_weight)
        if needs_x:
            _add_product(d_x[tokens], logits, weight, is_first=True)
        if needs_weight:
            _add_product(d_weight, logits.t(), own_x, is_first=tokens.start == 0)
    return losses, d_x, d_weight


def _add_product(total: Tensor, a: Tensor, b: Tensor, *, is_first: bool) -> None:
    """Adds a @ b to `total`, in place; the first product replaces what `total` held.

    A GPU multiplies numbers of 2 bytes and adds the products up in fp32. It can leave the sum in
    fp32 as well. PyTorch offers that as `out_dtype`, only for CUDA: on the CPU, both matrices are
    converted first.
    """
    beta = 0 if is_first else 1
    if a.is_cuda and a.dtype != total.dtype:
        torch.addmm(total, a, b, beta=beta, out_dtype=total.dtype, out=total)
    else:
        torch.addmm(total, a.to(total.dtype), b.to(total.dtype), beta=beta, out=total)


def _rounded(sums: Tensor, factor: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Returns sums * factor in the dtype, in the memory of `sums`, which are lost.

    A second copy of the weight's gradient would be needed for a moment when memory is shortest: at
    the beginning of the backward pass. A number of 2 bytes never lands beyond the number of 4 bytes
    that it is made from, so the pieces can be rounded in place from front to back.
    """
    if type(sums) is not Tensor:   # a compiler is tracing, and allows no change in place here
        return (sums * factor).to(dtype)
    if sums.dtype == dtype:
        return sums.mul_(factor)
    wide, narrow = sums.flatten(), sums.flatten().view(dtype)[: sums.numel()]
    piece = torch.empty(min(PIECE, max(1, len(wide))), dtype=dtype, device=sums.device)
    for begin in range(0, len(wide), PIECE):
        part = wide[begin : begin + PIECE]
        torch.mul(part, factor, out=piece[: len(part)])
        narrow[begin : begin + PIECE].copy_(piece[: len(part)])
    return narrow.view(sums.shape)


def _labels(targets: Tensor, vocab_size: int, ignore_index: int) -> Tensor:
    """Returns the targets in int64. Raises ValueError for a wrong one, if they are on the CPU."""
    if not targets.is_cuda:
        wrong = (targets != ignore_index) & ((targets < 0) | (targets >= vocab_size))
        if wrong.any():
            at = wrong.nonzero().flatten()
            raise ValueError(
                f"a target must be from 0 to {vocab_size - 1}, or {ignore_index}, which is "
                f"ignored; got {targets[at[:4]].tolist()} for token {int(at[0])}"
                f"{' and others' if len(at) > 1 else ''}. Use the tokenizer that the model was "
                "made for")
    return targets.long()


def _dtype_of_products(x: Tensor) -> torch.dtype | None:
    """Returns the dtype that autocast converts to, or None if it is not on or leaves x alone."""
    device = x.device.type
    is_cast = x.dtype != torch.float64 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_cast else None


def _check(
    x: Tensor, weight: Tensor, targets: Tensor, *, reduction: str, products: torch.dtype
) -> None:
    program("cross_entropy", products)   # refuses integers
    if (x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or not len(weight)
            or targets.shape != x.shape[:1]):
        raise ValueError("linear_cross_entropy takes x (N, D), a weight (V, D) and targets (N,), "
                         f"with at least one word; got {_told(x)}, {_told(weight)}, "
                         f"{_told(targets)}. Flatten batch and positions first: x.flatten(0, 1)")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"targets must be int64 or int32 indices; got {_told(targets)}")
    if not x.is_floating_point() or not weight.is_floating_point():
        raise ValueError(f"x and weight must be floating-point; got {_told(x)}, {_told(weight)}")
    if not x.device == weight.device == targets.device:
        raise ValueError("x, weight and targets must be on one device; got "
                         f"{_told(x)}, {_told(weight)}, {_told(targets)}. Move them with .to")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")


def _told(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} on {x.device}"


@functools.cache
def _refuse_old_torch() -> None:
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if version < OLDEST_TORCH:
        raise ValueError("to add products of bf16 or fp16 up in fp32, linear_cross_entropy needs "
                         f"PyTorch {'.'.join(map(str, OLDEST_TORCH))} or newer; this is "
                         f"{torch.__version__}. Update PyTorch, or compute in fp32")


# --- PyTorch operators ----------------------------------------------------------------------------


def _loss(
    x: Tensor, weight: Tensor, targets: Tensor, reduction: str, ignore_index: int, z_loss: float,
    chunk_bytes: int, products: torch.dtype, needs_x: bool, needs_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, targets, reduction=reduction, products=products)
    if x.is_cuda and products.itemsize == 2:
        _refuse_old_torch()
    is_ready = reduction != "none"   # then the gradients can be computed now
    losses, d_x, d_weight = _in_chunks(
        x, weight, targets, scale=None, ignore_index=ignore_index, z_loss=z_loss,
        chunk_bytes=chunk_bytes, products=products, needs_x=is_ready and needs_x,
        needs_weight=is_ready and needs_weight)
    if reduction == "none":
        return losses, d_x, d_weight
    n = 1 if reduction == "sum" else (targets != ignore_index).sum()
    return losses.sum() / n, d_x, d_weight


def _gradients(
    scale: Tensor, x: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, z_loss: float,
    chunk_bytes: int, products: torch.dtype, needs_x: bool, needs_weight: bool,
) -> tuple[Tensor, Tensor]:
    _, d_x, d_weight = _in_chunks(
        x, weight, targets, scale=scale, ignore_index=ignore_index, z_loss=z_loss,
        chunk_bytes=chunk_bytes, products=products, needs_x=needs_x, needs_weight=needs_weight)
    one = scale.new_ones(())
    return _rounded(d_x, one, dtype=x.dtype), _rounded(d_weight, one, dtype=weight.dtype)


def _fake_loss(
    x: Tensor, weight: Tensor, targets: Tensor, reduction: str, ignore_index: int, z_loss: float,
    chunk_bytes: int, products: torch.dtype, needs_x: bool, needs_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, targets, reduction=reduction, products=products)
    accum = program("cross_entropy", products).accum
    is_ready = reduction != "none"
    return (x.new_empty(() if is_ready else x.shape[:1], dtype=accum),
            x.new_empty(x.shape if is_ready and needs_x else 0, dtype=accum),
            x.new_empty(weight.shape if is_ready and needs_weight else 0, dtype=accum))


def _fake_gradients(
    scale: Tensor, x: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, z_loss: float,
    chunk_bytes: int, products: torch.dtype, needs_x: bool, needs_weight: bool,
) -> tuple[Tensor, Tensor]:
    return (x.new_empty(x.shape if needs_x else 0),
            weight.new_empty(weight.shape if needs_weight else 0))


def _save(ctx, inputs, output) -> None:
    x, weight, targets, ctx.reduction, *ctx.settings, _, _ = inputs
    _, d_x, d_weight = output
    ctx.save_for_backward(x, weight, targets)
    # Not with save_for_backward, because the backward pass changes them.
    ctx.sums = None if ctx.reduction == "none" else (d_x, d_weight)
    ctx.mark_non_differentiable(d_x, d_weight)
    ctx.set_materialize_grads(False)


def _loss_backward(ctx, d_loss, *_):
    none_for_settings = [None] * 8
    if d_loss is None:
        return None, None, *none_for_settings
    x, weight, targets = ctx.saved_tensors
    needs_x, needs_weight, *_ = ctx.needs_input_grad
    ignore_index = ctx.settings[0]
    if ctx.reduction == "mean":
        d_loss = d_loss / (targets != ignore_index).sum().clamp(min=1)
    if ctx.sums is None:
        scale = d_loss.expand(len(x))
        d_x, d_weight = torch.ops.llama_from_scratch.linear_cross_entropy_backward(
            scale, x, weight, targets, *ctx.settings, needs_x, needs_weight)
    else:
        (d_x, d_weight), ctx.sums = ctx.sums, None
        d_x = _rounded(d_x, d_loss, dtype=x.dtype) if needs_x else None
        d_weight = _rounded(d_weight, d_loss, dtype=weight.dtype) if needs_weight else None
    return d_x if needs_x else None, d_weight if needs_weight else None, *none_for_settings


def _no_second_derivative(ctx, *gradients):
    raise NotImplementedError("linear_cross_entropy has no second derivative. For one, use "
                              "F.cross_entropy(F.linear(x, weight), targets)")


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("linear_cross_entropy(Tensor x, Tensor weight, Tensor targets, str reduction,"
                " int ignore_index, float z_loss, int chunk_bytes, ScalarType products,"
                " bool needs_x, bool needs_weight) -> (Tensor, Tensor, Tensor)")
_library.define("linear_cross_entropy_backward(Tensor scale, Tensor x, Tensor weight,"
                " Tensor targets, int ignore_index, float z_loss, int chunk_bytes,"
                " ScalarType products, bool needs_x, bool needs_weight) -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("linear_cross_entropy", _loss, _device)
    _library.impl("linear_cross_entropy_backward", _gradients, _device)
torch.library.register_fake("llama_from_scratch::linear_cross_entropy", _fake_loss, lib=_library)
torch.library.register_fake(
    "llama_from_scratch::linear_cross_entropy_backward", _fake_gradients, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::linear_cross_entropy", _loss_backward, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::linear_cross_entropy_backward", _no_second_derivative, lib=_library)

"""RMSNorm as one kernel, alone or with the residual addition before it; forward and backward.

Plain PyTorch takes five passes over memory to normalize a row, and about fifteen for backward. Here
each direction is one pass: a row is read once, stays in registers while its size is computed, and
is written once. Every result is rounded where the plain model rounds it. For backward, only the
inputs and one number per row are kept.

Notebook 31. In every Llama: `model.norm`, notebook 11. Source: Zhang and Sennrich, Root Mean Square
Layer Normalization, arXiv:1910.07467, eq. 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.ladder import ladder, rung_named
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.tensors import aligned, n_processors, require_cuda

WARP, THREADS = 32, 256   # threads of a warp, and most threads of a block unless its rung has more
ROWS = 8                  # rows per block where a warp is enough for a row
VECTOR_BYTES = 16


@record
class RmsNormRung:
    """One entry point of rms_norm.cu, and what a launch needs to know about it.

    vectors: the number of 16-byte vectors of its row that a thread holds; None for an entry point
    that reads rows of any width, number by number.
    most_threads: the most threads of a block. is_full: whether a block always has this many,
    however narrow the row. is_thread_per_row: whether each thread has its own row; otherwise at
    least one warp shares a row.
    takes_n_rows, takes_residual: whether it has these parameters. In backward, the residual is
    called `dsum`.
    resident: if a few blocks visit all rows, the threads that a processor can hold at once, limited
    by registers; 0 if each row has its own block.
    """

    entry: str
    vectors: int | None = None
    most_threads: int = THREADS
    is_full: bool = False
    is_thread_per_row: bool = False
    takes_n_rows: bool = True
    takes_residual: bool = True
    resident: int = 0


FORWARD_RUNGS = ladder(
    RmsNormRung(entry="rms_norm_forward_1", is_full=True, is_thread_per_row=True,
                takes_residual=False),
    RmsNormRung(entry="rms_norm_forward_2", is_full=True, takes_n_rows=False, takes_residual=False),
    RmsNormRung(entry="rms_norm_forward", takes_n_rows=False),
    RmsNormRung(entry="rms_norm_forward_by1", vectors=1),
    RmsNormRung(entry="rms_norm_forward_by2", vectors=2),
    RmsNormRung(entry="rms_norm_forward_by4", vectors=4),
    RmsNormRung(entry="rms_norm_forward_by8", vectors=8, most_threads=512),
)
BACKWARD_RUNGS = ladder(
    RmsNormRung(entry="rms_norm_backward_1", is_full=True, takes_n_rows=False,
                takes_residual=False),
    RmsNormRung(entry="rms_norm_backward", resident=1024),
    RmsNormRung(entry="rms_norm_backward_by1", vectors=1, resident=1024),
    RmsNormRung(entry="rms_norm_backward_by2", vectors=2, resident=768),
    RmsNormRung(entry="rms_norm_backward_by4", vectors=4, resident=384),
    RmsNormRung(entry="rms_norm_backward_by8", vectors=8, resident=256),
)
LADDERS = {"forward": FORWARD_RUNGS, "backward": BACKWARD_RUNGS}


def rms_norm(
    x: Float[Tensor, "*batch D"], weight: Float[Tensor, " D"], *, eps: float, emulate: bool = False
) -> Float[Tensor, "*batch D"]:
    """Returns x / sqrt(mean(x^2) + eps) * weight over the last axis, in one launch.

    It equals `model.norm.RMSNorm`, and is differentiable once in x and weight. The mean and the
    division run in fp32 (fp64 for fp64). The quotient is rounded to x's dtype before it is
    multiplied. Raises ValueError for a weight of another width, dtype or device than x's, and for
    CPU tensors unless `emulate`.
    """
    require_cuda("rms_norm", x, emulate=emulate)
    return torch.ops.llama_from_scratch.rms_norm(x, weight, eps)[0]


def add_rms_norm(
    x: Float[Tensor, "*batch D"], residual: Float[Tensor, "*batch D"], *,
    weight: Float[Tensor, " D"], eps: float, emulate: bool = False,
) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, "*batch D"]]:
    """Returns the norm of x + residual, and x + residual, rounded as if it were computed alone.

    Raises ValueError as `rms_norm` does, and unless x and residual share shape, dtype and device.
    """
    require_cuda("add_rms_norm", x, emulate=emulate)
    return torch.ops.llama_from_scratch.add_rms_norm(x, residual, weight, eps)[:2]


@record
class Shape:
    """How a launch divides its rows: `vectors` per thread, `threads` per row, `rows` per block."""

    entry: str
    vectors: int | None
    threads: int
    rows: int


def shape_for(
    direction: str, *, n_columns: int, n_rows: int, dtype: torch.dtype, rung: str | None = None
) -> Shape:
    """Returns how to launch the fastest rung for rows of this width, or the given `rung`.

    direction: "forward" or "backward". Raises ValueError if that direction has no such rung, or the
    rung cannot take rows of this width.
    """
    rungs = LADDERS[direction]
    any_width = [each for each in rungs.values() if each.vectors is None][-1]
    by_vectors = [each for each in rungs.values() if each.vectors is not None]
    n_vectors, rest = divmod(n_columns, VECTOR_BYTES // dtype.itemsize)
    is_narrow = not rest and n_vectors <= 4 * WARP

    def fits(each: RmsNormRung) -> bool:
        return not rest and n_vectors <= each.vectors * each.most_threads

    if rung is None:
        n_threads = WARP if is_narrow else THREADS
        fast = next((each for each in by_vectors if n_vectors <= each.vectors * n_threads),
                    by_vectors[-1])
        chosen = fast if fits(fast) else any_width
    else:
        chosen = rung_named(rung, rungs)
    if chosen.vectors is None:
        threads = THREADS if chosen.is_full else min(THREADS, _whole_warps(n_columns))
        return Shape(entry=chosen.entry, vectors=None, threads=threads, rows=1)
    if not fits(chosen):
        raise ValueError(
            f"{chosen.entry} takes rows of whole 16-byte vectors, up to "
            f"{chosen.vectors * chosen.most_threads} of them; got {n_columns} columns of {dtype}. "
            f"{any_width.entry} takes rows of any width")
    threads = _whole_warps(-(-n_vectors // chosen.vectors))
    rows = min(ROWS, n_rows) if is_narrow and threads == WARP else 1
    return Shape(entry=chosen.entry, vectors=chosen.vectors, threads=threads, rows=rows)


def _whole_warps(n_threads: int) -> int:
    return -(-n_threads // WARP) * WARP


def run_forward(
    x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None,
    rung: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (y, x + residual, 1 / size of each row in fp32), by the fastest rung or `rung`.

    Autograd does not record it. Without a residual, the second result is x itself. Rungs 1 and 2
    take no residual.
    """
    x, weight = aligned(x), aligned(weight)
    residual = None if residual is None else aligned(residual)
    kernel, (n_rows, n_columns) = program("rms_norm", x.dtype), _rows(x)
    y, total = torch.empty_like(x), None if residual is None else torch.empty_like(x)
    inverse_size = torch.empty(x.shape[:-1], dtype=kernel.accum, device=x.device)
    if x.numel():
        shape = shape_for("forward", n_columns=n_columns, n_rows=n_rows, dtype=x.dtype, rung=rung)
        chosen = FORWARD_RUNGS[shape.entry]
        args = [x, residual, weight, y, total] if chosen.takes_residual else [x, weight, y]
        args += [inverse_size, n_rows] if chosen.takes_n_rows else [inverse_size]
        rows = shape.threads if chosen.is_thread_per_row else shape.rows
        launch(kernel, shape.entry, [*args, n_columns, eps], grid=-(-n_rows // rows),
               block=(shape.threads, shape.rows))
    return y, x if total is None else total, inverse_size


def run_backward(
    dy: Tensor, x: Tensor, *, weight: Tensor, inverse_size: Tensor, dsum: Tensor | None = None,
    rung: str | None = None, n_blocks: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns (dx, dweight), given what `run_forward` returned, by the fastest rung or `rung`.

    x: what was normalized, which is the sum if there was a residual. dsum: the gradient that
    reaches this sum in other ways; it is added to dx. Rung 1 takes no dsum. n_blocks: the number of
    blocks that visit all rows, by default as many as the device holds at once.
    """
    dy, x, weight = aligned(dy), aligned(x), aligned(weight)
    dsum = None if dsum is None else aligned(dsum)
    kernel, (n_rows, n_columns) = program("rms_norm", x.dtype), _rows(x)
    dx, dweight = torch.empty_like(x), torch.empty_like(weight)
    if not x.numel():
        return dx, dweight.zero_()
    shape = shape_for("backward", n_columns=n_columns, n_rows=n_rows, dtype=x.dtype, rung=rung)
    resident = BACKWARD_RUNGS[shape.entry].resident
    if not resident:
        launch(kernel, shape.entry, [dy, x, weight, inverse_size, dx, n_columns], grid=n_rows,
               block=THREADS)
        launch(kernel, "rms_norm_weight_gradient_1",
               [dy, x, inverse_size, dweight, n_rows, n_columns],
               grid=-(-n_columns // THREADS), block=THREADS)
        return dx, dweight
    per_processor = max(1, resident // (shape.threads * shape.rows))
    n_blocks = min(n_blocks or per_processor * n_processors(x.device), -(-n_rows // shape.rows))
    # One row per block of this grid.
    partial = torch.empty(n_blocks, n_columns, dtype=kernel.accum, device=x.device)
    launch(kernel, shape.entry, [dy, dsum, x, weight, inverse_size, dx, partial, n_rows, n_columns],
           grid=n_blocks, block=(shape.threads, shape.rows))
    launch(kernel, "rms_norm_column_sum", [partial, dweight, n_blocks, n_columns],
           grid=-(-n_columns // 32), block=(32, 32))
    return dx, dweight


def _rows(x: Tensor) -> tuple[int, int]:
    """Returns (rows, columns). All axes except the last are rows, whatever the tensor's rank."""
    n_columns = x.shape[-1]
    return x.numel() // max(1, n_columns), n_columns


def _check(x: Tensor, weight: Tensor, *like_x: Tensor | None) -> None:
    program("rms_norm", x.dtype)   # refuses integers
    if (x.ndim == 0 or weight.shape != x.shape[-1:] or weight.dtype != x.dtype
            or weight.device != x.device):
        raise ValueError("the weight must have one number per column of x, in x's dtype and on its "
                         f"device; got x {_told(x)}, weight {_told(weight)}. Convert the model "
                         "with .to(dtype)")
    for other in like_x:
        if other is not None and (other.shape != x.shape or other.dtype != x.dtype
                                  or other.device != x.device):
            raise ValueError("a residual and gradients must have x's shape, dtype and device; got "
                             f"x {_told(x)} and {_told(other)}")


def _told(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} on {x.device}"


# --- PyTorch operators ----------------------------------------------------------------------------


def _norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    _check(x, weight)
    y, _, inverse_size = run_forward(x, weight, eps=eps)
    return y, inverse_size


def _add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, residual)
    return run_forward(x, weight, eps=eps, residual=residual)


def _gradients(
    dy: Tensor, dsum: Tensor | None, x: Tensor, weight: Tensor, inverse_size: Tensor
) -> tuple[Tensor, Tensor]:
    _check(x, weight, dy, dsum)
    return run_backward(dy, x, weight=weight, inverse_size=inverse_size, dsum=dsum)


def _fake_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    _check(x, weight)
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1], dtype=program("rms_norm", x.dtype).accum)


def _fake_add_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, residual)
    y, inverse_size = _fake_norm(x, weight, eps)
    return y, x.new_empty(x.shape), inverse_size


def _fake_gradients(
    dy: Tensor, dsum: Tensor | None, x: Tensor, weight: Tensor, inverse_size: Tensor
) -> tuple[Tensor, Tensor]:
    _check(x, weight, dy, dsum)
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _save_norm(ctx, inputs, output) -> None:
    (x, weight, _), (_, inverse_size) = inputs, output
    ctx.save_for_backward(x, weight, inverse_size)
    ctx.mark_non_differentiable(inverse_size)


def _save_add_norm(ctx, inputs, output) -> None:
    (_, _, weight, _), (_, total, inverse_size) = inputs, output
    ctx.save_for_backward(total, weight, inverse_size)
    ctx.mark_non_differentiable(inverse_size)
    # A gradient that does not exist must not be read as zeros from memory.
    ctx.set_materialize_grads(False)


def _norm_backward(ctx, dy, _):
    dx, dweight = torch.ops.llama_from_scratch.rms_norm_backward(dy, None, *ctx.saved_tensors)
    return dx, dweight, None


def _add_norm_backward(ctx, dy, dsum, _):
    if dy is None:
        return dsum, dsum, None, None
    dx, dweight = torch.ops.llama_from_scratch.rms_norm_backward(dy, dsum, *ctx.saved_tensors)
    return dx, dx, dweight, None


def _no_second_derivative(ctx, *gradients):
    raise NotImplementedError("the rms_norm kernel has no second derivative. For one, use "
                              "model.norm.RMSNorm")


_library = torch.library.Library("llama_from_scratch", "FRAGMENT")
_library.define("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)")
_library.define("add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps)"
                " -> (Tensor, Tensor, Tensor)")
_library.define("rms_norm_backward(Tensor dy, Tensor? dsum, Tensor x, Tensor weight,"
                " Tensor inverse_size) -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("rms_norm", _norm, _device)
    _library.impl("add_rms_norm", _add_norm, _device)
    _library.impl("rms_norm_backward", _gradients, _device)
torch.library.register_fake("llama_from_scratch::rms_norm", _fake_norm, lib=_library)
torch.library.register_fake("llama_from_scratch::add_rms_norm", _fake_add_norm, lib=_library)
torch.library.register_fake("llama_from_scratch::rms_norm_backward", _fake_gradients, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::rms_norm", _norm_backward, setup_context=_save_norm, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::add_rms_norm", _add_norm_backward,
    setup_context=_save_add_norm, lib=_library)
torch.library.register_autograd(
    "llama_from_scratch::rms_norm_backward", _no_second_derivative, lib=_library)

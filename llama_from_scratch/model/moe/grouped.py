"""A product of each group of rows with its own matrix, which is how many experts work at once.

The rows of a group are neighbors, so its product reads and writes one piece of memory. Backward
writes the gradient of each matrix to its place in one tensor. PyTorch's own way, to split and to
join, would copy it once more. A matrix without rows is not read, and its gradient is zero.

Letters: E groups, M rows, D inputs, F outputs. Notebook 23. Llama 4. Source of the name: Gale et
al., MegaBlocks, arXiv:2211.15841, section 3.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def grouped_product(
    x: Float[Tensor, "copies D"], weight: Float[Tensor, "E D F"], *, counts: Sequence[int]
) -> Float[Tensor, "copies F"]:
    """Returns rows @ matrix for each group: the first `counts[0]` rows meet the first matrix.

    Under autocast it computes in autocast's dtype, as `@` does.
    Raises ValueError unless there is one count for each matrix, and they sum to M.
    """
    if len(counts) != len(weight) or sum(counts) != len(x) or min(counts) < 0:
        raise ValueError(f"each of the {len(weight)} matrices needs a number of rows, and their "
                         f"sum must be {len(x)}; got {list(counts)[:8]}, with the sum "
                         f"{sum(counts)}")
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
    return _GroupedProduct.apply(x, weight, tuple(counts))


class _GroupedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(len(x), weight.shape[2])
        for e, rows in _groups(counts):
            torch.mm(x[rows], weight[e], out=y[rows])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), dx, dw = ctx.saved_tensors, None, None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            for e, rows in _groups(ctx.counts):
                torch.mm(dy[rows], weight[e].T, out=dx[rows])
        if ctx.needs_input_grad[1]:
            dw = torch.zeros_like(weight)
            for e, rows in _groups(ctx.counts):
                torch.mm(x[rows].T, dy[rows], out=dw[e])
        return dx, dw, None


def _groups(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yields the number and the rows of each group that has rows."""
    start = 0
    for e, n in enumerate(counts):
        if n:
            yield e, slice(start, start + n)
        start += n

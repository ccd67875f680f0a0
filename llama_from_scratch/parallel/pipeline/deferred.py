"""Backward in two halves: what the rank before waits for now, and gradients of weights later.

Of y = x w^T, backward computes two products that do not need each other: dx = dy w, which the
layer before waits for, and dw = dy^T x, for which nothing waits before the optimizer. Here backward
computes the first and keeps x and dy, and the second is computed later: in what would be a bubble
of the pipeline. Both halves cost what a forward pass costs.

The gradient then enters its parameter through autograd, like any other, so that whatever watches
the parameter (data parallel, ZeRO) sees it. A weight that is used twice gets two contributions, and
products that are split into several outputs are one product here. Parameters that are not in such a
product, such as the norms' weights or experts, get their gradients at once.

Notebook 44. Source: Qi et al., Zero bubble pipeline parallelism, arXiv:2401.10241, section 2.1.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.parallel.tensor_parallel import RowLinear

_TOGETHER = 8
"""Gradients that exist at one time, before they are added to the parameters' own."""


@record
class Product:
    """The product dy^T x that is the gradient of a weight, not computed yet."""

    weight: nn.Parameter
    x: Float[Tensor, "rows n"]
    dy: Float[Tensor, "rows m"]

    def gradient(self) -> Float[Tensor, "m n"]:
        """Returns the product, in the weight's dtype."""
        return (self.dy.mT @ self.x).to(self.weight.dtype)


class WeightGradients:
    """Where backward puts off the gradients of weights. `split` gives it a model's layers."""

    def __init__(self) -> None:
        self._now: list[Product] | None = None

    def split(self, model: nn.Module) -> None:
        """Divides backward of every matrix product of `model`, in place.

        Its modules and parameters stay as they are, and so do their hooks.
        """
        for module in model.modules():
            if type(module) in (nn.Linear, RowLinear):
                adds_bias = type(module) is nn.Linear
                module.forward = functools.partial(_product, module, self, adds_bias=adds_bias)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[list[Product]]:
        """A context around a backward pass; yields the list of what it puts off, in its order."""
        before, self._now = self._now, []
        try:
            yield self._now
        finally:
            self._now = before

    def put_off(self, product: Product) -> None:
        """Keeps a product for later, or computes it outside of `collecting`."""
        if self._now is None:
            deliver([product])
        else:
            self._now.append(product)


def _product(
    layer: nn.Linear | RowLinear, store: WeightGradients, x: Float[Tensor, "*batch n"], *,
    adds_bias: bool,
) -> Float[Tensor, "*batch m"]:
    """Returns what the layer's own forward returns.

    Where no gradient flows to x, or none to the weight, there is only one product in backward.
    """
    bias = layer.bias if adds_bias else None
    if not (torch.is_grad_enabled() and x.requires_grad and layer.weight.requires_grad):
        return F.linear(x, layer.weight, bias)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    return _Divided.apply(x, bias, layer, store)


class _Divided(torch.autograd.Function):
    """x w^T + bias. The weight is no input of it, so that backward adds nothing to it at once."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, bias: Tensor | None, layer: nn.Linear | RowLinear,
        store: WeightGradients,
    ) -> Tensor:
        ctx.layer, ctx.store = layer, store
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x)
        return F.linear(x, layer.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple:
        (x,), w = ctx.saved_tensors, ctx.layer.weight
        rows = dy.flatten(0, -2)
        ctx.store.put_off(Product(weight=w, x=x.detach().flatten(0, -2), dy=rows))
        d_bias = rows.sum(0).to(ctx.bias_dtype) if ctx.needs_input_grad[1] else None
        return dy @ w.detach().to(dy.dtype), d_bias, None, None


def deliver(products: Sequence[Product]) -> None:
    """Computes gradients and adds them to the weights as backward does, so all hooks are called.

    Several at a time, because each call of backward takes time of its own.
    """
    for i in range(0, len(products), _TOGETHER):
        some = products[i : i + _TOGETHER]
        with torch.enable_grad():
            _Given.apply([each.gradient() for each in some], *(p.weight for p in some)).backward()


class _Given(torch.autograd.Function):
    """Nothing, whose gradients are given."""

    @staticmethod
    def forward(ctx: FunctionCtx, gradients: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return gradients[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, _: Tensor) -> tuple:
        return None, *ctx.gradients

"""Backward in two halves: what the rank before waits for now, and gradients of weights later.

Of y = x w^T, backward computes two products that do not need each other: dx = dy w, which the
layer before waits for, and dw = dy^T x, for which nothing waits before the optimizer. A deferred
layer computes the first and keeps x and dy, and the second is computed when `run` is called: in
what would be a bubble of the pipeline. Both halves cost what a forward pass costs.

The gradient then enters its parameter through autograd, like any other, so that whatever watches
the parameter (data parallel, ZeRO) sees it. A weight that is used twice gets two contributions, and
products that are split into several outputs are one product here. Parameters that are not in a
matrix product, such as the norms' weights, get their gradients at once.

Notebook 44. Source: Qi et al., Zero bubble pipeline parallelism, arXiv:2401.10241, section 2.1.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from llama_from_scratch.parallel.tensor_parallel import RowLinear

Later = Callable[[], None]


class WeightGradients:
    """The products that backward has put off. Outside of `collecting` nothing is put off."""

    def __init__(self) -> None:
        self._now: list[Later] | None = None

    @contextlib.contextmanager
    def collecting(self) -> Iterator[list[Later]]:
        """A context around a backward pass; yields the list of what it put off, in its order."""
        before, self._now = self._now, []
        try:
            yield self._now
        finally:
            self._now = before

    def put_off(self, later: Later) -> None:
        """Keeps a product for later, or computes it if nobody collects."""
        if self._now is None:
            later()
        else:
            self._now.append(later)


class DeferredLinear(nn.Module):
    """A linear layer whose weight's gradient may be computed later.

    It takes the parameters of `linear` over, an `nn.Linear` or a layer with its weight and bias,
    such as `tensor_parallel.RowLinear`. `adds_bias`: whether its own forward adds the bias.
    """

    def __init__(self, linear: nn.Module, store: WeightGradients, *, adds_bias: bool) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.store, self.adds_bias = store, adds_bias

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        narrow = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(
            x.device.type) else None
        y = _Deferred.apply(x if narrow is None else x.to(narrow), self.weight, narrow, self.store)
        return y + self.bias.to(y.dtype) if self.adds_bias and self.bias is not None else y


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, w: Tensor, narrow: torch.dtype | None, store: WeightGradients
    ) -> Tensor:
        ctx.store, ctx.w = store, w  # the parameter itself: its memory may come and go meanwhile
        ctx.save_for_backward(x, w)
        return F.linear(x, w if narrow is None else w.to(narrow))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            rows, their_dy = x.detach().flatten(0, -2), dy.flatten(0, -2)
            parameter = ctx.w
            ctx.store.put_off(lambda: deliver(
                parameter, (their_dy.mT @ rows).to(parameter.dtype)))
        dx = dy @ w.to(dy.dtype) if ctx.needs_input_grad[0] else None
        return dx, None, None, None


def deliver(p: nn.Parameter, gradient: Float[Tensor, "*shape"]) -> None:
    """Adds a gradient to a parameter as backward does, so that all its hooks are called."""
    with torch.enable_grad():
        _Given.apply(p, gradient).backward()


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, p: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return gradient.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, _: Tensor) -> tuple:
        return ctx.gradient, None


def defer(model: nn.Module) -> WeightGradients:
    """Replaces, in place, each layer that is a matrix product; returns where products wait.

    The names of the parameters stay. A layer that is there twice is replaced by one layer.
    """
    store, made = WeightGradients(), {}
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if type(child) is nn.Linear or type(child) is RowLinear:
                if child not in made:
                    made[child] = DeferredLinear(child, store,
                                                 adds_bias=type(child) is nn.Linear)
                setattr(owner, name, made[child])
    return store

"""Backward in two halves: what the rank before waits for now, and gradients of weights later.

Of y = x w^T, backward computes two products that do not need each other: dx = dy w, which the
layer before waits for, and dw = dy^T x, for which nothing waits before the optimizer. Here backward
computes the first and keeps x and dy, and the second is computed when it is called: in what would
be a bubble of the pipeline. Both halves cost what a forward pass costs.

The gradient then enters its parameter through autograd, like any other, so that whatever watches
the parameter (data parallel, ZeRO) sees it. A weight that is used twice gets two contributions, and
products that are split into several outputs are one product here. Parameters that are not in such a
product, such as the norms' weights or experts, get their gradients at once.

Notebook 44. Source: Qi et al., Zero bubble pipeline parallelism, arXiv:2401.10241, section 2.1.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Later = Callable[[], None]


class WeightGradients(TorchFunctionMode):
    """A context around forward passes; their backward passes put off the gradients of weights.

    It sees every `F.linear`, in whatever module. Where no gradient flows to x, or none to the
    weight, there is only one product, and nothing to put off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now: list[Later] | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and torch.is_grad_enabled():
            x, w, *bias = args
            if isinstance(w, nn.Parameter) and w.requires_grad and x.requires_grad:
                return _Deferred.apply(_as_autocast(x), *(bias or [None]), lambda: w, self)
        return func(*args, **kwargs or {})

    @contextlib.contextmanager
    def collecting(self) -> Iterator[list[Later]]:
        """A context around a backward pass; yields the list of what it puts off, in its order."""
        before, self._now = self._now, []
        try:
            yield self._now
        finally:
            self._now = before

    def put_off(self, later: Later) -> None:
        """Keeps a product for later, or computes it outside of `collecting`."""
        if self._now is None:
            later()
        else:
            self._now.append(later)


class _Deferred(torch.autograd.Function):
    """x w^T + bias. The weight is no input of it, so that backward adds nothing to it at once."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, bias: Tensor | None, weight: Callable[[], nn.Parameter],
        store: WeightGradients,
    ) -> Tensor:
        ctx.weight, ctx.store = weight, store
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x)
        return F.linear(x, weight().detach().to(x.dtype),
                        None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple:
        (x,), w = ctx.saved_tensors, ctx.weight()
        rows, their_dy = x.detach().flatten(0, -2), dy.flatten(0, -2)
        ctx.store.put_off(lambda: deliver(w, (their_dy.mT @ rows).to(w.dtype)))
        d_bias = their_dy.sum(0).to(ctx.bias_dtype) if ctx.needs_input_grad[1] else None
        return dy @ w.detach().to(dy.dtype), d_bias, None, None


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


def _as_autocast(x: Tensor) -> Tensor:
    """Returns x in the dtype in which PyTorch would multiply it here."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x

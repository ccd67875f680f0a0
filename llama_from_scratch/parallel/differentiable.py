"""Collectives through which gradients flow.

There are two kinds of tensors on several ranks. A **common** tensor has the same values on all
ranks, and all do the same with it: it is one variable, stored several times. Of an **own** tensor
each rank has its own values, or does something else with them: it is as many variables as there are
ranks. The gradient of a common tensor is common too. The loss is the sum over the ranks of what
each computes from own tensors; what all compute from common ones counts once.

The gradient of a collective is another collective, and each pair serves both directions:

                     forward             backward            from     to
    copy             nothing to do       all-reduce          common   own
    add_up           all-reduce          nothing to do       own      common
    gather           all-gather          this rank's slice   own      common
    scatter          this rank's slice   all-gather          common   own
    all_gather       all-gather          reduce-scatter      own      own
    reduce_scatter   reduce-scatter      all-gather          own      own
    all_to_all       all-to-all          all-to-all          own      own

So an all-gather has two gradients, depending on whether all ranks do the same with the result. With
the wrong one, a gradient misses what the other ranks contribute, or counts it several times.

Notebook 40. Source: Megatron-LM, arXiv:1909.08053, section 3, which calls copy f and add_up g.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from llama_from_scratch.parallel.comm import RankGroup


def copy(x: Shaped[Tensor, "*any"], group: RankGroup, *, note: str = "") -> Shaped[Tensor, "*any"]:
    """Returns the common x for a use of this rank's own; the gradient is added up."""
    return x if group.size == 1 else _Copy.apply(x, group, note)


def add_up(
    x: Shaped[Tensor, "*any"], group: RankGroup, *, note: str = ""
) -> Shaped[Tensor, "*any"]:
    """Returns the sum of every rank's x, which is common; the gradient is passed on as it is."""
    return x if group.size == 1 else _AddUp.apply(x, group, note)


def gather(
    x: Shaped[Tensor, "*part"], group: RankGroup, *, axis: int, note: str = ""
) -> Shaped[Tensor, "*whole"]:
    """Returns the parts of all ranks along `axis`, which all ranks use for the same.

    The gradient is cut: this rank gets its slice.
    """
    return x if group.size == 1 else _Gather.apply(x, group, axis, note)


def scatter(
    x: Shaped[Tensor, "*whole"], group: RankGroup, *, axis: int, note: str = ""
) -> Shaped[Tensor, "*part"]:
    """Returns this rank's slice of the common x along `axis`; the gradient is gathered.

    Raises ValueError if the size of the group does not divide the axis.
    """
    return x if group.size == 1 else _Scatter.apply(x, group, axis, note)


def all_gather(
    x: Shaped[Tensor, "*part"], group: RankGroup, *, axis: int, note: str = ""
) -> Shaped[Tensor, "*whole"]:
    """Returns the parts of all ranks along `axis`, which each rank uses in its own way.

    The gradients are added up and cut: this rank gets its slice of the sum.
    """
    return x if group.size == 1 else _AllGather.apply(x, group, axis, note)


def reduce_scatter(
    x: Shaped[Tensor, "*whole"], group: RankGroup, *, axis: int, note: str = ""
) -> Shaped[Tensor, "*part"]:
    """Returns this rank's slice along `axis` of the sum over the ranks; the gradient is gathered.

    Raises ValueError if the size of the group does not divide the axis.
    """
    return x if group.size == 1 else _ReduceScatter.apply(x, group, axis, note)


def all_to_all(
    x: Shaped[Tensor, "rows *rest"], group: RankGroup, *, sent: Sequence[int] | None = None,
    received: Sequence[int] | None = None, note: str = "",
) -> Shaped[Tensor, "others *rest"]:
    """Returns the rows that every rank has for this one; their gradients travel back.

    `sent`, `received`: as in `RankGroup.all_to_all`.
    """
    return x if group.size == 1 else _AllToAll.apply(x, group, sent, received, note)


# --- the pairs ----------------------------------------------------------------------------------


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, note: str) -> Tensor:
        ctx.group, ctx.note = group, note
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return _sum(gradient, ctx.group, _backward(ctx.note)), None, None


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, note: str) -> Tensor:
        return _sum(x, group, note)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return gradient, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
        ctx.group, ctx.axis = group, axis
        return _gathered(x, group, axis, note)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return _slice(gradient, ctx.group, ctx.axis), None, None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
        ctx.group, ctx.axis, ctx.note = group, axis, note
        return _slice(x, group, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return _gathered(gradient, ctx.group, ctx.axis, _backward(ctx.note)), None, None, None


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
        ctx.group, ctx.axis, ctx.note = group, axis, note
        return _gathered(x, group, axis, note)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return _summed_slice(gradient, ctx.group, ctx.axis, _backward(ctx.note)), None, None, None


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
        ctx.group, ctx.axis, ctx.note = group, axis, note
        return _summed_slice(x, group, axis, note)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        return _gathered(gradient, ctx.group, ctx.axis, _backward(ctx.note)), None, None, None


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, group: RankGroup, sent: Sequence[int] | None,
        received: Sequence[int] | None, note: str,
    ) -> Tensor:
        ctx.group, ctx.sent, ctx.received, ctx.note = group, sent, received, note
        return group.all_to_all(x, sent=sent, received=received, note=note)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple:
        back = ctx.group.all_to_all(gradient, sent=ctx.received, received=ctx.sent,
                                    note=_backward(ctx.note))
        return back, None, None, None, None


# --- along any axis -----------------------------------------------------------------------------


def _sum(x: Tensor, group: RankGroup, note: str) -> Tensor:
    return group.all_reduce(x.clone(memory_format=torch.contiguous_format), note=note)


def _gathered(x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
    whole = group.all_gather(x.movedim(axis, 0).contiguous(), note=note)
    return whole.movedim(0, axis).contiguous()


def _summed_slice(x: Tensor, group: RankGroup, axis: int, note: str) -> Tensor:
    _refuse_uneven("reduce_scatter", x, group, axis)
    part = group.reduce_scatter(x.movedim(axis, 0).contiguous(), note=note)
    return part.movedim(0, axis).contiguous()


def _slice(x: Tensor, group: RankGroup, axis: int) -> Tensor:
    _refuse_uneven("scatter", x, group, axis)
    length = x.shape[axis] // group.size
    return x.narrow(axis, group.rank * length, length).clone(memory_format=torch.contiguous_format)


def _refuse_uneven(op: str, x: Tensor, group: RankGroup, axis: int) -> None:
    if x.shape[axis] % group.size:
        raise ValueError(f"{op} divides the axis evenly among the ranks; axis {axis} of "
                         f"{tuple(x.shape)} has length {x.shape[axis]} for {group.size} ranks. "
                         f"Pad it to a multiple of {group.size}")


def _backward(note: str) -> str:
    return f"gradient of {note}" if note else "gradient"

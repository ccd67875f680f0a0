"""Rounds a matrix to a grid: by the largest weight of each group, or with a range that is searched.

The scale is rounded to fp16 first, and the weights are divided by the scale as it is stored. So its
rounding costs no accuracy. A clipped range is smaller than the largest weight: that one gets a
larger error, and all others a smaller step.

Letters: D rows (outputs), F weights in a row (inputs). Notebook 60.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from llama_from_scratch.config import record
from llama_from_scratch.model.grid import WeightGrid, values

SHRINKS = tuple(1.0 - 0.03 * i for i in range(16))
"""The shares of a group's range that a search tries."""
_TINY = 2.0**-24
"""The smallest number above 0 in fp16: the scale of a group of zeros."""
_LARGEST = 65504.0


@record
class Rounded:
    """A matrix on a grid: a number for each weight, a scale and perhaps a zero for each group.

    `numbers`: from 0 on, ready to be packed. `zeros`: None unless the grid has zero points.
    """

    grid: WeightGrid
    numbers: UInt8[Tensor, "D F"]
    scales: Float[Tensor, "D groups"]
    zeros: UInt8[Tensor, "D groups"] | None

    def values(self) -> Float[Tensor, "D F"]:
        """Returns the matrix that the numbers stand for, in fp32."""
        return values(self.numbers, self.scales, self.zeros, grid=self.grid)


def round_to(
    weight: Float[Tensor, "D F"], grid: WeightGrid, *, is_clipped: bool = False,
    importance: Float[Tensor, " F"] | None = None,
) -> Rounded:
    """Returns the matrix on the grid, each weight at the nearest value.

    `is_clipped`: each group takes the share of its range, one of SHRINKS, with the smallest squared
    error. `importance`: how much the squared error of each column counts in this search, such as
    the mean square of the input.
    Raises ValueError for weights that are no matrix of finite numbers, or too large for fp16
    scales, and for importances that are negative, not one for each column, or without a search.
    """
    _refuse_other_weights(weight)
    if importance is not None:
        _refuse_other_importance(importance, weight, is_clipped=is_clipped)
    grouped, is_real = _grouped(weight.detach().float(), grid)
    if not is_clipped:
        return _joined(*_round(grouped, grid, shrink=1.0), grid=grid, row=weight.shape[1])
    counts = torch.ones(weight.shape[1]) if importance is None else importance.float()
    weights_GC, _ = _grouped(counts.to(weight.device)[None], grid)
    best, least = None, None
    for shrink in SHRINKS:
        found = _round(grouped, grid, shrink=shrink)
        error = ((_values(*found, grid=grid) - grouped).square() * weights_GC * is_real).sum(-1)
        if best is None:
            best, least = found, error
            continue
        is_better = error < least
        least = torch.where(is_better, error, least)
        best = tuple(None if old is None else torch.where(
            is_better[..., None] if new.ndim == 3 else is_better, new, old)
            for new, old in zip(found, best, strict=True))
    return _joined(*best, grid=grid, row=weight.shape[1])


# --- one group after the other --------------------------------------------------------------------


def _grouped(
    weight: Float[Tensor, "D F"], grid: WeightGrid
) -> tuple[Float[Tensor, "D groups group"], Float[Tensor, "groups group"]]:
    """Returns groups, the last one filled up with zeros, and 1 where a weight is real."""
    F = weight.shape[1]
    group = grid.group or F
    missing = grid.n_groups(F) * group - F
    is_real = functional.pad(torch.ones(F, device=weight.device), (0, missing))
    return (functional.pad(weight, (0, missing)).unflatten(1, (-1, group)),
            is_real.unflatten(0, (-1, group)))


def _round(
    w: Float[Tensor, "D groups group"], grid: WeightGrid, *, shrink: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns numbers, scales and zeros of groups whose range is shrunk."""
    half = 2 ** (grid.bits - 1)
    if grid.has_zeros:
        low, high = w.amin(-1).clamp(max=0) * shrink, w.amax(-1).clamp(min=0) * shrink
        scales = _stored((high - low) / (2 * half - 1))
        zeros = (-low / scales.float()).round().clamp(0, 2 * half - 1)
        numbers = (w / scales.float()[..., None]).round() + zeros[..., None]
        return numbers.clamp(0, 2 * half - 1).to(torch.uint8), scales, zeros.to(torch.uint8)
    largest = w.abs().amax(-1)
    if grid.kind == "normal":
        scales = _stored(largest * shrink)
        levels = grid.levels().to(w.device)
        borders = (levels[1:] + levels[:-1]) / 2
        numbers = torch.bucketize(w / scales.float()[..., None], borders)
        return numbers.to(torch.uint8), scales, None
    if grid.kind == "symmetric":
        scales, lowest = _stored(largest * shrink / (half - 1)), 1 - half
    else:
        extreme = w.gather(-1, w.abs().argmax(-1, keepdim=True))[..., 0]
        scales, lowest = _stored(extreme * shrink / -half), -half
    numbers = (w / scales.float()[..., None]).round().clamp(lowest, half - 1) + half
    return numbers.to(torch.uint8), scales, None


def _stored(scales: Tensor) -> Tensor:
    """Returns scales in fp16, none of them 0, so that a group of zeros can be divided by it."""
    halves = scales.to(torch.float16)
    return torch.where(halves == 0, torch.full_like(halves, _TINY), halves)


def _values(
    numbers: Tensor, scales: Tensor, zeros: Tensor | None, *, grid: WeightGrid
) -> Float[Tensor, "D groups group"]:
    levels = grid.levels().to(numbers.device)[numbers.long()]
    if zeros is not None:
        levels = levels - zeros.float()[..., None]
    return levels * scales.float()[..., None]


def _joined(
    numbers: Tensor, scales: Tensor, zeros: Tensor | None, *, grid: WeightGrid, row: int
) -> Rounded:
    return Rounded(grid=grid, numbers=numbers.flatten(1)[:, :row].contiguous(), scales=scales,
                   zeros=zeros)


def _refuse_other_weights(weight: Tensor) -> None:
    if weight.ndim != 2 or not weight.is_floating_point() or 0 in weight.shape:
        raise ValueError("a weight to round must be a matrix of floating-point numbers; got "
                         f"{tuple(weight.shape)} of {weight.dtype}")
    if not weight.isfinite().all():
        raise ValueError("a weight to round must be finite; got "
                         f"{int((~weight.isfinite()).sum())} of {weight.numel()} that are not. "
                         "Check the checkpoint, or the run that made it")
    if (largest := weight.abs().max().item()) > _LARGEST:
        raise ValueError("scales are stored in fp16, which ends at 65,504; got a weight of "
                         f"{largest:g}. Check the checkpoint")


def _refuse_other_importance(importance: Tensor, weight: Tensor, *, is_clipped: bool) -> None:
    if not is_clipped:
        raise ValueError("importances decide the search for a range, and nothing else; got some "
                         "with is_clipped=False. Set is_clipped=True, or leave them out")
    if importance.shape != weight.shape[1:] or not (importance >= 0).all():
        raise ValueError("there is one importance for each column, and none below 0; got "
                         f"{tuple(importance.shape)} for {weight.shape[1]} columns")

"""Mistakes with a softmax: its logarithm, its axis, or the scale before it."""

import math

import torch
from torch import Tensor

from llama_from_scratch.lessons.check.diagnosis.factors import FACTOR_TOL, describe_factor
from llama_from_scratch.lessons.check.diagnosis.sameness import (
    REL_TOL,
    Values,
    is_plain,
    is_same,
    wide,
)


def logarithm(mine: Values, expected: Values) -> str | None:
    """Returns a message if a logarithm or a softmax is missing or there is one too many, else None.
    """
    pair = (mine.shape == expected.shape and mine.ndim and is_plain(mine)
            and not expected.is_complex())
    if not pair or not mine.is_floating_point():
        return None
    x = wide(mine)
    for axis in reversed(range(x.ndim)):
        if x.shape[axis] > 1 and not is_same(x.exp().sum(axis), torch.ones_like(x.sum(axis))):
            for name, values in (("softmax", x.softmax(axis)),
                                 ("log_softmax", x.log_softmax(axis))):
                if is_same(values, expected):
                    return f"the {name} over axis {axis} is missing: yours are the values before it"
    for values, words in (
        (x.exp(), "yours are the natural logarithms of the expected values: apply exp, or use "
                  "softmax instead of log_softmax"),
        (x.exp2(), "yours are the base-2 logarithms of the expected values"),
        (x.log(), "the logarithm is missing: the expected "
                  "values are the natural logarithms of yours"),
        (x.log2(), "the logarithm is missing: the expected "
                   "values are the base-2 logarithms of yours"),
    ):
        if is_same(values, expected):
            return words
    return None


def _sums_to_one(x: Tensor) -> set[int]:
    return {axis for axis in range(x.ndim) if x.shape[axis] > 1
            and is_same(x.sum(axis), torch.ones_like(x.sum(axis)))}


def _are_weights(mine: Tensor, expected: Tensor) -> bool:
    """Returns whether both hold weights with zeros in the same places.

    Then their logarithms can be compared.
    """
    return (mine.shape == expected.shape and mine.is_floating_point()
            and expected.is_floating_point()
            and bool((mine >= 0).all() and (expected >= 0).all())
            and torch.equal(mine == 0, expected == 0))


def softmax_over_wrong_axis(mine: Values, expected: Values) -> str | None:
    """Returns a message if weights of the same scores sum to 1 along another axis, else None."""
    if not _are_weights(mine, expected):
        return None
    m, e = wide(mine), wide(expected)
    yours, wanted = (sorted(_sums_to_one(m) - _sums_to_one(e)),
                     sorted(_sums_to_one(e) - _sums_to_one(m)))
    if len(yours) != 1 or len(wanted) != 1:
        return None
    # Two softmaxes of one score differ by a constant per row and one per column, which every 2 x 2
    # square cancels.
    gap = (m.log() - e.log()).movedim((yours[0], wanted[0]), (-2, -1))
    square = gap.diff(dim=-1).diff(dim=-2)
    square = square[square.isfinite()]
    if not len(square) or square.abs().max() > 100 * REL_TOL:
        return None
    return (f"your softmax is over axis {yours[0]}, because the sums along it are 1. It should be "
            f"over axis {wanted[0]}")


def scaled_before_softmax(mine: Values, expected: Values) -> str | None:
    """Returns a message if the weights are too sharp or too flat by one factor, else None.

    The cause is that the scores before the softmax were too large or too small by that factor.
    """
    if not _are_weights(mine, expected) or mine.ndim == 0:
        return None
    m, e = wide(mine), wide(expected)
    for axis in _sums_to_one(m) & _sums_to_one(e):
        visible = e > 0
        n = visible.sum(axis, keepdim=True).clamp_min(1)
        logs = [torch.where(visible, x.log(), 0.0) for x in (m, e)]
        lm, le = (torch.where(visible, x - x.sum(axis, keepdim=True) / n, 0.0) for x in logs)
        if len(le.unique()) < 4 or not (le * le).sum():
            continue
        factor = ((lm * le).sum() / (le * le).sum()).item()
        if abs(factor - 1) > 10 * REL_TOL and is_same(lm, factor * le):
            return f"before the softmax, every score is {describe_factor(_rounded(factor))}"
    return None


def _rounded(factor: float) -> float:
    """Returns the square root, or one over it, that is near the factor, or else the factor itself.

    Near means within the error that a softmax in float32 leaves.
    """
    names = (value for n in range(2, 257) for value in (math.sqrt(n), 1 / math.sqrt(n)))
    return next((value for value in names if math.isclose(factor, value, rel_tol=5 * FACTOR_TOL)),
                factor)

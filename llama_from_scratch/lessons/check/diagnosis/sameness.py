"""When two tensors count as the same, and when this is more than chance.

Every diagnosis uses these functions.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

Values = Shaped[Tensor, "..."]

# The error of float32 after some hundred operations; every mistake named here changes far more.
REL_TOL = 1e-4


def is_same(a: Values, b: Values) -> bool:
    """Returns whether the shapes are equal and the values agree within REL_TOL; NaN equals NaN."""
    if a.shape != b.shape:
        return False
    a, b = wide(a), wide(b)
    finite = b[b.isfinite()].abs()
    return torch.allclose(a, b, rtol=REL_TOL, atol=0.1 * REL_TOL * finite.max().item()
                          if len(finite) else 0.0, equal_nan=True)


def wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def is_plain(*tensors: Tensor) -> bool:
    """Returns whether tensors hold enough different real numbers that they cannot agree by chance.
    """
    return all(not x.is_complex() and x.dtype != torch.bool and len(x[x.isfinite()].unique()) >= 3
               for x in tensors)


def finite_pair(mine: Tensor, expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the finite values of both, in float64.

    Returns None if the shapes differ, values are complex, or their infinities and NaNs differ.
    """
    if mine.shape != expected.shape or mine.is_complex() or expected.is_complex():
        return None
    mine, expected = wide(mine), wide(expected)
    where = expected.isfinite()
    if not torch.equal(where, mine.isfinite()) or not torch.equal(mine[~where].nan_to_num(),
                                                                  expected[~where].nan_to_num()):
        return None
    return mine[where], expected[where]

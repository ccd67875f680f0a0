"""When two tensors count as the same, and what makes an equality strong enough to be no accident.

Every diagnosis is built on these few questions.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

Values = Shaped[Tensor, "..."]

REL_TOL = 1e-4  # float32 after some hundred operations; far below any mistake named here


def is_same(a: Values, b: Values) -> bool:
    """True if shapes are equal, and values within REL_TOL of their size; NaN equals NaN."""
    if a.shape != b.shape:
        return False
    a, b = wide(a), wide(b)
    finite = b[b.isfinite()].abs()
    return torch.allclose(a, b, rtol=REL_TOL, atol=0.1 * REL_TOL * finite.max().item()
                          if len(finite) else 0.0, equal_nan=True)


def wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def is_plain(*tensors: Tensor) -> bool:
    """True for real numbers with enough different values that an equality is no accident."""
    return all(not x.is_complex() and x.dtype != torch.bool and len(x[x.isfinite()].unique()) >= 3
               for x in tensors)


def finite_pair(mine: Tensor, expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """The finite values of both, in float64; None if they are not finite in different places."""
    if mine.shape != expected.shape or mine.is_complex() or expected.is_complex():
        return None
    mine, expected = wide(mine), wide(expected)
    where = expected.isfinite()
    if not torch.equal(where, mine.isfinite()) or not torch.equal(mine[~where].nan_to_num(),
                                                                  expected[~where].nan_to_num()):
        return None
    return mine[where], expected[where]

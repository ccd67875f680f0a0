"""A mask that lets the wrong pairs through, and values that are not finite."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from llama_from_scratch.lessons.check.diagnosis.sameness import Values, is_same, wide


def masked_wrong(mine: Values, expected: Values) -> str | None:
    """Returns a message if a mask lets the wrong pairs through and the rest is equal, else None.

    A mask is seen in booleans, in scores with -inf, or in weights with zeros.
    """
    if (mine.shape != expected.shape or mine.ndim < 2 or mine.dtype != expected.dtype
        or mine.is_complex()):
        return None
    m, e = _visible(mine, expected), _visible(expected, mine)
    if torch.equal(m, e) or not _agree_under(mine, expected, m & e):
        return None
    if e.all():
        return "something is masked where nothing should be"
    if torch.equal(m, ~e):
        return "the mask is inverted: True and False are exchanged"
    bands = _band(m), _band(e)
    if m.all():
        return ("nothing is masked: tokens see the tokens after them" if bands[1] is not None else
                "nothing is masked")
    if None not in bands:
        step = bands[0] - bands[1]
        if step == 1:
            return "the mask is off by one: each token also sees the next one"
        if step == -1:
            is_diagonal = bands[1] == e.shape[-1] - e.shape[-2]
            return ("the mask is off by one: no token sees itself" if is_diagonal else
                    "the mask is off by one: each token sees one token too few")
        return (f"the mask is off by {abs(step)}: each token sees {abs(step)} tokens too "
                f"{'many' if step > 0 else 'few'}")
    if torch.equal(m, e.mT if m.shape[-1] == m.shape[-2] else ~m):
        return ("the mask is upside down: rows and columns are "
                "exchanged, so tokens see what comes after them")
    extra, missing = (m & ~e).sum().item(), (e & ~m).sum().item()
    n, what, verb = (extra, m & ~e, "lets through") if extra else (missing, e & ~m, "blocks")
    place = what.nonzero()[0].tolist()
    return (f"the mask {verb} {n} {'pair' if n == 1 else 'pairs'} that it should "
            f"{'block' if extra else 'let through'}, the first at {place}")


def _visible(x: Tensor, other: Tensor) -> Tensor:
    if x.dtype == torch.bool:
        return x
    if (x == -math.inf).any() or (other == -math.inf).any():
        return x != -math.inf
    return x != 0


def _agree_under(mine: Tensor, expected: Tensor, both: Tensor) -> bool:
    if mine.dtype == torch.bool:
        return True
    if is_same(mine.mT, expected):
        return False
    if not mine.is_floating_point() or not both.any():
        return False
    if (expected == -math.inf).any() or (mine == -math.inf).any():
        return is_same(mine[both], expected[both])
    # in weights, the visible part of each row was divided by its sum
    rows = [torch.where(both, wide(x), 0.0) for x in (mine, expected)]
    is_weights = all(is_same(x.sum(-1), torch.ones(x.shape[:-1])) for x in (mine, expected))
    return is_weights and is_same(*(x / x.sum(-1, keepdim=True).clamp_min(1e-300) for x in rows))


def _band(visible: Bool[Tensor, "... T S"]) -> int | None:
    """Returns d if every query t sees the keys up to t + d, else None."""
    offset = int(visible[(0,) * (visible.ndim - 2)][0].sum()) - 1
    offset = (offset if offset >= 0
              else -int((~visible.any(-1)).reshape(-1, visible.shape[-2])[0].sum()))
    return offset if torch.equal(visible, torch.ones_like(visible).tril(offset)) else None


def not_finite(mine: Values, expected: Values) -> str | None:
    """Returns a message if a value is NaN or infinite where a finite one is expected, else None."""
    if mine.shape != expected.shape:
        return None
    bad = ~mine.isfinite() & expected.isfinite()
    if not bad.any():
        return None
    place, value = bad.nonzero()[0].tolist(), mine[bad][0].item()
    if mine.ndim and mine[bad].isnan().all():
        rows = bad.all(-1)
        if (torch.equal(bad, rows[..., None].expand_as(bad)) and not rows.all()
            and is_same(mine[~bad], expected[~bad])):
            n = rows.sum().item()
            return (f"{n} whole {'row is' if n == 1 else 'rows are'} NaN, the first at "
                    f"{place[:-1]}, and all other values are right. In a row where everything is "
                    "masked, the softmax is 0 / 0. Each token must see at least itself")
        return (f"the first NaN is at {place}: it comes from 0 / 0, inf - inf, or the logarithm or "
                "root of a negative number")
    return (f"the first value that is not finite is {value} at {place}: it comes from a division "
            "by 0, log(0), or exp of a large number")

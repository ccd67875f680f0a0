"""The wrong numbers by a rule: a sign, a factor, an offset, or a factor for each row or channel."""

import math

import torch

from llama_from_scratch.lessons.check.diagnosis.sameness import (
    REL_TOL,
    Values,
    finite_pair,
    is_plain,
    is_same,
    wide,
)

# a factor is a mean over many values; so tight that few numbers pass for a square root by chance
FACTOR_TOL = 2e-6
MAX_N = 512  # the largest n of which 1/n or sqrt(n) is recognised


def sign_flipped(mine: Values, expected: Values) -> str | None:
    """Everything times -1."""
    if (expected.dtype == torch.bool or not expected.any()
        or not is_same(-wide(mine), wide(expected))):
        return None
    return "the sign is flipped: a minus is missing or too many"


def conjugated(mine: Values, expected: Values) -> str | None:
    """Complex numbers turned the other way."""
    if mine.is_complex() and expected.is_complex() and is_same(mine.conj(), expected):
        return "the complex conjugate: everything is turned the other way (a sign in the exponent)"
    return None


def constant_factor(mine: Values, expected: Values) -> str | None:
    """Returns a message if every value is too large by the same factor, else None.

    The factor may come from a scale, a mean confused with a sum, or a logarithm of another base.
    """
    pair = finite_pair(mine, expected)
    if pair is None or mine.dtype == torch.bool or not (pair[1] != 0).any():
        return None
    m, e = pair
    factor = ((m @ e) / (e @ e)).item()
    if not factor or is_same(-m, e) or not is_same(m, factor * e):
        return None
    is_logarithm = any(math.isclose(factor, f, rel_tol=10 * FACTOR_TOL)
                       for f in (math.log(2), 1 / math.log(2)))
    if not is_logarithm and not is_plain(mine, expected):
        return None  # two numbers always have a ratio
    return f"every value is {describe_factor(factor)}"


def describe_factor(factor: float) -> str:
    """Returns a factor in words, such as "4 = √16 times the expected: ..."."""
    def is_near(value) -> bool:
        return math.isclose(abs(factor), value, rel_tol=FACTOR_TOL)

    sign = "-" if factor < 0 else ""
    ln2 = math.log(2)
    if math.isclose(factor, ln2, rel_tol=10 * FACTOR_TOL):
        return ("ln 2 times the expected: natural logarithms (nats) "
                "where base 2 (bits) is expected; divide by ln 2")
    if math.isclose(factor, 1 / ln2, rel_tol=10 * FACTOR_TOL):
        return ("1/ln 2 times the expected: base 2 (bits) where natural logarithms (nats) are "
                "expected; multiply by ln 2")
    for n in range(2, MAX_N + 1):
        if is_near(n):
            return (f"{sign}{n} times the expected: a factor 1/{n} is missing, such as a mean over "
                    f"{n} that became a sum, or 1/√K with K = {n * n}")
        if is_near(1 / n):
            return (f"{sign}1/{n} of the expected: it was divided by {n} too often, such as a sum "
                    f"over {n} that became a mean, or 1/√K with K = {n * n}")
        if is_near(math.sqrt(n)):
            return (f"{sign}√{n} times the expected: a scale 1/√{n} "
                    f"is missing (1/√K for heads of K = {n} channels)")
        if is_near(1 / math.sqrt(n)):
            return f"{sign}1/√{n} of the expected: the scale 1/√{n} is applied once too often"
    return f"{factor:.6g} times the expected"


def constant_offset(mine: Values, expected: Values) -> str | None:
    """Every value is the same amount too large."""
    pair = finite_pair(mine, expected)
    if pair is None or not is_plain(mine, expected):
        return None
    offset = (pair[0] - pair[1]).mean().item()
    if abs(offset) > 10 * REL_TOL * pair[1].abs().max() and is_same(pair[0] - offset, pair[1]):
        return (f"every value is {abs(offset):.6g} too {'large' if offset > 0 else 'small'}: one "
                "constant was added or left out")
    return None


def factor_per_slice(mine: Values, expected: Values) -> str | None:
    """A factor of its own for each channel, or for each row."""
    pair = (mine.shape == expected.shape and 2 <= mine.ndim
            and min(mine.shape[-1], mine[..., 0].numel()) >= 3)
    if not pair or not is_plain(mine, expected):
        return None
    m, e = wide(mine), wide(expected)
    others = tuple(range(mine.ndim - 1))
    last = mine.ndim - 1
    for axes, words in (
        (others, f"each entry of axis {last} is off by a factor of its "
                 "own: a weight per channel is left out or doubled"),
        ((last,), f"each row along axis {last} is off by a factor of its own: it is divided by "
                  "another sum, mean or root"),
    ):
        factors = (m * e).sum(axes, keepdim=True) / (e * e).sum(axes, keepdim=True)
        if (factors.isfinite().all() and not is_same(factors, factors.mean().expand_as(factors))
            and is_same(m, factors * e)):
            return words
    return None

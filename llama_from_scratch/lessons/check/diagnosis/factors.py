"""Numbers that are wrong by a rule: a sign, a factor, an offset, a factor for each row or channel.
"""

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

# A factor is a mean over many values, so the tolerance can be small. With a larger one, other
# numbers would be mistaken for square roots.
FACTOR_TOL = 2e-6
MAX_N = 512  # the largest n for which 1/n or sqrt(n) is recognized


def sign_flipped(mine: Values, expected: Values) -> str | None:
    """Returns a message if every value has the wrong sign, else None."""
    if (expected.dtype == torch.bool or not expected.any()
        or not is_same(-wide(mine), wide(expected))):
        return None
    return "the sign is wrong: there is one minus too many or too few"


def conjugated(mine: Values, expected: Values) -> str | None:
    """Returns a message if yours are the complex conjugates of the expected values, else None."""
    if mine.is_complex() and expected.is_complex() and is_same(mine.conj(), expected):
        return ("yours is the complex conjugate: everything is turned in the other direction "
                "(check the sign in the exponent)")
    return None


def constant_factor(mine: Values, expected: Values) -> str | None:
    """Returns a message if every value is too large by the same factor, else None.

    The factor may come from a scale, a sum instead of a mean, or a logarithm with another base.
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
    """Returns a factor in words, such as "√8 times the expected value: a scale 1/√8 is missing"."""
    def is_near(value) -> bool:
        return math.isclose(abs(factor), value, rel_tol=FACTOR_TOL)

    sign = "-" if factor < 0 else ""
    ln2 = math.log(2)
    if math.isclose(factor, ln2, rel_tol=10 * FACTOR_TOL):
        return ("ln 2 times the expected value: yours is in nats (natural logarithms), and bits "
                "(base 2) are expected; divide by ln 2")
    if math.isclose(factor, 1 / ln2, rel_tol=10 * FACTOR_TOL):
        return ("1/ln 2 times the expected value: yours is in bits (base 2), and nats (natural "
                "logarithms) are expected; multiply by ln 2")
    for n in range(2, MAX_N + 1):
        if is_near(n):
            return (f"{sign}{n} times the expected value: a factor 1/{n} is missing. Did you take "
                    f"a sum over {n} values instead of their mean, or leave out 1/√K with K = "
                    f"{n * n}?")
        if is_near(1 / n):
            return (f"{sign}1/{n} of the expected value: there is one division by {n} too many. "
                    f"Did you take a mean over {n} values instead of their sum, or divide by √K "
                    f"twice with K = {n * n}?")
        if is_near(math.sqrt(n)):
            return (f"{sign}√{n} times the expected value: a scale 1/√{n} "
                    f"is missing (1/√K for heads of K = {n} channels)")
        if is_near(1 / math.sqrt(n)):
            return (f"{sign}1/√{n} of the expected value: the scale 1/√{n} is applied one time too "
                    "many")
    return f"{factor:.6g} times the expected value"


def constant_offset(mine: Values, expected: Values) -> str | None:
    """Returns a message if every value is too large by the same amount, else None."""
    pair = finite_pair(mine, expected)
    if pair is None or not is_plain(mine, expected):
        return None
    offset = (pair[0] - pair[1]).mean().item()
    if abs(offset) > 10 * REL_TOL * pair[1].abs().max() and is_same(pair[0] - offset, pair[1]):
        return (f"every value is {abs(offset):.6g} too {'large' if offset > 0 else 'small'}: a "
                "constant was added or left out")
    return None


def factor_per_slice(mine: Values, expected: Values) -> str | None:
    """Returns a message if each channel, or each row, is wrong by a factor of its own, else None.
    """
    pair = (mine.shape == expected.shape and 2 <= mine.ndim
            and min(mine.shape[-1], mine[..., 0].numel()) >= 3)
    if not pair or not is_plain(mine, expected):
        return None
    m, e = wide(mine), wide(expected)
    others = tuple(range(mine.ndim - 1))
    last = mine.ndim - 1
    for axes, words in (
        (others, f"each entry of axis {last} is wrong by a factor of its own: a weight for each "
                 "channel is left out or applied twice"),
        ((last,), f"each row along axis {last} is wrong by a factor of its own: the row is divided "
                  "by the wrong sum, mean or root"),
    ):
        factors = (m * e).sum(axes, keepdim=True) / (e * e).sum(axes, keepdim=True)
        if (factors.isfinite().all() and not is_same(factors, factors.mean().expand_as(factors))
            and is_same(m, factors * e)):
            return words
    return None

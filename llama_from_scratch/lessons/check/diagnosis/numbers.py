"""How one wrong number follows from the right one: twice, the reciprocal, bits instead of bytes."""

import math

_REL_TOL = 1e-9
_ROUNDED_REL_TOL = 2e-3

_FACTORS = {
    8: "exactly 8 times the expected number: did you count bits instead of bytes?",
    1 / 8: "exactly 1/8 of the expected number: did you count bytes instead of bits?",
    100: "exactly 100 times the expected number: did you give a percentage, not a fraction?",
    1 / 100: "exactly 1/100 of the expected number: did you give a fraction, not a percentage?",
    math.log(2): "ln 2 times the expected number: yours is in nats, and bits are expected. Divide "
                 "by ln 2",
    1 / math.log(2): "1/ln 2 times the expected number: yours is in bits, and nats are expected. "
                     "Multiply by ln 2",
}


def related(mine: complex | float | int, expected: complex | float | int) -> str | None:
    """Returns words for how `mine` follows from `expected`, or None if no simple rule gives it."""
    if isinstance(mine, bool) or isinstance(expected, bool) or not _are_plain(mine, expected):
        return None
    if mine == -expected:
        return "the sign is wrong: there is one minus too many or too few"
    if isinstance(expected, int) and abs(mine - expected) == 1 and abs(expected) > 2:
        return (f"exactly one too {'many' if mine > expected else 'few'}: check whether the first "
                "and the last are counted")
    if abs(expected) != 1 and math.isclose(mine * expected, 1, rel_tol=_REL_TOL):
        return "the reciprocal of the expected number: numerator and denominator are exchanged"
    return _factor(mine / expected) or _function(mine, expected)


def _are_plain(mine: complex | float | int, expected: complex | float | int) -> bool:
    return (isinstance(mine, float | int) and isinstance(expected, float | int)
            and math.isfinite(mine) and math.isfinite(expected)
            and mine not in (0, expected) and expected != 0)


def _factor(ratio: float) -> str | None:
    for factor, words in _FACTORS.items():
        if math.isclose(ratio, factor, rel_tol=_REL_TOL):
            return words
    return _unit(ratio) or _whole(ratio)


def _unit(ratio: float) -> str | None:
    """Returns words for a ratio that is a power of 1000 or 1024, or of one over the other."""
    for power in range(1, 5):
        sign = "⁰¹²³⁴"[power] if power > 1 else ""
        decimal, binary = f"1000{sign}", f"1024{sign}"
        for value, words in {
            1000.0**power: f"{decimal} times the expected number: the task asks for another unit",
            1000.0**-power: f"1/{decimal} of the expected number: the task asks for another unit",
            1024.0**power: f"{binary} times the expected number: the task asks for another unit",
            1024.0**-power: f"1/{binary} of the expected number: the task asks for another unit",
            1.024**power: f"in units of {decimal}, and the task asks for units of {binary}",
            1.024**-power: f"in units of {binary}, and the task asks for units of {decimal}",
        }.items():
            if math.isclose(ratio, value, rel_tol=_REL_TOL):
                return words
    return None


def _whole(ratio: float) -> str | None:
    for n in range(2, 513):
        if math.isclose(ratio, n, rel_tol=_REL_TOL):
            return (f"exactly {'twice' if n == 2 else f'{n} times'} the expected number: "
                    f"a factor 1/{n} is missing, or there is one factor {n} too many")
        if math.isclose(ratio, 1 / n, rel_tol=_REL_TOL):
            return (f"exactly {'half' if n == 2 else f'1/{n}'} of the expected number: "
                    f"a factor {n} is missing, or there is one factor 1/{n} too many")
    return None


def _function(mine: float | int, expected: float | int) -> str | None:
    if expected > 0 and math.isclose(mine, expected**2, rel_tol=_REL_TOL):
        return "the square of the expected number: a square root is missing"
    if expected > 0 and math.isclose(mine, math.sqrt(expected), rel_tol=_REL_TOL):
        return "the square root of the expected number: there is one square root too many"
    if expected > 0 and math.isclose(mine, math.log(expected), rel_tol=_REL_TOL):
        return "the logarithm of the expected number: take its exponential"
    if mine > 0 and math.isclose(math.log(mine), expected, rel_tol=_REL_TOL):
        return "the exponential of the expected number: take its logarithm"
    if math.isclose(mine, 1 - expected, rel_tol=_REL_TOL):
        return "one minus the expected number: the task asks for the other part of the whole"
    if math.isclose(mine, expected, rel_tol=_ROUNDED_REL_TOL):
        return "close, but not exact: give the number without rounding it"
    return None

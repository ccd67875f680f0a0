"""What one wrong number has to do with the right one: twice, the reciprocal, bytes for bits."""

import math

_REL_TOL = 1e-9
_ROUNDED_REL_TOL = 2e-3

_FACTORS = {
    8: "exactly 8 times the expected, as if bits were counted instead of bytes",
    1 / 8: "exactly 1/8 of the expected, as if bytes were counted instead of bits",
    100: "exactly 100 times the expected, as a percentage is of a fraction",
    1 / 100: "exactly 1/100 of the expected, as a fraction is of a percentage",
    math.log(2): "ln 2 times the expected: nats where bits are asked for; divide by ln 2",
    1 / math.log(2): "1/ln 2 times the expected: bits where nats are asked for; multiply by ln 2",
}


def related(mine: complex | float | int, expected: complex | float | int) -> str | None:
    """Returns in words how `mine` follows from `expected`, or None if no simple rule gives it."""
    if isinstance(mine, bool) or isinstance(expected, bool) or not _are_plain(mine, expected):
        return None
    if mine == -expected:
        return "the sign is flipped: a minus is missing, or there is one too many"
    if isinstance(expected, int) and abs(mine - expected) == 1 and abs(expected) > 2:
        return f"exactly one too {'many' if mine > expected else 'few'}: look at both ends"
    if abs(expected) != 1 and math.isclose(mine * expected, 1, rel_tol=_REL_TOL):
        return "the reciprocal of the expected: numerator and denominator are exchanged"
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
    """Thousands and 1,024s: a kilo, mega, giga or tera left out, doubled, or of the other kind."""
    for power in range(1, 5):
        sign = "⁰¹²³⁴"[power] if power > 1 else ""
        decimal, binary = f"1000{sign}", f"1024{sign}"
        for value, words in {
            1000.0**power: f"{decimal} times the expected: another unit is asked for",
            1000.0**-power: f"1/{decimal} of the expected: another unit is asked for",
            1024.0**power: f"{binary} times the expected: another unit is asked for",
            1024.0**-power: f"1/{binary} of the expected: another unit is asked for",
            1.024**power: f"in units of {decimal} where units of {binary} are asked for",
            1.024**-power: f"in units of {binary} where units of {decimal} are asked for",
        }.items():
            if math.isclose(ratio, value, rel_tol=_REL_TOL):
                return words
    return None


def _whole(ratio: float) -> str | None:
    for n in range(2, 513):
        if math.isclose(ratio, n, rel_tol=_REL_TOL):
            return (f"exactly {'twice' if n == 2 else f'{n} times'} the expected: "
                    f"a factor 1/{n} is missing, or there is a factor {n} too many")
        if math.isclose(ratio, 1 / n, rel_tol=_REL_TOL):
            return (f"exactly {'half' if n == 2 else f'1/{n}'} of the expected: "
                    f"a factor {n} is missing, or there is a factor 1/{n} too many")
    return None


def _function(mine: float | int, expected: float | int) -> str | None:
    if expected > 0 and math.isclose(mine, expected**2, rel_tol=_REL_TOL):
        return "the square of the expected: a root is missing"
    if expected > 0 and math.isclose(mine, math.sqrt(expected), rel_tol=_REL_TOL):
        return "the square root of the expected: there is one root too many"
    if expected > 0 and math.isclose(mine, math.log(expected), rel_tol=_REL_TOL):
        return "the logarithm of the expected: take its exponential"
    if mine > 0 and math.isclose(math.log(mine), expected, rel_tol=_REL_TOL):
        return "the exponential of the expected: take its logarithm"
    if math.isclose(mine, 1 - expected, rel_tol=_REL_TOL):
        return "one minus the expected: the other part of the whole"
    if math.isclose(mine, expected, rel_tol=_ROUNDED_REL_TOL):
        return "close, but not exact: give the number before it was rounded"
    return None

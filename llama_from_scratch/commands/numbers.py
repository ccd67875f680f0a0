"""Reads numbers from the command line, each within the range of its argument.

Whether a number suits a model is checked where it is used. These readers refuse only numbers that
are never valid, such as one of 400 digits, or `nan`.
"""

import argparse
import math
from collections.abc import Callable

_MOST = 2**31 - 1


def whole(*, least: int = 1, most: int = _MOST) -> Callable[[str], int]:
    """Returns a function for argparse that reads a whole number from `least` to `most`."""
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # also for more digits than Python reads
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least:,} to {most:,}; got {text!r:.40}")
        return number

    return read


def seed() -> Callable[[str], int]:
    """Returns a function for argparse that reads a seed: a whole number of 63 bits and a sign."""
    return whole(least=-2**63, most=2**63 - 1)


def real(text: str) -> float:
    """Returns the finite number in a text, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number; got {text!r:.40}")
    return number

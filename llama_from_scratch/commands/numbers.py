"""Numbers on the command line: each is read within the range that its argument has.

What a number means for a model is judged where it is used; here is refused what no use can take,
such as a number of 400 digits, or `nan`.
"""

import argparse
import math
from collections.abc import Callable

_MOST = 2**31 - 1


def whole(*, least: int = 1, most: int = _MOST) -> Callable[[str], int]:
    """A reader, for argparse, of a whole number from `least` to `most`."""
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # also for more digits than Python reads
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"takes a whole number from {least:,} to {most:,}; got {text!r:.40}")
        return number

    return read


def seed() -> Callable[[str], int]:
    """A reader of a seed, which is any number of 63 bits and a sign."""
    return whole(least=-2**63, most=2**63 - 1)


def real(text: str) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"takes a finite number; got {text!r:.40}")
    return number

"""Mistakes that readers make in chapter 59."""

import math
from collections.abc import Callable, Sequence

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


@listed("59.1", of="most_important")
def smallest_change(before: float, after: Sequence[float]) -> int:
    """the smallest effect wins here: the sentence matters whose loss lowers the gap most"""
    return min(range(len(after)), key=lambda i: before - after[i])


@listed("59.1", of="most_important")
def largest_size(before: float, after: Sequence[float]) -> int:
    """a gap that rises counts as well: a sentence that held the answer back is no cause"""
    return max(range(len(after)), key=lambda i: abs(before - after[i]))


@listed("59.1", of="most_important")
def largest_gap(before: float, after: Sequence[float]) -> int:
    """the largest gap is left where the sentence did least"""
    return max(range(len(after)), key=lambda i: after[i])


@listed("59.2", of="along_the_way")
def at_the_end(slope: Callable[[float], float], x0: float, x: float, n: int) -> float:
    """only the slope at the end is used: that is gradient times input"""
    return (x - x0) * slope(x)


@listed("59.2", of="along_the_way")
def at_left_ends(slope: Callable[[float], float], x0: float, x: float, n: int) -> float:
    """the slopes at the beginning of each piece are used: take the middle, i + 0.5"""
    return (x - x0) * sum(slope(x0 + i / n * (x - x0)) for i in range(n)) / n


@listed("59.2", of="along_the_way")
def without_length(slope: Callable[[float], float], x0: float, x: float, n: int) -> float:
    """the mean slope is not multiplied by the length of the way"""
    return sum(slope(x0 + (i + 0.5) / n * (x - x0)) for i in range(n)) / n


@listed("59.3", of="log_odds")
def difference_of_shares(share: float) -> float:
    """the difference of the two probabilities: the gap is the difference of their logarithms"""
    return share - (1 - share)


@listed("59.3", of="log_odds")
def log_of_the_share(share: float) -> float:
    """only one of the two probabilities counts here: subtract the log of the other"""
    return math.log(share)


@listed("59.3", of="log_odds")
def the_other_way(share: float) -> float:
    """the sign is wrong: more "she" is a positive gap"""
    return math.log((1 - share) / share)

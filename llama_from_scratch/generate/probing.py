"""Measures which of several ways to compute the same thing is fastest on this machine.

What is fast on one processor is slow on another, so it is measured before use.

Notebook 16.
"""

import statistics
import time
from collections.abc import Callable, Sequence

N_TURNS = 7
BUDGET_S = 1.0
"""No more turns begin after this, so that measuring a large model does not take long."""
_HOPELESS = 3
"""A way that takes over this many times as long as the best in the first turn is dropped."""


def fastest(
    ways: Sequence[Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Returns the number of the way that takes the least time, the first of several equal ones.

    Each is called once before, because a first call may prepare things. Then they alternate, and
    their medians are compared, so that a moment in which the machine is busy does not decide.
    `clock` is for tests.
    """
    began = clock()
    first_s = [_time_s(way, clock) for way in ways]
    least_s = min(first_s)
    tried = [i for i, time_s in enumerate(first_s) if time_s <= _HOPELESS * least_s]
    if len(tried) == 1:
        return tried[0]
    times_s: dict[int, list[float]] = {i: [] for i in tried}
    for _ in range(N_TURNS):
        for i in tried:
            times_s[i].append(_time_s(ways[i], clock))
        if clock() - began > BUDGET_S:
            break
    return min(tried, key=lambda i: statistics.median(times_s[i]))


def _time_s(way: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    way()
    return clock() - began

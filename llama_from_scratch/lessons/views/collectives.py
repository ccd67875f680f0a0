"""Shows how long an all-reduce takes, three ways, by ranks, size and network.

Used by chapter 40.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.parallel import ways

RANKS = {f"{2**i:,}": 2**i for i in range(1, 15)}
SIZES = {f"{size:g} {unit}": int(size * scale) for unit, scale in (
    ("KB", 10**3), ("MB", 10**6), ("GB", 10**9)) for size in (1, 10, 100)}
LATENCIES = {"1 µs": 1e-6, "10 µs": 1e-5, "100 µs": 1e-4, "1 ms": 1e-3}
BANDWIDTHS = {"0.1 GB/s": 1e8, "1 GB/s": 1e9, "10 GB/s": 1e10, "50 GB/s": 5e10, "450 GB/s": 4.5e11}
_COLORS = {"naive": ORANGE, "tree": GREEN, "ring": BLUE}


def all_reduce_costs(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with ranks, size, latency and bandwidth, which shows the three times.

    `start`: other first values, such as {"n_ranks": 1024}.
    """
    return explore(
        all_reduce_costs_frame, title="An all-reduce, three ways",
        controls={"n_ranks": RANKS, "n_bytes": SIZES, "latency_s": LATENCIES,
                  "bytes_per_s": BANDWIDTHS},
        labels={"n_ranks": "ranks", "n_bytes": "size of the tensor", "latency_s": "latency",
                "bytes_per_s": "bandwidth"},
        start={"n_ranks": 64, "n_bytes": 10**6, "latency_s": 1e-5, "bytes_per_s": 5e10} | dict(
            start or {}))


def all_reduce_costs_frame(
    n_ranks: int, n_bytes: int, latency_s: float, bytes_per_s: float
) -> Figure:
    """Draws the time of each way: left at this size, in its two parts, right at any size."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 1.25))
    network = dict(latency_s=latency_s, bytes_per_s=bytes_per_s)
    costs = {way: ways.all_reduce(way, n_ranks, n_bytes=n_bytes) for way in ways.WAYS}
    times = {way: found.seconds(**network) for way, found in costs.items()}
    for way, found in costs.items():
        waits = found.n_steps * latency_s
        left.barh(way, 1e3 * waits, color="0.75")
        left.barh(way, 1e3 * (times[way] - waits), left=1e3 * waits, color=_COLORS[way])
        left.text(1e3 * times[way], way, f" {duration(times[way])}", va="center", fontsize=11)
    left.set_yticks(range(len(costs)), list(costs), fontweight="bold")
    for label, color in zip(left.get_yticklabels(), _COLORS.values(), strict=True):
        label.set_color(color)
    left.invert_yaxis()
    left.set(xlim=(0, 1.45e3 * max(times.values())), xlabel="ms (gray: latency)")
    left.locator_params(axis="x", nbins=4)
    sizes = np.logspace(3, 11, 60)
    for way, color in _COLORS.items():
        right.plot(sizes, [1e3 * ways.all_reduce(way, n_ranks, n_bytes=int(size)).seconds(**network)
                           for size in sizes], color=color, label=way)
        right.plot(n_bytes, 1e3 * times[way], "o", color=color)
    right.axvline(n_bytes, color=BLACK, linewidth=1, linestyle=":")
    right.set(xscale="log", yscale="log", xlabel="bytes of the tensor", ylabel="ms")
    fastest = min(times, key=times.get)
    told = "; ".join(f"{way} {found.n_steps:,} steps, {float(found.n_bytes) / n_bytes:,.4g} times "
                     f"the tensor, {duration(times[way])}" for way, found in costs.items())
    fig.set_label(f"{n_ranks:,} ranks, steps and bytes one after the other: {told}. The {fastest} "
                  "is fastest.")
    return fig


def duration(time_s: float) -> str:
    """Returns a time with a unit that fits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if time_s >= scale:
            return f"{time_s / scale:.3g} {unit}"
    return f"{time_s * 1e9:.3g} ns"

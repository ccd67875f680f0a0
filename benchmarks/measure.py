"""What every benchmark shares: contestants that take turns, medians, and one form of results file.

On a shared machine absolute times mean little. A ratio of two things measured in turns within one
run means more.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def race(
    contestants: Mapping[str, Callable[[], object]], *, n_rounds: int, n_warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; in a round each of them runs once.

    For work on one thread, `clock=time.process_time` counts the processor's seconds, which are what
    an idle machine would need.
    """
    times = {name: [] for name in contestants}
    for _ in range(n_warmup + n_rounds):
        for name, run in contestants.items():
            began = clock()
            run()
            times[name].append(clock() - began)
    return {name: seconds[n_warmup:] for name, seconds in times.items()}


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times longer `slow` took than `fast`: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def processor() -> str:
    """The processor's name."""
    about = Path("/proc/cpuinfo")
    for line in about.read_text().splitlines() if about.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(name: str, results: Mapping[str, Any], *, packages: tuple[str, ...]) -> Path:
    """Writes results/<name>.json: the results, and the machine, date and versions behind them."""
    about = {
        "date": date.today().isoformat(), "processor": processor(), "n_cores": os.cpu_count(),
        "system": platform.platform(), "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about} | dict(results), indent=2) + "\n")
    return path

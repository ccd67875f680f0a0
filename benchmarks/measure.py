"""What all benchmarks share: contestants that take turns, medians, and the results file.

On a shared machine, absolute times mean little. A ratio of two things that take turns within one
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
    """Returns the seconds of each contestant in each round. In a round, each of them runs once.

    For work on one thread, `clock=time.process_time` counts processor seconds, which equal the time
    on an idle machine.
    """
    times = {name: [] for name in contestants}
    for _ in range(n_warmup + n_rounds):
        for name, run in contestants.items():
            began = clock()
            run()
            times[name].append(clock() - began)
    return {name: seconds[n_warmup:] for name, seconds in times.items()}


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """Returns how many times as long `slow` took as `fast`: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def processor() -> str:
    """Returns the processor's name."""
    about = Path("/proc/cpuinfo")
    for line in about.read_text().splitlines() if about.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(name: str, results: Mapping[str, Any], *, packages: tuple[str, ...]) -> Path:
    """Writes results/<name>.json, with the machine, the date and versions; returns its path."""
    about = {
        "date": date.today().isoformat(), "processor": processor(), "n_cores": os.cpu_count(),
        "system": platform.platform(), "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about} | dict(results), indent=2) + "\n")
    return path

"""How the trial measures: times of calls, and the floors that no kernel can go below.

CUDA graphs are replayed, so that the times contain no work of the CPU. The floors are a copy and a
matrix product of PyTorch, measured in the same run as everything that is compared with them. The
product multiplies random numbers, because a GPU multiplies zeros with less power and so faster.

Notebook 36.
"""

import datetime
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.kernels.machinery import resources
from llama_from_scratch.kernels.machinery.source import FOLDER

N_REPEATS = 25
COPY_BYTES = 2 * 2**30
PRODUCT_SIZE = 8192   # of a square matrix
# At least the L2 cache of any GPU so far. Buffers that a user would find in memory, and not in the
# cache, together take four times as much.
L2_BYTES = 64 * 2**20
# As nvidia-smi calls them. Older drivers do not know the last one.
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "temperature.gpu",
          "clocks_event_reasons.active")
LOAD_SECONDS = 1.5   # of matrix products, while the clocks are read

Calls = Sequence[Callable[[], object]]


@record
class Time:
    """Microseconds per call: the median over replays, and the 20th and 80th percentile.

    `is_graph`: whether a CUDA graph was replayed. Otherwise the CPU's work for each call may be in
    it.
    """

    median: float
    p20: float
    p80: float
    is_graph: bool = True


@record
class Sheet:
    """A GPU's limits by its maker's data sheet: bytes, and dense bf16 operations, per second."""

    bytes_per_s: float
    operations_per_s: float


SHEETS = {"H200": Sheet(bytes_per_s=4.8e12, operations_per_s=989e12)}


@record
class Floors:
    """What this GPU reaches in this run: a copy, read and written, and a bf16 matrix product.

    `sheet`: what its data sheet promises; None for a device that is not in `SHEETS`.
    """

    copy_bytes_per_s: float
    product_operations_per_s: float
    sheet: Sheet | None


def time_graph(prepare: Callable[[], Calls], *, n_repeats: int = N_REPEATS) -> Time:
    """Returns microseconds per call in a CUDA graph of all calls that `prepare` returns.

    `prepare` runs on the stream that is captured, because the backward pass of PyTorch runs on the
    stream of its forward pass.
    """
    stream, calls = _warmed(prepare)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept = [call() for call in calls]
    graph.replay()
    times = _replays(graph.replay, n_repeats, n_calls=len(calls))
    del kept
    return _time(times, is_graph=True)


def time_stream(prepare: Callable[[], Calls], *, n_repeats: int = N_REPEATS) -> Time:
    """Returns microseconds per call without a graph, for what cannot be captured in one."""
    stream, calls = _warmed(prepare)
    with torch.cuda.stream(stream):
        times = _replays(lambda: [call() for call in calls], n_repeats, n_calls=len(calls))
    return _time(times, is_graph=False)


def _warmed(prepare: Callable[[], Calls]) -> tuple[torch.cuda.Stream, Calls]:
    """Returns the calls, after what compiles, tunes or allocates on first use has done so."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls = prepare()
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.synchronize()
    return stream, calls


def _replays(run: Callable[[], object], n_repeats: int, *, n_calls: int) -> list[float]:
    times = []
    for _ in range(n_repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / n_calls)
    return times


def _time(times: Sequence[float], *, is_graph: bool) -> Time:
    fifths = statistics.quantiles(times, n=5)
    return Time(median=statistics.median(times), p20=fifths[0], p80=fifths[-1], is_graph=is_graph)


def floors(device: torch.device) -> Floors:
    """Returns what a copy and a matrix product reach on this device, and its data sheet."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Floors(copy_bytes_per_s=copy_bandwidth(device),
                  product_operations_per_s=product_rate(device),
                  sheet=next((sheet for known, sheet in SHEETS.items() if known in name), None))


def copy_bandwidth(device: torch.device) -> float:
    """Returns bytes per second, read and written, of a device-to-device copy of 2 GiB."""
    source = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / (time_graph(lambda: [lambda: target.copy_(source)]).median * 1e-6)


def product_rate(device: torch.device) -> float:
    """Returns operations per second of the bf16 product of two random square matrices."""
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device, dtype=torch.bfloat16)
            for _ in range(2))
    return 2 * PRODUCT_SIZE**3 / (time_graph(lambda: [lambda: a @ b]).median * 1e-6)


def clocks_under_load(device: torch.device, floors: Floors) -> dict[str, str]:
    """Returns the `clocks` while the device multiplies matrices."""
    a = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device, dtype=torch.bfloat16)
    n = LOAD_SECONDS * floors.product_operations_per_s / (2 * PRODUCT_SIZE**3)
    for _ in range(int(n)):   # only queued: the CPU goes on at once
        torch.mm(a, a)
    return clocks()


def clocks() -> dict[str, str]:
    """Returns what nvidia-smi says of the first GPU's clocks, power and throttling, or nothing."""
    if not (program := shutil.which("nvidia-smi")):
        return {}
    for names in (CLOCKS, CLOCKS[:-1]):
        try:
            done = subprocess.run(
                [program, "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=20)
        except subprocess.TimeoutExpired:
            return {}
        values = [value.strip() for value in done.stdout.strip().split(",")]
        if len(values) == len(names):
            return dict(zip(names, values, strict=True))
    return {}


def versions() -> dict[str, str]:
    """Returns today's date, and the versions of what takes part in a measurement.

    "kernels" is the beginning of a digest of all kernel files, which changes with any of them.
    """
    texts = [path.read_text() for path in sorted((*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")))]
    return {"date": datetime.date.today().isoformat(), "torch": torch.__version__,
            "cuda": str(torch.version.cuda), "python": platform.python_version(),
            "compiler": resources.compiler_name(), "kernels": digest(*texts)[:12]}


def describe_machine() -> dict[str, str]:
    """Returns what the times are measured on: the first GPU."""
    device = torch.cuda.get_device_properties(0)
    return {"device": device.name, "compute_capability": f"{device.major}.{device.minor}",
            "n_multiprocessors": str(device.multi_processor_count),
            "memory_gib": f"{device.total_memory / 2**30:.0f}"}


def as_data(measured: Any) -> dict[str, Any]:
    """Returns a record of this module in types that JSON can hold."""
    return asdict(measured)

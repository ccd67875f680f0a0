"""Measures how fast the kernels are, compared with everything else that does the same.

`python -m llama_from_scratch.kernels.trial.bench` runs it.

Every kernel here is bound by memory, so it is compared with a copy. No kernel can take less time
than the bytes that it must move, divided by the bandwidth of a device-to-device copy in the same
run. Each row also times eager PyTorch, `torch.compile`, and the best library function, on the same
buffers in the same run. CUDA graphs are replayed, so that the times contain no work of the CPU.
Buffers rotate, so that nothing is found in the L2 cache. The times are medians of repeated replays,
with the 20th and 80th percentile. A row with a wrong result is marked, not left out.

Notebook 36 draws the results of real runs, from `benchmarks/results`.
"""

import argparse
import datetime
import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.machinery import resources
from llama_from_scratch.kernels.trial import compare
from llama_from_scratch.train.optimizer import AdamW, Group

N_REPEATS = 25
# At least the L2 cache of any GPU so far. The buffers of a row together take four times as much.
L2_BYTES = 64 * 2**20
COPY_BYTES = 2 * 2**30
N_PARAMETERS = 2**28   # of the AdamW row: 28 bytes each make 7.5 GB


@record
class Time:
    """Microseconds per call: the median over replays, and the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float


@record
class BenchRow:
    """Holds the times of one kernel at one size, in microseconds.

    Without such a rival, or if it failed, its time is None.
    """

    kernel: str
    size: tuple[int, ...]
    dtype: str
    n_bytes: int
    time: Time
    eager: Time | None
    compiled: Time | None
    library: Time | None
    library_name: str
    error_ratio: float       # the kernel's largest error divided by eager PyTorch's
    is_right: bool

    def share(self, copy_bytes_per_s: float) -> float:
        """Returns the part of a copy's bandwidth that it reaches; at 1 it is as fast as a copy."""
        return self.n_bytes / (self.time.median * 1e-6) / copy_bytes_per_s


def time_graph(
    prepare: Callable[[], Sequence[Callable[[], object]]], *, n_repeats: int = N_REPEATS
) -> Time:
    """Returns microseconds per call in a CUDA graph of all calls that `prepare` returns.

    `prepare` runs on the stream that is captured, because the backward pass of PyTorch runs on the
    stream of its forward pass.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls = prepare()
        # What compiles, tunes or allocates on first use does so before the capture.
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept = [call() for call in calls]
    graph.replay()
    times = []
    for _ in range(n_repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / len(calls))
    del kept
    fifths = statistics.quantiles(times, n=5)
    return Time(median=statistics.median(times), p20=fifths[0], p80=fifths[-1])


def copy_bandwidth(device: torch.device) -> float:
    """Returns bytes per second, read and written, of a device-to-device copy of 2 GiB."""
    source = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / (time_graph(lambda: [lambda: target.copy_(source)]).median * 1e-6)


# --- the rows -------------------------------------------------------------------------------------


def operation_rows(
    operation: compare.Operation, *, device: torch.device, say: Callable[[str], None]
) -> list[BenchRow]:
    """Returns the rows of one operation at its large size in bf16: forward and backward."""
    dtype = torch.bfloat16
    generator = torch.Generator(device).manual_seed(3)
    draw = lambda *shape: torch.randn(shape, generator=generator, device=device)
    comparisons = compare.compare(operation, operation.large, dtype=dtype, device=device)

    def inputs() -> list[Tensor]:
        drawn = [x.to(torch.complex64) if x.is_complex() else x.to(dtype)
                 for x in operation.inputs(operation.large, draw)]
        return [x.requires_grad_(i < len(operation.gradient_names)) for i, x in enumerate(drawn)]

    first = inputs()
    n_sets = max(1, math.ceil(4 * L2_BYTES / sum(x.nbytes for x in first)))
    sets = [first, *(inputs() for _ in range(n_sets - 1))]
    fused = lambda *args: operation.fused(*args, emulate=device.type == "cpu")
    rivals = {"eager": operation.plain, "compiled": torch.compile(operation.plain),
              "library": operation.library}
    there, back = operation.traffic(operation.large)
    rows = []
    for direction, is_gradient, prepare, n_bytes in (
            ("forward", False, _forward, there), ("backward", True, _backward, back)):
        say(f"{operation.name} {direction}: fused")
        time = time_graph(lambda prepare=prepare: prepare(fused, sets))
        times = {}
        for name, way in rivals.items():
            say(f"{operation.name} {direction}: {name}")
            times[name] = way and _tried(
                name, lambda way=way, prepare=prepare: prepare(way, sets), say)
        verdicts = [each.verdict for each in comparisons if each.is_gradient == is_gradient]
        rows.append(BenchRow(
            kernel=f"{operation.name} {direction}", size=operation.large, dtype="bfloat16",
            n_bytes=n_bytes, time=time, eager=times["eager"], compiled=times["compiled"],
            library=times["library"],
            library_name=operation.library_name if times["library"] else "",
            error_ratio=max(v.ratio for v in verdicts), is_right=all(v.is_ok for v in verdicts)))
    return rows


def adamw_row(
    dtype: torch.dtype, *, max_norm: float | None, device: torch.device, say: Callable[[str], None]
) -> BenchRow:
    """Returns the row of one step over `N_PARAMETERS` parameters in tensors of two sizes.

    `max_norm`: whether, and to what length, the step clips.
    """
    width = math.isqrt(N_PARAMETERS // 16)
    shapes = [(width,)] * 16 + [(width, width)] * 16
    comparisons = compare.compare_adamw(dtype=dtype, device=device)

    def parameters(kind: torch.dtype) -> dict[str, nn.Parameter]:
        made = {f"p{i}": nn.Parameter(torch.randn(shape, device=device, dtype=kind))
                for i, shape in enumerate(shapes)}
        for p in made.values():
            p.grad = torch.randn_like(p)
        return made

    def fused() -> list[Callable]:
        optimizer = FusedAdamW([Group(params=parameters(dtype), weight_decay=0.1)],
                               emulate=device.type == "cpu")
        return [lambda: optimizer.step(lr=1e-4, max_norm=max_norm)]

    # Without clipping, because it waits for the norm, which a graph cannot.
    def eager() -> list[Callable]:
        optimizer = AdamW([Group(params=parameters(torch.float32), weight_decay=0.1)])
        return [lambda: optimizer.step(lr=1e-4)]

    def library() -> list[Callable]:
        params = list(parameters(torch.float32).values())
        optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True, capturable=device.type == "cuda")

        def step() -> None:
            if max_norm:
                torch.nn.utils.clip_grad_norm_(params, max_norm)
            optimizer.step()

        return [step]

    label = f"adamw {str(dtype).removeprefix('torch.')}{' clipped' if max_norm else ''}"
    say(f"{label}: fused")
    time = time_graph(fused)
    torch.cuda.empty_cache()
    times = {}
    for name, prepare in (("eager", None if max_norm else eager), ("library", library)):
        say(f"{label}: {name}")
        times[name] = prepare and _tried(name, prepare, say)
        torch.cuda.empty_cache()
    n = sum(math.prod(shape) for shape in shapes)
    # Three fp32 in and out, the gradient in, the copy out.
    n_bytes = 24 * n + n * dtype.itemsize * (2 if dtype.itemsize < 4 else 1)
    if max_norm:
        n_bytes += n * dtype.itemsize
    return BenchRow(kernel="adamw, clipped" if max_norm else "adamw", size=(n,),
               dtype=str(dtype).removeprefix("torch."), n_bytes=n_bytes, time=time,
               eager=times["eager"], compiled=None, library=times["library"],
               library_name="torch fused, fp32",
               error_ratio=max(each.verdict.ratio for each in comparisons),
               is_right=all(each.verdict.is_ok for each in comparisons))


def _forward(way: Callable, sets: Sequence[Sequence[Tensor]]) -> list[Callable]:
    def call(args: Sequence[Tensor]) -> object:
        with torch.no_grad():
            return way(*args)
    return [lambda args=args: call(args) for args in sets]


def _backward(way: Callable, sets: Sequence[Sequence[Tensor]]) -> list[Callable]:
    calls = []
    for args in sets:
        outputs, leaves = way(*args), [x for x in args if x.requires_grad]
        upstream = [torch.randn_like(y) for y in outputs]
        calls.append(lambda o=outputs, x=leaves, g=upstream: torch.autograd.grad(
            o, x, g, retain_graph=True))
    return calls


def _tried(
    name: str, prepare: Callable[[], Sequence[Callable[[], object]]], say: Callable[[str], None]
) -> Time | None:
    """Returns a rival's time, or None if it does not run here (without Triton, for example)."""
    try:
        return time_graph(prepare)
    except RuntimeError as error:
        say(f"  {name} could not be timed: {str(error).splitlines()[0][:200]}")
        torch.cuda.synchronize()
        return None


# --- the table and the program --------------------------------------------------------------------

HEADER = ("kernel", "size", "us", "GB/s", "% of copy", "eager us", "compiled us", "library us",
          "x best rival", "err/eager")


def table(rows: Sequence[BenchRow], copy_bytes_per_s: float) -> str:
    """Returns all rows as text. The last line is the copy that the percentages refer to."""
    lines = [HEADER]
    for row in rows:
        rivals = [t.median for t in (row.eager, row.compiled, row.library) if t]
        us = lambda t: f"{t.median:.0f}" if t else "-"
        lines.append((
            f"{row.kernel} {row.dtype}", "x".join(map(str, row.size)), f"{row.time.median:.1f}",
            f"{row.n_bytes / row.time.median / 1e3:.0f}",
            f"{100 * row.share(copy_bytes_per_s):.0f}",
            us(row.eager), us(row.compiled), us(row.library),
            f"{min(rivals) / row.time.median:.2f}" if rivals else "-",
            f"{row.error_ratio:.2f}{'' if row.is_right else ' WRONG'}"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    sides = [str.ljust, str.ljust, *[str.rjust] * (len(HEADER) - 2)]
    text = "\n".join(
        "  ".join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True))
        for line in lines)
    return f"{text}\na copy moves {copy_bytes_per_s / 1e9:.0f} GB/s, read and written"


def run(device: torch.device, *, say: Callable[[str], None]) -> dict:
    """Times everything on a GPU and returns it as JSON-ready data."""
    bandwidth = copy_bandwidth(device)
    say(f"a copy moves {bandwidth / 1e9:.0f} GB/s, read and written")
    rows = [row for operation in compare.OPERATIONS
            for row in operation_rows(operation, device=device, say=say)]
    for dtype in (torch.bfloat16, torch.float32):
        rows += [adamw_row(dtype, max_norm=max_norm, device=device, say=say)
                 for max_norm in (None, 1.0)]
    say(table(rows, bandwidth))
    return {"copy_bytes_per_s": bandwidth,
            "rows": [as_data(row) | {"share_of_copy": row.share(bandwidth)} for row in rows]}


def as_data(row: BenchRow) -> dict:
    """Returns a row in types that JSON can hold."""
    return {name: vars(value) if isinstance(value, Time) else value
            for name, value in vars(row).items()}


def describe_machine() -> dict[str, str]:
    """Returns what the times were measured on, and when."""
    device = torch.cuda.get_device_properties(0)
    return {"device": device.name, "compute_capability": f"{device.major}.{device.minor}",
            "n_multiprocessors": str(device.multi_processor_count),
            "memory_gib": f"{device.total_memory / 2**30:.0f}",
            "date": datetime.date.today().isoformat(), "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "python": platform.python_version(), "compiler": resources.compiler_name()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table on a GPU, and everywhere the registers, spills and shared memory."""
    parser = argparse.ArgumentParser(description="Times the kernels of this folder, and the same "
                                                 "in eager, compiled and library code.")
    parser.add_argument("--out", type=Path, help="also write everything to this JSON file")
    options = parser.parse_args(arguments)
    print(resources.table())
    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was timed. On a machine with one: python3 "
              "start.py gpu --out results")
        return 0
    results = run(torch.device("cuda"), say=print)
    if options.out:
        options.out.write_text(json.dumps({"machine": describe_machine()} | results, indent=1))
    return 0 if all(row["is_right"] for row in results["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())

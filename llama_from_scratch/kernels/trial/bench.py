"""Measures how fast the kernels are, compared with everything else that does the same.

A kernel that memory limits is compared with a copy: it cannot take less time than the bytes that it
must move, divided by the bandwidth of a device-to-device copy in the same run. A kernel that
arithmetic limits is compared with a matrix product of the same run. Each row also times eager
PyTorch, `torch.compile` and every rival of the operation on the same buffers. A rival is compared
with float64 before it is timed, and one that is wrong or fails is shown with the reason. A row with
a wrong result of our own is marked, not left out.

Notebook 36 draws the results of real runs, from `benchmarks/results`.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.machinery import resources
from llama_from_scratch.kernels.trial import compare, timing
from llama_from_scratch.kernels.trial.operation import Operation, Rival
from llama_from_scratch.kernels.trial.operations import OPERATIONS
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep
from llama_from_scratch.kernels.trial.timing import Floors, Time
from llama_from_scratch.train.optimizer import AdamW, Group

N_PARAMETERS = 2**28   # of the AdamW row: 28 bytes each make 7.5 GB
# The most that a rival's tensor may be off from float64: far above rounding, far below what a wrong
# mask or scale does.
RIVAL_CAP = 0.02
Ways = Callable[..., tuple[Tensor, ...]]


@record
class RivalTime:
    """A rival's time, or None and the reason: it is wrong, or does not run here."""

    name: str
    time: Time | None
    complaint: str = ""


@record
class BenchRow:
    """Holds the times of one kernel at one size, in microseconds, and what they mean.

    n_operations: what is counted, for a kernel that arithmetic limits; otherwise 0. extra_bytes:
    the most memory that a call held in addition to its inputs and its results; None where it is not
    known.
    """

    kernel: str
    size: tuple[int, ...]
    dtype: str
    n_bytes: int
    n_operations: float
    time: Time
    rivals: tuple[RivalTime, ...]
    floors: Floors
    error_ratio: float       # the kernel's largest error divided by eager PyTorch's
    is_right: bool
    extra_bytes: int | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.n_bytes / (self.time.median * 1e-6)

    @property
    def operations_per_s(self) -> float:
        return self.n_operations / (self.time.median * 1e-6)

    @property
    def share_of_copy(self) -> float:
        """The part of a copy's bandwidth that it reaches; at 1 it is as fast as a copy."""
        return self.bytes_per_s / self.floors.copy_bytes_per_s

    @property
    def share_of_product(self) -> float:
        """The part of a matrix product's rate that it reaches."""
        return self.operations_per_s / self.floors.product_operations_per_s

    @property
    def share_of_sheet(self) -> float | None:
        """The part of what the data sheet promises; None for a device without one."""
        if (sheet := self.floors.sheet) is None:
            return None
        if self.n_operations:
            return self.operations_per_s / sheet.operations_per_s
        return self.bytes_per_s / sheet.bytes_per_s

    @property
    def ratios(self) -> dict[str, float]:
        """How many times longer than the kernel each rival takes, by its name."""
        return {each.name: each.time.median / self.time.median
                for each in self.rivals if each.time}

    def as_data(self) -> dict[str, Any]:
        """Returns the row in types that JSON can hold, with all that can be computed from it."""
        return timing.as_data(self) | {
            name: getattr(self, name)
            for name in ("bytes_per_s", "operations_per_s", "share_of_copy", "share_of_product",
                         "share_of_sheet", "ratios")}


# --- the rows -------------------------------------------------------------------------------------


def plain_rivals(operation: Operation) -> list[Rival]:
    """Returns eager PyTorch and the operation's own rivals, which begin at once."""
    return [Rival(name="eager", way=operation.plain), *operation.rivals]


def compiled_rivals(operation: Operation) -> list[Rival]:
    """Returns `torch.compile`, which takes many seconds for each size before it begins."""
    return [Rival(name="torch.compile", way=torch.compile(operation.plain))]


def operation_rows(
    operation: Operation, *, floors: Floors, device: torch.device, say: Say,
    rivals_of: Callable[[Operation], list[Rival]] = plain_rivals,
) -> Iterator[BenchRow]:
    """Yields the rows of one operation at its large size in bf16: forward, and backward if any."""
    dtype = torch.bfloat16
    known = compare.reference(operation, operation.checked or operation.large, dtype=dtype,
                              device=device)
    fused = partial(operation.fused, emulate=device.type == "cpu")
    comparisons = known.judged(fused)
    rivals = rivals_of(operation)
    complaints = {each.name: _complaint(known, each) for each in rivals}
    del known   # its float64 tensors would take the memory that the timing needs
    free(device)
    sets = _inputs(operation, dtype, device)
    there, back = operation.traffic(operation.large)
    counts = operation.operations(operation.large) if operation.operations else (0.0, 0.0)
    directions = [("forward", _forward, [False], there, counts[0]),
                  ("backward", _backward, [True], back, counts[1])]
    if operation.is_one_pass:
        directions = [("forward and backward", _both, [False, True], there + back, sum(counts))]
    for direction, prepare, kinds, n_bytes, n_operations in directions:
        verdicts = [each.verdict for each in comparisons if each.is_gradient in kinds]
        if not verdicts:
            continue
        say(f"{operation.name} {direction}: fused")
        extra_bytes = _extra_bytes(partial(prepare, fused, sets), device)
        time = timing.time_graph(partial(prepare, fused, sets))
        times = []
        for rival in rivals:
            say(f"{operation.name} {direction}: {rival.name}")
            times.append(timed(rival.name, partial(_of_rival, prepare, rival, sets), say,
                                complaint=complaints[rival.name]))
            free(device)
        yield BenchRow(
            kernel=f"{operation.name} {direction}", size=operation.large, dtype="bfloat16",
            n_bytes=n_bytes, n_operations=n_operations, time=time, rivals=tuple(times),
            floors=floors, error_ratio=max(v.ratio for v in verdicts),
            is_right=all(v.is_ok for v in verdicts), extra_bytes=extra_bytes)


def _inputs(
    operation: Operation, dtype: torch.dtype, device: torch.device
) -> list[list[Tensor]]:
    """Returns sets of inputs at the large size: enough of them that no cache holds them all.

    Where arithmetic limits a kernel, one set is enough.
    """
    generator = torch.Generator(device).manual_seed(3)
    draw = lambda *shape: torch.randn(shape, generator=generator, device=device)

    def drawn() -> list[Tensor]:
        made = [compare.rounded(x, dtype) for x in operation.inputs(operation.large, draw)]
        return [x.requires_grad_(i < len(operation.gradient_names)) for i, x in enumerate(made)]

    first = drawn()
    if operation.operations:
        return [first]
    n_sets = max(1, math.ceil(4 * timing.L2_BYTES / sum(x.nbytes for x in first)))
    return [first, *(drawn() for _ in range(n_sets - 1))]


def _complaint(known: compare.Reference, rival: Rival) -> str:
    """Returns why a rival is not timed: it does not run, or is far off from float64."""
    try:
        judged = known.judged(lambda *inputs: rival.way(*rival.prepare(*inputs)))
    # Also for a function that this version of PyTorch does not have.
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return _first_line(error)
    off = max(judged, key=lambda each: each.verdict.relative_error)
    if off.verdict.relative_error <= RIVAL_CAP:
        return ""
    return f"wrong: {off.part} is off by {off.verdict.relative_error:.2g} of its size"


def _of_rival(
    prepare: Callable[..., timing.Calls], rival: Rival, sets: Sequence[Sequence[Tensor]]
) -> timing.Calls:
    return prepare(rival.way, [rival.prepare(*inputs) for inputs in sets])


def _forward(way: Ways, sets: Sequence[Sequence[Tensor]]) -> timing.Calls:
    def call(args: Sequence[Tensor]) -> object:
        with torch.no_grad():
            return way(*args)
    return [lambda args=args: call(args) for args in sets]


def _backward(way: Ways, sets: Sequence[Sequence[Tensor]]) -> timing.Calls:
    calls = []
    for args in sets:
        outputs, leaves = way(*args), [x for x in args if x.requires_grad]
        upstream = [torch.randn_like(y) for y in outputs]
        calls.append(lambda o=outputs, x=leaves, g=upstream: torch.autograd.grad(
            o, x, g, retain_graph=True))
    return calls


def _both(way: Ways, sets: Sequence[Sequence[Tensor]]) -> timing.Calls:
    def call(args: Sequence[Tensor]) -> object:
        outputs = way(*args)
        return torch.autograd.grad(outputs, [x for x in args if x.requires_grad],
                                   [torch.ones_like(y) for y in outputs])
    return [lambda args=args: call(args) for args in sets]


def timed(
    name: str, prepare: Callable[[], timing.Calls], say: Say, *, complaint: str = "",
    ways: Sequence[Callable[..., Time]] | None = None,
) -> RivalTime:
    """Returns a rival's time, by default in a graph if it can be captured, or why it has none."""
    if not complaint:
        for way in ways or (timing.time_graph, timing.time_stream):
            try:
                return RivalTime(name=name, time=way(prepare))
            except RuntimeError as error:
                complaint = _first_line(error)
                torch.cuda.synchronize()
    say(f"  {name} is not timed: {complaint}")
    return RivalTime(name=name, time=None, complaint=complaint)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def _extra_bytes(prepare: Callable[[], timing.Calls], device: torch.device) -> int | None:
    """Returns how much memory the first call takes at most, without what it returns."""
    if device.type != "cuda":
        return None
    call = prepare()[0]
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = call()
    torch.cuda.synchronize()
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in results}
    return torch.cuda.max_memory_allocated() - before - sum(storages.values())


def free(device: torch.device) -> None:
    """Gives the memory that PyTorch keeps unused back to the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def adamw_row(
    dtype: torch.dtype, *, max_norm: float | None, floors: Floors, device: torch.device, say: Say
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

    def fused() -> timing.Calls:
        optimizer = FusedAdamW([Group(params=parameters(dtype), weight_decay=0.1)],
                               emulate=device.type == "cpu")
        return [lambda: optimizer.step(lr=1e-4, max_norm=max_norm)]

    # Without clipping, because it waits for the norm, which a graph cannot.
    def eager() -> timing.Calls:
        optimizer = AdamW([Group(params=parameters(torch.float32), weight_decay=0.1)])
        return [lambda: optimizer.step(lr=1e-4)]

    def library() -> timing.Calls:
        params = list(parameters(torch.float32).values())
        optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True, capturable=device.type == "cuda")

        def step() -> None:
            if max_norm:
                torch.nn.utils.clip_grad_norm_(params, max_norm)
            optimizer.step()

        return [step]

    name = "adamw, clipped" if max_norm else "adamw"
    label = f"{name} {str(dtype).removeprefix('torch.')}"
    say(f"{label}: fused")
    time = timing.time_graph(fused)
    rivals = [] if max_norm else [("eager", eager)]
    times = []
    for rival, prepare in [*rivals, ("AdamW(fused=True), fp32", library)]:
        free(device)
        say(f"{label}: {rival}")
        times.append(timed(rival, prepare, say))
    free(device)
    n = sum(math.prod(shape) for shape in shapes)
    # Three fp32 in and out, the gradient in, the copy out.
    n_bytes = 24 * n + n * dtype.itemsize * (2 if dtype.itemsize < 4 else 1)
    if max_norm:
        n_bytes += n * dtype.itemsize
    return BenchRow(kernel=name, size=(n,), dtype=str(dtype).removeprefix("torch."),
                    n_bytes=n_bytes, n_operations=0.0, time=time, rivals=tuple(times),
                    floors=floors,
                    error_ratio=max(each.verdict.ratio for each in comparisons),
                    is_right=all(each.verdict.is_ok for each in comparisons))


# --- the steps ------------------------------------------------------------------------------------


def steps(device: torch.device, *, part: str) -> list[TrialStep]:
    """Returns the steps of a part of the trial: the floors, each operation, and then compiled."""
    floors, first = floors_step(device)
    mine = [operation for operation in OPERATIONS if operation.part == part]

    def run(operation: Operation, rivals_of: Callable[..., list[Rival]], say: Say) -> Finding:
        if why_not := operation.why_not(device):
            return Finding(why_not=why_not)
        return found(operation_rows(operation, floors=floors(), device=device, say=say,
                                    rivals_of=rivals_of), say)

    made = [first, *(TrialStep(name=each.name, run=partial(run, each, plain_rivals))
                     for each in mine)]
    if part == "memory-bound":
        made += [TrialStep(name=f"adamw {str(dtype).removeprefix('torch.')}", run=partial(
                     _adamw_step, dtype, floors, device))
                 for dtype in (torch.bfloat16, torch.float32)]
    # Last, so that it is what is missing if there is no time.
    return [*made, *(TrialStep(name=f"{each.name}, torch.compile",
                               run=partial(run, each, compiled_rivals))
                     for each in mine if each.rivals or part == "memory-bound")]


def floors_step(device: torch.device) -> tuple[Callable[[], Floors], TrialStep]:
    """Returns a function that measures the floors once per process, and the step that shows it."""
    floors = functools.cache(lambda: timing.floors(device))
    return floors, TrialStep(name="floors", run=lambda say: _floors(floors(), device, say))


def _floors(floors: Floors, device: torch.device, say: Say) -> Finding:
    clocks = timing.clocks_under_load(device, floors)
    say(f"a copy moves {floors.copy_bytes_per_s / 1e12:.2f} TB/s, read and written; a bf16 matrix "
        f"product makes {floors.product_operations_per_s / 1e12:.0f} TFLOP/s")
    say("clocks under load: " + (", ".join(f"{name} {value}" for name, value in clocks.items())
                      or "nvidia-smi is not here"))
    return Finding(data={"floors": timing.as_data(floors), "clocks": clocks})


def found(rows: Iterable[BenchRow], say: Say) -> Finding:
    """Returns what a step found that made these rows, and shows them."""
    rows = list(rows)
    say(table(rows))
    return Finding(
        wrong=tuple(f"{row.kernel} {row.dtype} is off from the exact result by more than rounding"
                    for row in rows if not row.is_right),
        data={"rows": [row.as_data() for row in rows], "clocks_after": timing.clocks()})


def _adamw_step(
    dtype: torch.dtype, floors: Callable[[], Floors], device: torch.device, say: Say
) -> Finding:
    return found((adamw_row(dtype, max_norm=max_norm, floors=floors(), device=device, say=say)
                  for max_norm in (None, 1.0)), say)


# --- the table and the program --------------------------------------------------------------------

HEADER = ("kernel", "size", "time", "TB/s", "% of copy", "TFLOP/s", "% of product",
          "% of data sheet", "err/eager", "extra MB")


def table(rows: Sequence[BenchRow]) -> str:
    """Returns the rows as text; below each, its rivals with their times over ours."""
    lines = [HEADER, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    sides = [str.ljust, str.ljust, *[str.rjust] * (len(HEADER) - 2)]
    text = ["  ".join(side(cell, width)
                      for side, cell, width in zip(sides, line, widths, strict=True))
            for line in lines]
    below = ["    " + "; ".join(_rival_text(each, row) for each in row.rivals) for row in rows]
    return "\n".join([text[0], *(line for pair in zip(text[1:], below, strict=True)
                                 for line in pair)])


def _cells(row: BenchRow) -> tuple[str, ...]:
    percent = lambda share: "-" if share is None else f"{100 * share:.0f}"
    is_counted = bool(row.n_operations)
    return (
        f"{row.kernel} {row.dtype}", "x".join(map(str, row.size)), _time_text(row.time),
        "-" if is_counted else f"{row.bytes_per_s / 1e12:.2f}",
        "-" if is_counted else percent(row.share_of_copy),
        f"{row.operations_per_s / 1e12:.0f}" if is_counted else "-",
        percent(row.share_of_product) if is_counted else "-",
        percent(row.share_of_sheet),
        f"{row.error_ratio:.2f}{'' if row.is_right else ' WRONG'}",
        "-" if row.extra_bytes is None else f"{row.extra_bytes / 1e6:.0f}")


def _time_text(time: Time) -> str:
    return f"{time.median / 1e3:.2f} ms" if time.median >= 1e4 else f"{time.median:.1f} us"


def _rival_text(rival: RivalTime, row: BenchRow) -> str:
    if rival.time is None:
        return f"{rival.name}: {rival.complaint}"
    graph = "" if rival.time.is_graph else ", no graph"
    return f"{rival.name} {_time_text(rival.time)} ({row.ratios[rival.name]:.2f} x ours{graph})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the registers, spills and shared memory of every kernel, which need no GPU."""
    argparse.ArgumentParser(
        description="Prints each kernel's registers and memory. The times need a GPU: python3 "
                    "start.py gpu --out results").parse_args(arguments)
    print(resources.table())
    print("The times need a machine with a GPU: python3 start.py gpu --out results --only "
          "memory-bound")
    return 0


if __name__ == "__main__":
    sys.exit(main())

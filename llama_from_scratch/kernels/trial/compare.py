"""Compares every kernel's outputs and gradients with float64, on a GPU or the emulator.

This comes before any timing. An operation computes the same numbers in three ways: the exact
formula in float64, the plain model's own code, and the kernel. `tolerance.judge` decides whether
the kernel is as good as the plain code. The sizes are chosen to be awkward: one row, widths that no
vector divides, odd head counts, and on a GPU more elements than a 32-bit index can count.

Notebook 30.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import record
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.rms_norm import add_rms_norm, rms_norm
from llama_from_scratch.kernels.rope import rope
from llama_from_scratch.kernels.swiglu import swiglu
from llama_from_scratch.kernels.trial.tolerance import Verdict, judge
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import apply_rope
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients

EPS = 1e-5
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LR = 1e-2   # of the AdamW steps that are compared
Outputs = tuple[Tensor, ...]


@record
class Operation:
    """Three ways to compute a result from the same inputs, the first of which have gradients."""

    name: str
    sizes: tuple[tuple[int, ...], ...]       # small and awkward
    large: tuple[int, ...]                   # as in a training step of an 8B model
    beyond: tuple[int, ...]                  # over 2^31 elements in bf16
    inputs: Callable[..., Outputs]           # (size, draw) -> float64; draw(*shape): normal numbers
    exact: Callable[..., Outputs]
    plain: Callable[..., Outputs]
    fused: Callable[..., Outputs]            # takes emulate=
    traffic: Callable[..., tuple[int, int]]  # (size) -> bytes of bf16 that each direction must move
    gradient_names: tuple[str, ...]          # of the first inputs; the others are constants
    # The axis of the outputs along which rows do not depend on each other.
    row_axis: int
    library: Callable[..., Outputs] | None   # PyTorch's best function that does the same
    library_name: str


@record
class Comparison:
    """What was compared, and the verdict."""

    operation: str
    size: tuple[int, ...]
    dtype: torch.dtype
    part: str
    verdict: Verdict
    is_gradient: bool = False

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.operation} {self.size} {dtype} {self.part}: {self.verdict}"


# --- the operations -------------------------------------------------------------------------------


def _norm_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return draw(*size), 1 + 0.3 * draw(size[-1])


def _add_norm_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return draw(*size), draw(*size), 1 + 0.3 * draw(size[-1])


def _streams(forward: int, backward: int) -> Callable[..., tuple[int, int]]:
    """Returns a function that gives the bytes of this many tensors of the first input's size.

    A weight that all rows share is not counted.
    """
    return lambda size: (2 * forward * math.prod(size), 2 * backward * math.prod(size))


def _rope_traffic(size: Sequence[int]) -> tuple[int, int]:
    B, T, H, G, K = size
    # Heads in and out, and one complex64 per pair.
    n_bytes = B * T * (2 * 2 * (H + G) * K + 8 * K // 2)
    return n_bytes, n_bytes


def _exact_norm(x: Tensor, weight: Tensor) -> Outputs:
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight,)


def _plain_norm(x: Tensor, weight: Tensor) -> Outputs:
    norm = RMSNorm(x.shape[-1], eps=EPS)
    return (torch.func.functional_call(norm, {"weight": weight}, (x,)),)


def _library_norm(x: Tensor, weight: Tensor) -> Outputs:
    return (F.rms_norm(x, (x.shape[-1],), weight, EPS),)


def _library_add_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    total = x + residual
    return F.rms_norm(total, (x.shape[-1],), weight, EPS), total


def _rope_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    B, T, H, G, K = size
    angles = 1e5 * draw(B, T, K // 2).double()
    return draw(B, T, H, K), draw(B, T, G, K), torch.polar(torch.ones_like(angles), angles)


def _exact_rope(q: Tensor, k: Tensor, rotation: Tensor) -> Outputs:
    def turn(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * rotation[:, :, None]).flatten(-2)
    return turn(q), turn(k)


def _swiglu_inputs(size: Sequence[int], draw: Callable[..., Tensor]) -> Outputs:
    return 3 * draw(*size), draw(*size)


def _plain_swiglu(gate: Tensor, up: Tensor) -> Outputs:
    return (F.silu(gate) * up,)


OPERATIONS = (
    Operation(
        name="rms_norm", sizes=((1, 2), (3, 7), (5, 64), (2, 3, 1000), (33, 4097)),
        large=(16384, 4096), beyond=(2**19 + 3, 4096), row_axis=0,
        inputs=_norm_inputs, exact=_exact_norm, plain=_plain_norm,
        fused=lambda x, weight, emulate: (rms_norm(x, weight, eps=EPS, emulate=emulate),),
        traffic=_streams(2, 3), gradient_names=("x", "weight"),
        library=_library_norm, library_name="F.rms_norm"),
    Operation(
        name="add_rms_norm", sizes=((1, 8), (3, 77), (2, 5, 128), (9, 4096)),
        large=(16384, 4096), beyond=(2**19 + 3, 4096), row_axis=0,
        inputs=_add_norm_inputs,
        exact=lambda x, residual, weight: (*_exact_norm(x + residual, weight), x + residual),
        plain=lambda x, residual, weight: (*_plain_norm(x + residual, weight), x + residual),
        fused=lambda x, residual, weight, emulate: add_rms_norm(
            x, residual, weight=weight, eps=EPS, emulate=emulate),
        traffic=_streams(4, 4), gradient_names=("x", "residual", "weight"),
        library=_library_add_norm, library_name="F.rms_norm"),
    Operation(
        name="rope",
        sizes=((1, 1, 1, 1, 2), (2, 3, 3, 1, 6), (1, 33, 4, 2, 64), (2, 7, 5, 5, 80),
               (1, 5, 7, 1, 128)),
        large=(2, 8192, 32, 8, 128), beyond=(1, 2**19 + 3, 32, 1, 128), row_axis=1,
        inputs=_rope_inputs, exact=_exact_rope,
        plain=lambda q, k, rotation: (apply_rope(q, rotation), apply_rope(k, rotation)),
        fused=lambda q, k, rotation, emulate: rope(q, k, rotation=rotation, emulate=emulate),
        traffic=_rope_traffic, gradient_names=("q", "k"), library=None, library_name=""),
    Operation(
        name="swiglu", sizes=((1, 1), (7, 33), (2, 3, 1000), (5, 4099)),
        large=(16384, 14336), beyond=(2**18 + 3, 8192), row_axis=0,
        inputs=_swiglu_inputs, exact=_plain_swiglu, plain=_plain_swiglu,
        fused=lambda gate, up, emulate: (swiglu(gate, up, emulate=emulate),),
        traffic=_streams(3, 5), gradient_names=("gate", "up"), library=None, library_name=""),
)


# --- the sweep ------------------------------------------------------------------------------------


def compare(
    operation: Operation, size: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
) -> list[Comparison]:
    """Returns a comparison of each output and gradient of one operation at one size.

    The inputs are the same on every machine.
    """
    inputs, upstream = _draw(operation, size, dtype)
    try:
        exact = _run(operation, operation.exact, map(_widened, inputs), upstream, device)
    except torch.OutOfMemoryError:
        exact = _run(operation, operation.exact, map(_widened, inputs), upstream,
                     torch.device("cpu"))
    plain = _run(operation, operation.plain, inputs, upstream, device)
    fused = _run(operation, _fused(operation, device), inputs, upstream, device)
    return _judge(operation, size, dtype, fused, exact=exact, plain=plain)


def compare_with_emulator(
    operation: Operation, size: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
) -> list[Comparison]:
    """Returns a comparison of the same kernel source on a GPU and on the emulator.

    The emulator's result counts as the exact one. The two may only add in another order, because
    the grids differ, and round an exponential or a root differently.
    """
    inputs, upstream = _draw(operation, size, dtype)
    cpu = torch.device("cpu")
    on_gpu, emulated = (_run(operation, _fused(operation, each), inputs, upstream, each)
                        for each in (device, cpu))
    plain = _run(operation, operation.plain, inputs, upstream, cpu)
    return _judge(operation, size, dtype, on_gpu, exact=[x.double() for x in emulated], plain=plain)


def _draw(
    operation: Operation, size: tuple[int, ...], dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns inputs, rounded to the dtype, and the gradients that arrive at the outputs."""
    generator = torch.Generator().manual_seed(math.prod(size))
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    inputs = [_rounded(x, dtype) for x in operation.inputs(size, draw)]
    with torch.no_grad():
        return inputs, [draw(*y.shape).to(dtype) for y in operation.plain(*inputs)]


def _fused(operation: Operation, device: torch.device) -> Callable[..., Outputs]:
    return lambda *args: operation.fused(*args, emulate=device.type == "cpu")


def _run(
    operation: Operation, way: Callable[..., Outputs], inputs: Iterable[Tensor],
    upstream: Sequence[Tensor], device: torch.device,
) -> list[Tensor]:
    """Returns all outputs, then the gradients of all inputs that have one, on the device."""
    args = [x.detach().clone().to(device) for x in inputs]
    leaves = [x.requires_grad_() for x in args[: len(operation.gradient_names)]]
    outputs = way(*args)
    arriving = [g.to(device, y.dtype) for g, y in zip(upstream, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, leaves, arriving)
    return [x.detach() for x in (*outputs, *gradients)]


def _judge(
    operation: Operation, size: tuple[int, ...], dtype: torch.dtype, results: Sequence[Tensor], *,
    exact: Sequence[Tensor], plain: Sequence[Tensor],
) -> list[Comparison]:
    n_outputs = len(results) - len(operation.gradient_names)
    parts = [*((f"output {j}", False) for j in range(n_outputs)),
             *((f"gradient of {name}", True) for name in operation.gradient_names)]
    return [Comparison(operation=operation.name, size=size, dtype=dtype, part=part,
                       is_gradient=is_gradient,
                       verdict=judge(x.to(e.device), exact=e, eager=p.to(e.device),
                                     is_gradient=is_gradient))
            for (part, is_gradient), x, e, p in zip(parts, results, exact, plain, strict=True)]


def compare_repeats(
    operation: Operation, *, device: torch.device, n_repeats: int = 20
) -> list[Comparison]:
    """Checks that the same inputs give the same bits every time.

    They do if no sum's order depends on timing.
    """
    size, dtype = operation.large if device.type == "cuda" else operation.sizes[-1], torch.bfloat16
    inputs, upstream = ([x.to(device) for x in tensors]
                        for tensors in _draw(operation, size, dtype))
    runs = (_run(operation, _fused(operation, device), inputs, upstream, device)
            for _ in range(n_repeats))
    first = next(runs)
    n_other = sum(any(not torch.equal(a, b) for a, b in zip(first, run, strict=True))
                  for run in runs)
    complaint = f"{n_other} of {n_repeats} runs gave other bits than the first" if n_other else ""
    verdict = Verdict(error=float(n_other), eager_error=0.0, relative_error=0.0,
                      complaint=complaint)
    return [Comparison(operation=operation.name, size=size, dtype=dtype, part="repeats",
                       verdict=verdict)]


def compare_beyond(operation: Operation, *, device: torch.device) -> list[Comparison]:
    """Compares the last rows of bf16 tensors of over 2^31 elements with the same rows alone."""
    dtype, axis = torch.bfloat16, operation.row_axis
    generator = torch.Generator(device).manual_seed(1)
    draw = lambda *shape: torch.randn(
        shape, generator=generator, dtype=torch.float32, device=device).to(dtype)
    inputs = [_rounded(x, dtype) for x in operation.inputs(operation.beyond, draw)]
    have_rows = [x.shape[:1] == inputs[0].shape[:1] and x.ndim > 1 for x in inputs]

    def last_rows(x: Tensor) -> Tensor:
        return x.narrow(axis, x.shape[axis] - 4, 4)

    with torch.no_grad():
        outputs = [last_rows(y).clone() for y in _fused(operation, device)(*inputs)]
        last = [last_rows(x) if has_rows else x
                for x, has_rows in zip(inputs, have_rows, strict=True)]
        exact, plain = operation.exact(*map(_widened, last)), operation.plain(*last)
    return [Comparison(operation=operation.name, size=operation.beyond, dtype=dtype,
                       part=f"last rows of output {j}", verdict=judge(y, exact=e, eager=p))
            for j, (y, e, p) in enumerate(zip(outputs, exact, plain, strict=True))]


def compare_adamw(
    *, dtype: torch.dtype, device: torch.device, n_steps: int = 3, max_norm: float = 1.0
) -> list[Comparison]:
    """Compares the weights and averages of two optimizers after a few clipped steps.

    `FusedAdamW` is compared with the plain optimizer in float64 and in fp32. For bf16 and fp16,
    the fp32 weights are judged, and the model's weights must be exactly these, rounded.
    """
    generator = torch.Generator().manual_seed(5)
    shapes = [(3, 7), (1,), (129, 130), (5,), (40000,)]
    weights, *gradients = [[torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
                           for _ in range(1 + n_steps)]

    def stepped(kind: torch.dtype, make: Callable, step: Callable) -> tuple:
        params = {f"p{i}": torch.nn.Parameter(x.to(device, kind, copy=True))
                  for i, x in enumerate(weights)}
        named = list(params.items())
        optimizer = make([Group(params=dict(named[:3]), weight_decay=0.1),
                          Group(params=dict(named[3:]), weight_decay=0.0)])
        for grads in gradients:
            for p, grad in zip(params.values(), grads, strict=True):
                p.grad = grad.to(device, kind, copy=True)
            step(optimizer, params)
        return optimizer, params

    def plain_step(optimizer: AdamW, params: dict) -> None:
        clip_gradients(params.values(), max_norm=max_norm)
        optimizer.step(lr=LR)

    exact, exact_params = stepped(torch.float64, AdamW, plain_step)
    eager, eager_params = stepped(torch.float32, AdamW, plain_step)
    fused, params = stepped(dtype, partial(FusedAdamW, emulate=device.type == "cpu"),
                            lambda optimizer, _: optimizer.step(lr=LR, max_norm=max_norm))
    size = tuple(math.prod(shape) for shape in shapes)
    found_in = lambda part, verdict: Comparison(
        operation="adamw", size=size, dtype=dtype, part=part, verdict=verdict)
    found = []
    for name, p in params.items():
        master = fused.masters.get(name, p)
        rows = (("weights", master, exact_params[name], eager_params[name]),
                ("mean", fused.means[name], exact.means[name], eager.means[name]),
                ("square", fused.squares[name], exact.squares[name], eager.squares[name]))
        found += [found_in(f"{part} of {name}", judge(x, exact=e.detach(), eager=r.detach()))
                  for part, x, e, r in rows]
        if not torch.equal(master.to(dtype), p):
            found.append(found_in(f"copy of {name}", Verdict(
                error=float("inf"), eager_error=0.0, relative_error=float("inf"),
                complaint="the model's weights must be the fp32 ones, rounded")))
    return found


def sweep(device: torch.device, *, is_large: bool) -> Iterator[Comparison]:
    """Yields all comparisons. `is_large` adds an 8B model's sizes and over 2^31 elements."""
    for operation in OPERATIONS:
        for dtype in DTYPES:
            large = [operation.large] if is_large and dtype == torch.bfloat16 else []
            for size in (*operation.sizes, *large):
                yield from compare(operation, size, dtype=dtype, device=device)
        yield from compare_repeats(operation, device=device, n_repeats=20 if is_large else 3)
        if is_large:
            yield from compare_beyond(operation, device=device)
    for dtype in DTYPES:
        yield from compare_adamw(dtype=dtype, device=device)


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(torch.complex64) if x.is_complex() else x.to(dtype)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.complex128) if x.is_complex() else x.double()

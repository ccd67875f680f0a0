"""Compares every kernel's outputs and gradients with float64, on a GPU or the emulator.

This comes before any timing. `operations` lists what is compared, and `tolerance.judge` decides
whether a kernel is as good as the plain code. The sizes are chosen to be awkward: one row, widths
that no vector divides, odd head counts, and on a GPU more elements than a 32-bit index can count.

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
from llama_from_scratch.kernels.cross_entropy import REDUCTIONS, linear_cross_entropy
from llama_from_scratch.kernels.emulator.build import find_compiler
from llama_from_scratch.kernels.trial.operation import DTYPES, Operation, Outputs
from llama_from_scratch.kernels.trial.operations import OPERATIONS
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep
from llama_from_scratch.kernels.trial.tolerance import Verdict, judge
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients

# Of a mean, relative to its size. `compare_loss` compares its numbers one by one.
MEAN_CAP = 1e-3
LR = 1e-2   # of the AdamW steps that are compared
LOSS_SIZES = ((1, 8, 5), (7, 5, 33), (37, 24, 1031), (4, 16, 40003))   # tokens, width, vocabulary
LARGE_LOSS = (2048, 4096, 128256)   # of an 8B model


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
        return f"{self.operation} {self.size} {_name(self.dtype)} {self.part}: {self.verdict}"


@record
class Reference:
    """What an operation must give for these inputs: exactly, and by the plain code in `dtype`."""

    operation: Operation
    size: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    inputs: list[Tensor]
    upstream: list[Tensor]
    exact: list[Tensor]
    plain: list[Tensor]

    def judged(self, way: Callable[..., Outputs]) -> list[Comparison]:
        """Returns a comparison of each output and gradient of another way to compute the same."""
        results = _run(self.operation, way, self.inputs, self.upstream, self.device)
        return _judge(self.operation, self.size, self.dtype, results, exact=self.exact,
                      plain=self.plain)


def reference(
    operation: Operation, size: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
) -> Reference:
    """Returns the exact and the plain results at one size.

    Small inputs are equal on every machine. Large ones are drawn on the device. If it has too
    little memory for float64, the CPU computes it.
    """
    inputs, upstream = _draw(operation, size, dtype, device)
    try:
        exact = _run(operation, operation.exact, map(widened, inputs), upstream, device)
    except torch.OutOfMemoryError:
        exact = _run(operation, operation.exact, map(widened, inputs), upstream,
                     torch.device("cpu"))
    return Reference(operation=operation, size=size, dtype=dtype, device=device, inputs=inputs,
                     upstream=upstream, exact=exact,
                     plain=_run(operation, operation.plain, inputs, upstream, device))


def compare(
    operation: Operation, size: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
) -> list[Comparison]:
    """Returns a comparison of each output and gradient of one operation at one size.

    The inputs are the same on every machine.
    """
    known = reference(operation, size, dtype=dtype, device=device)
    return known.judged(_fused(operation, device))


def compare_with_emulator(
    operation: Operation, size: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
) -> list[Comparison]:
    """Returns a comparison of the same kernel source on a GPU and on the emulator.

    The emulator's result counts as the exact one. The two may only add in another order, because
    the grids differ, and round an exponential or a root differently.
    """
    inputs, upstream = _draw(operation, size, dtype, device)
    cpu = torch.device("cpu")
    on_gpu, emulated = (_run(operation, _fused(operation, each), inputs, upstream, each)
                        for each in (device, cpu))
    plain = _run(operation, operation.plain, inputs, upstream, cpu)
    return _judge(operation, size, dtype, on_gpu, exact=[x.double() for x in emulated], plain=plain)


def _draw(
    operation: Operation, size: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns inputs, rounded to the dtype, and the gradients that arrive at the outputs."""
    where = device if size in (operation.large, operation.checked) else torch.device("cpu")
    generator = torch.Generator(where).manual_seed(math.prod(size))
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64, device=where)
    inputs = [rounded(x, dtype) for x in operation.inputs(size, draw)]
    with torch.no_grad():   # only for the shapes
        outputs = operation.plain(*(x.to("meta") for x in inputs))
    return inputs, [draw(*y.shape).to(dtype) for y in outputs]


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
    if not leaves:
        return [x.detach() for x in outputs]
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
                       verdict=_judge_mean(x.to(e.device), e, p.to(e.device))
                       if operation.is_mean and not is_gradient
                       else judge(x.to(e.device), exact=e, eager=p.to(e.device),
                                  is_gradient=is_gradient))
            for (part, is_gradient), x, e, p in zip(parts, results, exact, plain, strict=True)]


def _judge_mean(result: Tensor, exact: Tensor, eager: Tensor) -> Verdict:
    """Returns the verdict on the mean of many numbers, which may be off by `MEAN_CAP` in any case.

    Their errors cancel by chance, so eager's own error may be small by chance.
    """
    verdict = judge(result, exact=exact, eager=eager)
    if verdict.is_ok or not verdict.relative_error <= MEAN_CAP:
        return verdict
    return Verdict(**{**vars(verdict), "complaint": ""})


def _large(operation: Operation) -> tuple[int, ...]:
    return operation.checked or operation.large


def compare_repeats(
    operation: Operation, *, device: torch.device, n_repeats: int = 20
) -> list[Comparison]:
    """Checks that the same inputs give the same bits every time.

    They do if no sum's order depends on timing.
    """
    dtype = torch.bfloat16
    size = _large(operation) if device.type == "cuda" else operation.sizes[-1]
    inputs, upstream = ([x.to(device) for x in tensors]
                        for tensors in _draw(operation, size, dtype, device))
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
    inputs = [rounded(x, dtype) for x in operation.inputs(operation.beyond, draw)]
    have_rows = [x.shape[:1] == inputs[0].shape[:1] and x.ndim > 1 for x in inputs]

    def last_rows(x: Tensor) -> Tensor:
        return x.narrow(axis, x.shape[axis] - 4, 4)

    with torch.no_grad():
        outputs = [last_rows(y).clone() for y in _fused(operation, device)(*inputs)]
        last = [last_rows(x) if has_rows else x
                for x, has_rows in zip(inputs, have_rows, strict=True)]
        exact, plain = operation.exact(*map(widened, last)), operation.plain(*last)
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


def compare_loss(
    size: tuple[int, int, int], *, reduction: str, dtype: torch.dtype, device: torch.device
) -> list[Comparison]:
    """Compares the linear layer and the loss, in two chunks, with PyTorch's two functions.

    A processor's matrix product may add up the vocabulary in another order for fewer rows. So the
    gradient of x is compared with the error that PyTorch's makes in the same two chunks. Every
    third token is ignored. With the reduction "none", the gradient that arrives at the losses
    differs from token to token. The exact loss starts from the logits as the dtype rounds them.
    """
    n, dim, vocab_size = size
    generator = torch.Generator().manual_seed(n)
    x, weight = (torch.randn(rows, dim, generator=generator).to(device) / dim**0.25
                 for rows in (n, vocab_size))
    targets = torch.randint(vocab_size, (n,), generator=generator).to(device)
    targets[2::3] = -100
    upstream = torch.linspace(-1, 2, n, device=device) if reduction == "none" else None

    def plain(x: Tensor, weight: Tensor, n_chunks: int = 1) -> Tensor:
        logits = torch.cat([F.linear(rows, weight) for rows in x.chunk(n_chunks)])
        return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(),
                               targets, reduction=reduction)

    def found(way: Callable[[Tensor, Tensor], Tensor], kind: torch.dtype) -> list[Tensor]:
        leaves = [each.to(dtype).to(kind).requires_grad_() for each in (x, weight)]
        loss = way(*leaves)
        arriving = torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype)
        return [loss.detach(), *torch.autograd.grad(loss, leaves, arriving)]

    fused = partial(linear_cross_entropy, targets=targets, reduction=reduction,
                    chunk_bytes=-(-n // 2) * (vocab_size + 8) * dtype.itemsize,
                    emulate=device.type == "cpu")
    ours, eager, exact = (found(*each) for each in (
        (fused, dtype), (plain, dtype), (plain, torch.float64)))
    eager[1] = found(partial(plain, n_chunks=2), dtype)[1]
    rounded_logits = F.linear(x.to(dtype), weight.to(dtype)).double()
    exact[0] = F.cross_entropy(rounded_logits, targets, reduction=reduction)
    return [Comparison(operation=f"linear_cross_entropy {reduction}", size=size, dtype=dtype,
                       part=part, is_gradient=part != "loss",
                       verdict=judge(a, exact=e, eager=p, is_gradient=part != "loss"))
            for part, a, e, p in zip(("loss", "gradient of x", "gradient of weight"), ours, exact,
                                     eager, strict=True)]


def sweep(device: torch.device, *, is_large: bool) -> Iterator[Comparison]:
    """Yields all comparisons. `is_large` adds an 8B model's sizes and over 2^31 elements."""
    for _, comparisons in _batches(device, is_large=is_large):
        yield from comparisons()


def _batches(
    device: torch.device, *, is_large: bool
) -> Iterator[tuple[str, Callable[[], list[Comparison]]]]:
    """Yields each piece of the sweep by its name."""
    for operation in OPERATIONS:
        if operation.why_not(device):
            continue
        for dtype in operation.dtypes:
            yield (f"{operation.name} {_name(dtype)}",
                   partial(_compare_sizes, operation, dtype, device, is_large))
        if operation.is_deterministic and (operation.sizes or is_large):
            yield f"{operation.name} repeats", partial(
                compare_repeats, operation, device=device, n_repeats=50 if is_large else 3)
        if is_large and operation.beyond:
            yield f"{operation.name} beyond 2^31", partial(
                compare_beyond, operation, device=device)
    for dtype in DTYPES:
        yield f"adamw {_name(dtype)}", partial(compare_adamw, dtype=dtype, device=device)
        yield (f"linear_cross_entropy {_name(dtype)}, every reduction",
               partial(_compare_losses, dtype, device, is_large))


def _compare_losses(
    dtype: torch.dtype, device: torch.device, is_large: bool
) -> list[Comparison]:
    sizes = (*LOSS_SIZES, *([LARGE_LOSS] if is_large and dtype == torch.bfloat16 else []))
    return [each for size in sizes for reduction in REDUCTIONS
            for each in compare_loss(size, reduction=reduction, dtype=dtype, device=device)]


def _compare_sizes(
    operation: Operation, dtype: torch.dtype, device: torch.device, is_large: bool
) -> list[Comparison]:
    large = [_large(operation)] if is_large and dtype == torch.bfloat16 else []
    return [each for size in (*operation.sizes, *large)
            for each in compare(operation, size, dtype=dtype, device=device)]


def _compare_emulated(operation: Operation, device: torch.device) -> list[Comparison]:
    # One dtype where the emulator takes long to build.
    dtypes = operation.dtypes if operation.part == "memory-bound" else (torch.bfloat16,)
    return [each for dtype in dtypes for size in operation.sizes
            for each in compare_with_emulator(operation, size, dtype=dtype, device=device)]


def steps(device: torch.device) -> list[TrialStep]:
    """Returns the steps of the part `correctness`: with float64, then with the emulator."""
    alone = [TrialStep(name=name, run=partial(_found, name, comparisons))
             for name, comparisons in _batches(device, is_large=device.type == "cuda")]
    return [*alone, *(TrialStep(name=f"{operation.name} emulated",
                           run=partial(_found_emulated, operation, device))
                      for operation in OPERATIONS if operation.sizes)]


def no_emulator() -> str:
    """Returns why the emulator cannot run on this machine, or "" if it can."""
    try:
        find_compiler()
    except RuntimeError as error:
        return str(error)
    return ""


def _found_emulated(operation: Operation, device: torch.device, say: Say) -> Finding:
    if why_not := no_emulator():
        return Finding(why_not=why_not)
    return _found(f"{operation.name} on GPU and emulator",
                  partial(_compare_emulated, operation, device), say)


def _found(name: str, comparisons: Callable[[], list[Comparison]], say: Say) -> Finding:
    found = comparisons()
    wrong = tuple(str(each) for each in found if not each.verdict.is_ok)
    say(f"{name}: {len(found)} comparisons, {len(wrong)} wrong")
    return Finding(wrong=wrong, data={"n_comparisons": len(found)})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns x in the dtype. Complex numbers become complex64, and integers stay as they are."""
    if not (x.is_floating_point() or x.is_complex()):
        return x
    return x.to(torch.complex64) if x.is_complex() else x.to(dtype)


def widened(x: Tensor) -> Tensor:
    """Returns x in float64 or complex128. Integers stay as they are."""
    if not (x.is_floating_point() or x.is_complex()):
        return x
    return x.to(torch.complex128) if x.is_complex() else x.double()

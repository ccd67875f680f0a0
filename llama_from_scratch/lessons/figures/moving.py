"""Draws the bytes that move between memory and processors, for plain and for fused operations.

Notebooks 31, 32 and 36.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llama_from_scratch.kernels.trial.pointwise import POINTWISE
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.model.feed_forward import SwiGLU
from llama_from_scratch.model.norm import AddNorm, RMSNorm
from llama_from_scratch.model.rope import apply_rope
from llama_from_scratch.train.optimizer import AdamW, Group

SIZES = {"rms_norm": (64, 4096), "add_rms_norm": (64, 4096), "rope": (1, 64, 32, 8, 128),
         "swiglu": (64, 14336), "adamw": (64, 4096)}
"""The kernels that can be drawn, and the sizes at which the plain operations are counted."""
_WIDEST, _MAX_PITCH = 8.4, 1.1


class Pass(NamedTuple):
    """One operation: its name, and the bytes that it reads and writes for each number."""

    name: str
    read: float
    written: float


def plain_and_fused(kernel: str) -> Figure:
    """Draws every operation of the plain code with the bytes that it moves, and the kernel below.

    The bytes of the plain operations are counted while they run. The kernel's bytes are the minimum
    that its benchmark assumes. `kernel`: a key of SIZES. The pass is forward, in bf16; AdamW is in
    fp32.

    Example: `moving.plain_and_fused("swiglu")`
    """
    plain, fused = passes(kernel)
    unit = "parameter" if kernel == "adamw" else "number"
    total, least = (sum(p.read + p.written for p in each) for each in (plain, [fused]))
    drawing = Drawing(f"{kernel}: many trips to memory and back, or one")
    pitch = min(_WIDEST / len(plain), _MAX_PITCH)
    width = max(pitch * len(plain), 6.6)
    for row, (name, each) in enumerate((("plain PyTorch", plain), ("the kernel", [fused]))):
        y = 0.2 + 1.75 * row
        drawing.cell(f"memory ({name})", (width / 2, y), width=width, color=TINTS[0])
        for i, one in enumerate(each):
            x = width / 2 + (i - (len(each) - 1) / 2) * pitch
            made = drawing.step(one.name, (x, y + 1.05), does="focus" if row else "plain")
            drawing.arrow((x - 0.14, y + 0.14), (x - 0.14, made.top[1]), is_left=True,
                          label=_short(one.read))
            drawing.arrow((x + 0.14, made.top[1]), (x + 0.14, y + 0.14),
                          label=_short(one.written))
    drawing.note(f"↓ bytes read, ↑ bytes written per {unit}: together {total:.3g} in "
                 f"{len(plain)} operations, {least:.3g} in one kernel", (0.0, 3.5))
    return drawing.figure(
        f"The plain code moves {total:.3g} bytes per {unit}, because each operation writes what "
        f"the next one reads again. The kernel moves {least:.3g} bytes per {unit}; the plain code "
        f"moves {total / least:.1f} times as many.")


def _short(n_bytes: float) -> str:
    return f"{n_bytes:.1f}".removesuffix(".0")


def passes(kernel: str) -> tuple[list[Pass], Pass]:
    """Returns the passes of the plain code, counted in a run, and the pass of the kernel."""
    if kernel not in SIZES:
        raise ValueError(f"the kernel must be one of {', '.join(SIZES)}; got {kernel!r}")
    if kernel == "adamw":
        return _adamw()
    operation = next(each for each in POINTWISE if each.name == kernel)
    random = torch.Generator().manual_seed(0)
    inputs = [x.to(torch.complex64) if x.is_complex() else x.bfloat16() for x in operation.inputs(
        SIZES[kernel], lambda *shape: torch.randn(shape, generator=random))]
    plain = _plain(kernel, inputs)
    with torch.no_grad():
        counted, outputs = count(plain)
    n = sum(y.numel() for y in outputs) if kernel == "rope" else outputs[0].numel()
    written = sum(y.nbytes for y in outputs) / n
    total = operation.traffic(SIZES[kernel])[0] / n
    return ([Pass(name, read / n, out / n) for name, read, out in counted],
            Pass(kernel, total - written, written))


def _plain(kernel: str, inputs: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """Returns a function that applies the model's own parts to the inputs of a kernel."""
    if kernel == "swiglu":
        return lambda: (SwiGLU()(*inputs),)
    if kernel == "rope":
        q, k, rotation = inputs
        return lambda: (apply_rope(q, rotation), apply_rope(k, rotation))
    *streams, weight = inputs
    norm = RMSNorm(len(weight), eps=1e-5).to(weight.dtype)
    if kernel == "rms_norm":
        return lambda: (norm(*streams),)
    return lambda: AddNorm()(*streams, norm)


def _adamw() -> tuple[list[Pass], Pass]:
    weight = nn.Parameter(torch.ones(SIZES["adamw"]))
    weight.grad = torch.ones_like(weight)
    n = weight.numel()
    optimizer = AdamW([Group(params={"weight": weight}, weight_decay=0.1)])
    counted, _ = count(lambda: optimizer.step(lr=1e-3))
    # The weight and its averages are read and written; the gradient is only read.
    kept = weight.nbytes + sum(x.nbytes for x in optimizer.state_dict().values() if x.numel() == n)
    return ([Pass(name, read / n, out / n) for name, read, out in counted],
            Pass("adamw", (kept + weight.grad.nbytes) / n, kept / n))


def count(
    run: Callable[[], Sequence[Tensor] | None]
) -> tuple[list[tuple[str, int, int]], Sequence[Tensor] | None]:
    """Returns (operation, bytes read, bytes written) for each operation of `run`, and its result.
    """
    counter = _Counter()
    with counter:
        outputs = run()
    return counter.rows, outputs


class _Counter(TorchDispatchMode):
    """Records the bytes that each operation reads and writes; a view moves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, int, int]] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if not op.is_view:
            read, written = (sum({id(x): x.nbytes for x in tree_leaves(each)
                                  if isinstance(x, Tensor)}.values())
                             for each in ((args, kwargs), out))
            self.rows.append((op.overloadpacket.__name__.strip("_"), read, written))
        return out

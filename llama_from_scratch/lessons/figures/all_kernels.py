"""Draws the roofline of every kernel of the course: what bounds each of them, memory or arithmetic.

The sizes come from Llama 3 8B (`kernels.trial.operations`): training on 16,384 tokens (the loss
on 8,192), and decoding one token. Bytes are the fewest that a kernel must move. A multiply-add
counts as two operations, and so do an exponential, a root or a quotient as one.

Notebook 36.
"""

import math

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.config import record
from llama_from_scratch.kernels.trial.operations import OPERATIONS
from llama_from_scratch.lessons.figures.decoding import BYTES_PER_S, FLOPS_PER_S, draw_roof
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE

# Per number of the first input, in the forward pass.
_PER_NUMBER = {"rms_norm": 4, "add_rms_norm": 5, "rope": 3, "swiglu": 5}
_ADAMW_OPERATIONS, _ADAMW_BYTES = 13, 28   # per parameter in bf16
_WORDS = {"rms_norm": "RMSNorm", "add_rms_norm": "addition and RMSNorm", "rope": "RoPE",
          "swiglu": "SwiGLU", "int8_linear": "8-bit product, one row",
          "int4_linear": "4-bit product, one row", "decode_attention": "attention, one new token",
          "attention": "attention", "linear_cross_entropy": "linear and loss"}


@record
class KernelWork:
    """A kernel, the operations that it does, and the fewest bytes that it can move."""

    words: str
    operations: float
    n_bytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.n_bytes

    @property
    def share(self) -> float:
        """The part of the arithmetic that memory can keep busy, at most 1."""
        return min(self.intensity * BYTES_PER_S / FLOPS_PER_S, 1.0)


def works() -> list[KernelWork]:
    """Returns every kernel of the course, the least operations per byte first."""
    found = [KernelWork(words="AdamW", operations=_ADAMW_OPERATIONS, n_bytes=_ADAMW_BYTES)]
    for operation in OPERATIONS:
        if operation.name not in _WORDS:
            continue
        size, words = operation.large, _WORDS[operation.name]
        there, back = operation.traffic(size)
        if operation.operations:
            n_there, n_back = operation.operations(size)
            n_bytes = there + back if operation.is_one_pass else there
            found.append(KernelWork(words=words, n_bytes=n_bytes, operations=(
                n_there + n_back if operation.is_one_pass else n_there)))
        else:
            found.append(KernelWork(words=words, operations=_operations(operation.name, size),
                                    n_bytes=there))
    return sorted(found, key=lambda work: work.intensity)


def _operations(name: str, size: tuple[int, ...]) -> float:
    if name in ("int8_linear", "int4_linear"):
        return 2.0 * math.prod(size)
    if name == "decode_attention":   # the scores, and the sum of the values
        B, S, H, _, K = size
        return 4.0 * B * S * H * K
    if name == "rope":
        B, T, H, G, K = size
        return float(_PER_NUMBER[name] * B * T * (H + G) * K)
    return float(_PER_NUMBER[name] * math.prod(size))


def roofline() -> Figure:
    """Draws every kernel where its operations per byte meet the roof of an H200.

    Example: `all_kernels.roofline()`
    """
    shown = works()
    fig, ax = plt.subplots(figsize=(9, 4.2))
    draw_roof(ax, x=(0.2, 30000.0), y=(0.6, 3000.0))
    for number, work in enumerate(shown, 1):
        ax.plot(work.intensity, work.share * FLOPS_PER_S / 1e12, "o", markersize=8,
                color=ORANGE if work.share == 1 else BLUE,
                label=f"{number}  {work.words}: {_short(work.intensity)}")
        ax.annotate(str(number), (work.intensity, work.share * FLOPS_PER_S / 1e12), fontsize=11,
                    xytext=(0, -20 if number % 2 else 9), textcoords="offset points", ha="center")
    ax.set_title("What bounds each kernel on an H200")
    ax.legend(title="operations per byte", loc="center left", bbox_to_anchor=(1.02, 0.5),
              fontsize=11, handletextpad=0.2)
    n_by_memory = sum(work.share < 1 for work in shown)
    fig.set_label(f"Memory bounds {n_by_memory} of {len(shown)} kernels; arithmetic bounds "
                  + " and ".join(work.words for work in shown if work.share == 1) + ".")
    return fig


def _short(x: float) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}"

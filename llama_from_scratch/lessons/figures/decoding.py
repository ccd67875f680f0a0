"""Draws what decoding costs: the roofline, bits of packed weights, and keys split among processors.

Notebook 35. The machine of these pictures is an H200 as its data sheet describes it: 4.8 TB/s, 989
TFLOP/s of dense bf16 products, 132 processors.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, ORANGE, TINTS
from llama_from_scratch.model.quantized import PER_WORD, SHIFTS, pack_int4

BYTES_PER_S, FLOPS_PER_S, N_PROCESSORS = 4.8e12, 989e12, 132
_GRAY = "#ECECEC"
_BIT, _BAR = 0.255, 7.8


def intensity(config: LlamaConfig, *, n_rows: int, bytes_per_weight: float | int = 2) -> float:
    """Returns the operations per byte of the product of `n_rows` vectors with `w_gate`.

    Vectors and results have 2 bytes per number. A multiply-add counts as two operations.
    """
    d, f = config.dim, config.ffn_dim
    return 2 * n_rows * d * f / (bytes_per_weight * d * f + 2 * n_rows * (d + f))


def draw_roof(ax: Axes, *, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draws what an H200 can do at most by the operations per byte, and where its roof bends.

    `x`, `y`: the least and the most that are shown, in operations per byte and in TFLOP/s.
    """
    at = np.geomspace(*x, 200)
    ax.plot(at, np.minimum(at * BYTES_PER_S, FLOPS_PER_S) / 1e12, color=BLACK)
    ridge = FLOPS_PER_S / BYTES_PER_S
    ax.vlines(ridge, *y, color="0.6", linestyle=":")
    ax.annotate(f"{ridge:.0f} operations\nper byte", (ridge, 1.5 * y[0]), xytext=(-6, 0),
                textcoords="offset points", fontsize=11, ha="right")
    ax.set(xscale="log", yscale="log", xlim=x, ylim=y, xlabel="operations per byte that moves",
           ylabel="TFLOP/s, at most")


def roofline(config: LlamaConfig, *, rows: Sequence[int] = (1, 8, 256)) -> Figure:
    """Draws how fast products of some rows with a matrix of this model can be at most.

    Example: `decoding.roofline(family.config("llama-3.1-8b"))`
    """
    found = [(n, intensity(config, n_rows=n)) for n in rows]
    fig, ax = plt.subplots(figsize=(7.5, 3.7))
    draw_roof(ax, x=(0.5, 4000.0), y=(1.5, 2500.0))
    told = []
    for n, per_byte in found:
        reached = min(per_byte * BYTES_PER_S, FLOPS_PER_S)
        is_by_memory = per_byte * BYTES_PER_S < FLOPS_PER_S
        ax.plot(per_byte, reached / 1e12, "o", markersize=9, color=BLUE if is_by_memory else ORANGE)
        told.append(f"{n} row{'s' * (n > 1)}: {_percent(reached / FLOPS_PER_S)}")
        ax.annotate(told[-1], (per_byte, reached / 1e12), xytext=(12, -18),
                    textcoords="offset points", fontsize=11)
    ax.set_title("The share of an H200's arithmetic that memory can keep busy")
    fig.set_label("The share of the arithmetic that memory can keep busy. " + "; ".join(told) + ".")
    return fig


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def unpacking(numbers: Sequence[int], *, pair: int = 0) -> Figure:
    """Draws how two of the eight 4-bit numbers in a word become bf16 numbers, bit by bit.

    Example: `decoding.unpacking([3, 12, 5, 9, 0, 15, 8, 7], pair=1)`

    Raises ValueError for other than eight numbers from 0 to 15, or a pair that is not from 0 to 3.
    """
    if len(numbers) != PER_WORD or not all(0 <= n <= 15 for n in numbers) or pair not in range(4):
        raise ValueError("a word holds eight numbers from 0 to 15, in pairs 0 to 3; got "
                         f"{list(numbers)} and pair {pair}")
    word = int(pack_int4(torch.tensor([list(numbers)]))[0, 0]) & 0xFFFFFFFF
    masked = word >> 4 * pair & 0x000F000F
    made = masked | 0x43004300
    low, high = (128 + numbers[2 * pair + i] for i in (0, 1))
    drawing = Drawing("Two numbers of 4 bits become two bf16 numbers")
    colors = {bit: TINTS[j % len(TINTS)] for j, begin in enumerate(SHIFTS)
              for bit in range(begin, begin + 4)}
    kept = {place + begin: colors[4 * pair + place + begin] for begin in (0, 16)
            for place in range(4)}
    fixed = {bit + begin: _GRAY for begin in (0, 16) for bit in range(4, 16)}
    shift = f"shifted right by {4 * pair}, and " if pair else ""
    rows = ((f"the word 0x{word:08x}: eight numbers of 4 bits", word, colors),
            (f"{shift}masked with 0x000f000f: two numbers are left", masked, kept),
            (f"with the bits of 0x43004300: as bf16, the halves are {high} = 128 + {high - 128} "
             f"and {low} = 128 + {low - 128}", made, kept | fixed))
    for i, (words, bits, fills) in enumerate(rows):
        y = 0.95 + 1.15 * i
        drawing.note(words, (0.0, y - (0.7 if not i else 0.38)))
        for bit in range(32):
            drawing.cell(str(bits >> bit & 1), (_BIT * (31 - bit) + 0.14, y), width=_BIT,
                         color=fills.get(bit, "white"), height=0.3)
    for j, begin in enumerate(SHIFTS):
        drawing.note(f"[{j}] = {numbers[j]}", (_BIT * (29.5 - begin) + 0.14, 0.62), align="center")
    return drawing.figure(
        f"Numbers {2 * pair} and {2 * pair + 1} of the word, {numbers[2 * pair]} and "
        f"{numbers[2 * pair + 1]}, are 16 bits apart. One mask takes both, and the bits of 128 in "
        f"front of each make {low} and {high}.")


def splits(config: LlamaConfig, *, n_splits: int = 16, n_keys: int = 8192) -> Figure:
    """Draws which processors read the cache of one text: a block per head, or split among blocks.

    Example: `decoding.splits(family.config("llama-3.1-8b"))`
    """
    G = config.n_kv_heads
    drawing = Drawing(f"One text of {n_keys:,} keys and {N_PROCESSORS} processors")
    drawing.note(f"a block per key/value head: {G} processors read, "
                 f"{N_PROCESSORS - G} of {N_PROCESSORS} wait", (0.0, 0.0))
    pitch = 0.2
    for i in range(G):
        drawing.cell("", (_BAR / 2, 0.3 + pitch * i), width=_BAR, height=pitch - 0.04,
                     color=TINTS[i % len(TINTS)])
    y = 0.3 + pitch * G + 0.35
    n_idle = max(0, N_PROCESSORS - G * n_splits)
    drawing.note(f"split {n_splits} ways: {G * n_splits} blocks of {n_keys // n_splits:,} keys, "
                 f"{n_idle} of {N_PROCESSORS} processors wait", (0.0, y))
    y += 0.3
    width = _BAR / n_splits
    for i in range(G):
        for s in range(n_splits):
            drawing.cell("", (width * (s + 0.5), y + pitch * i), width=width - 0.03,
                         height=pitch - 0.04, color=TINTS[(i * n_splits + s) % len(TINTS)])
    y += pitch * G
    joined = drawing.step("combine", (_BAR / 2, y + 0.75), does="focus",
                          detail=f"a second kernel joins {n_splits} partial results per head")
    drawing.arrow((_BAR / 2, y), joined, label="per split: the sum, the largest score, its weight")
    return drawing.figure(
        f"With a block per head, {G} of {N_PROCESSORS} processors read. Split {n_splits} ways, "
        f"{min(N_PROCESSORS, G * n_splits)} do, and a second kernel joins the parts.")



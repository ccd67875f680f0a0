"""A drawing of RoPE: each pair of channels is a hand that turns with the position.

Notebook 12.
"""

import math

import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.model.rope import Rope


def pairs(rope: Rope, *, n_positions: int = 8, n_pairs: int = 4) -> Figure:
    """The hands of some pairs at the first positions, evenly chosen from fast to slow."""
    turns_TR = rope(torch.arange(n_positions)[None])[0]
    n_all = turns_TR.shape[1]
    chosen = [round(i * (n_all - 1) / (n_pairs - 1)) for i in range(n_pairs)]
    drawing = Drawing("RoPE: each pair of channels is a hand, and the position turns it")
    for row, pair in enumerate(chosen):
        y, freq = 0.45 + 0.66 * row, float(turns_TR[1, pair].angle())
        drawing.note(f"channels {2 * pair}, {2 * pair + 1}\n{_speed(freq)}", (0.1, y))
        for position in range(n_positions):
            drawing.clock(float(turns_TR[position, pair].angle()), (2.6 + 0.68 * position, y))
    below = 0.45 + 0.66 * len(chosen) - 0.18
    for position in range(n_positions):
        drawing.note(f"{position}", (2.56 + 0.68 * position, below))
    drawing.note("position", (0.1, below))
    return drawing.figure(
        "Each row is a pair of channels: the first turns fast and tells neighbors apart, the last "
        "hardly turns and still tells far positions apart.")


def _speed(freq: float) -> str:
    """The tokens of one turn of a hand, in words."""
    if freq <= 0:
        return "hardly turns"
    return f"one turn: {2 * math.pi / freq:,.0f} tokens"

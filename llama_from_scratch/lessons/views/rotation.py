"""Shows RoPE as hands that turn with the position; each pair of channels is slower than the last.

Used by the chapter on RoPE (12).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig, RopeScaling
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.rope import rope_frequencies

# More hands would overlap, so some pairs are left out, at equal distances.
_MAX_HANDS = 8


def rope(config: LlamaConfig, *, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget of one head's hands at a position, and how slowly each of them turns.

    `start`: other first values, such as {"position": 64, "scaling": "×8 (Llama 3.1)"}.
    """
    original = (config.rope_scaling.original_max_seq_len if config.rope_scaling
                else config.max_seq_len)
    factors = {"none": None, "×8 (Llama 3.1)": 8.0, "×32 (Llama 3.2)": 32.0}

    def draw(position: int, theta: str, scaling: str) -> Figure:
        factor = factors[scaling]
        scaled = None if factor is None else RopeScaling(
            factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=original)
        turned = dataclasses.replace(
            config, rope_theta=float(theta.replace(",", "")), rope_scaling=scaled)
        return rope_frame(turned, position=position, original=original)

    positions = [*range(9), *(2**k for k in range(4, int(math.log2(32 * original)) + 1))]
    own = f"{config.rope_theta:,.0f}"
    return explore(draw, title="RoPE: hands that turn with the position",
                   labels={"position": "position (tokens)", "theta": "base θ",
                           "scaling": "context scaling"},
                   start={"position": 3} | dict(start or {}), controls={
        "position": {f"{position:,}": position for position in positions},
        "theta": list(dict.fromkeys([own, "10,000", "500,000", "100"])), "scaling": list(factors)})


def rope_frame(config: LlamaConfig, *, position: int, original: int) -> Figure:
    """Draws hands at the angle position · frequency, and the tokens per turn for every pair.

    Gray shows the same without scaling.
    """
    plain_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
    freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)
    R = len(freq_R)
    shown = sorted({round(r) for r in np.linspace(0, R - 1, min(R, _MAX_HANDS))})
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), width_ratios=(1, 1.35))
    left.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.85"))
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shown)))
    for place, (r, color) in enumerate(zip(shown, colors, strict=True)):
        length = 1 - 0.5 * place / len(shown)
        for freq, look in ((plain_R[r], {"color": "0.8", "lw": 4}),
                           (freq_R[r], {"color": color, "lw": 3})):
            angle = math.fmod(position * freq.item(), 2 * math.pi)
            left.plot([0, length * math.cos(angle)], [0, length * math.sin(angle)],
                      solid_capstyle="round", **look)
            left.plot(length * math.cos(angle), length * math.sin(angle), "o", color=look["color"],
                      markersize=8)
    left.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[], aspect="equal",
             title=f"position {position:,}",
             xlabel="dark: first pair, bright: last")
    left.spines[:].set_visible(False)
    if config.rope_scaling:
        right.plot((2 * math.pi / plain_R).numpy(), color="0.7", label="without scaling")
    right.plot((2 * math.pi / freq_R).numpy(), color=BLUE, label=f"θ = {config.rope_theta:,.0f}")
    right.scatter(shown, (2 * math.pi / freq_R[shown]).numpy(), color=colors, zorder=3, s=60)
    right.axhline(original, color=ORANGE, linestyle="--", label=f"context trained on: {original:,}")
    right.set(yscale="log", xlabel="pair r", ylabel="tokens per full turn",
              title="How slowly each pair turns")
    right.legend()
    turns = position * freq_R / (2 * math.pi)
    fig.set_label(f"At position {position:,} the first pair has made {turns[0]:,.2f} turns, and "
                  f"the last pair {turns[-1]:.4f}. Within {original:,} tokens, "
                  f"{int((2 * math.pi / freq_R > original).sum())} of {R} pairs finish no turn.")
    return fig

"""Draws query heads that share key/value heads.

Notebook 13.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS

_PITCH = 0.27
_MAX_HEADS = 24


def groups(config: LlamaConfig, *, others: Sequence[int] = ()) -> Figure:
    """Draws which key/value head each query head of a config reads.

    `others`: other numbers of key/value heads to compare with, each in its own row. Query head h
    reads key/value head h // (H / G). At most the first 24 query heads are drawn. Raises ValueError
    unless each number of key/value heads divides the number of query heads.

    Example: `heads.groups(family.config("llama-3.1-8b"), others=(32, 1))`
    """
    H = config.n_heads
    n_drawn = min(H, _MAX_HEADS)
    drawing = Drawing(f"{H} query heads share G key/value heads")
    for row, G in enumerate((config.n_kv_heads, *others)):
        if G < 1 or H % G:
            raise ValueError("every key/value head must serve equally many query heads, so the "
                             f"number of key/value heads must divide {H}; got {G}")
        top, size = 0.3 + 1.3 * row, H // G
        name = "" if row else ", this model"
        drawing.note(f"G = {G}{name}\n{2 * G * config.head_dim:,} numbers kept\n"
                     "per token and layer", (0.05, top + 0.31))
        left = 1.95
        for g in range(-(-n_drawn // size)):
            members = range(g * size, min((g + 1) * size, n_drawn))
            xs = [left + _PITCH * h for h in members]
            tint = TINTS[g % len(TINTS)]
            shared = drawing.cell(f"{g}", ((xs[0] + xs[-1]) / 2, top + 0.62), color=tint,
                                  width=0.24 + _PITCH * (len(xs) - 1))
            for h, x in zip(members, xs, strict=True):
                query = drawing.cell(f"{h}", (x, top), color=tint, width=0.24)
                drawing.arrow((x, shared.top[1]), query)
    rest = f" Only {n_drawn} of {H} query heads are shown." if n_drawn < H else ""
    drawing.note(f"Top: query heads. Bottom: the key/value heads that they read.{rest}",
                 (0.05, 0.3 + 1.3 * (1 + len(others)) - 0.2))
    return drawing.figure(
        f"{H // config.n_kv_heads} neighboring query heads read the same key/value head. So the "
        f"cache holds {config.n_kv_heads} heads instead of {H}.")

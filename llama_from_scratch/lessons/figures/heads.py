"""A drawing of query heads that share key/value heads.

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
    """Which key/value head each query head of a config reads, and of the same with other counts.

    `others`: numbers of key/value heads to compare with, each in a row of its own. Query head h
    reads key/value head h // (H / G). Of more than 24 query heads the first are drawn. Raises
    ValueError unless each count divides the number of query heads.

    Example: `heads.groups(family.config("llama-3.1-8b"), others=(32, 1))`
    """
    H = config.n_heads
    n_drawn = min(H, _MAX_HEADS)
    drawing = Drawing(f"{H} query heads share G key/value heads")
    for row, G in enumerate((config.n_kv_heads, *others)):
        if G < 1 or H % G:
            raise ValueError(f"each key/value head serves as many query heads, so their number "
                             f"divides {H}; got {G}")
        top, size = 0.3 + 1.3 * row, H // G
        name = "" if row else ", this model"
        drawing.note(f"G = {G}{name}\n{2 * G * config.head_dim:,} numbers kept\n"
                     "a token and layer", (0.05, top + 0.31))
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
    rest = f" Drawn are the first {n_drawn} of {H} query heads." if n_drawn < H else ""
    drawing.note(f"Above are query heads, below the key/value heads that they read.{rest}",
                 (0.05, 0.3 + 1.3 * (1 + len(others)) - 0.2))
    return drawing.figure(
        f"{H // config.n_kv_heads} neighboring query heads read one key/value head, so the cache "
        f"holds {config.n_kv_heads} instead of {H} heads.")

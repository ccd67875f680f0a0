"""Draws two feed-forward networks to scale: the first transformer's, and a Llama's.

Notebook 14.
"""

from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.model.costs import param_counts

_UNIT = 0.36   # inches for D channels


def classic_and_gated(config: LlamaConfig) -> Figure:
    """Draws the first transformer's two matrices, 4 D wide, and SwiGLU's three of a config.

    The height of a bar is the number of channels. SwiGLU's weights are counted in the model.

    Example: `widths.classic_and_gated(family.config("llama-3.1-8b"))`
    """
    D, F = config.dim, config.ffn_dim
    n_gated = param_counts(config)["feed-forward"] // config.n_layers
    n_classic = 2 * D * 4 * D
    drawing = Drawing("Two matrices, or three that are narrower" if F < 4 * D
                      else "Two matrices, or three")
    middle = 0.35 + _UNIT * 4 / 2
    _network(drawing, D, 4 * D, y=middle, names=("w_1", "w_2"), middle="relu")
    drawing.note(f"2 matrices of {D:,} × {4 * D:,}\n{n_classic / 1e6:,.0f}M weights per layer",
                 (6.45, middle))
    second = middle + _UNIT * (4 + F / D) / 2 + 0.45
    _network(drawing, D, F, y=second, names=("w_gate", "w_up", "w_down"), middle="silu(gate) × up")
    drawing.note(f"3 matrices of {D:,} × {F:,}\n{n_gated / 1e6:,.0f}M weights per layer,\n"
                 f"{n_gated / n_classic:.2f} times as many", (6.45, second))
    return drawing.figure(
        "At two thirds of the width, 2.67 D, three matrices have as many weights as two. This "
        f"config is {F / D:.2f} D wide and has {n_gated / n_classic:.2f} times as many weights.")


def _network(
    drawing: Drawing, D: int, F: int, *, y: float, names: tuple[str, ...], middle: str
) -> None:
    x, out = (_bar(drawing, "D", D / D, (at, y)) for at in (0.4, 6.0))
    hidden = _bar(drawing, "F" if len(names) == 3 else "4 D", F / D, (3.5, y))
    drawing.note(middle, (3.5, y + _UNIT * F / D / 2 + 0.16), align="center")
    wide = names[:-1]
    for name, offset in zip(wide, (0.0,) if len(wide) == 1 else (-0.4, 0.4), strict=True):
        step = drawing.step(name, (1.9, y + offset), does="weights")
        if offset:
            drawing.arrow(x, (1.0, y), (1.0, step.y), step)
        else:
            drawing.arrow(x, step)
        drawing.arrow(step, (hidden.left[0], step.y))
    last = drawing.step(names[-1], (4.85, y), does="weights")
    drawing.arrow(hidden, last)
    drawing.arrow(last, out)


def _bar(drawing: Drawing, words: str, share: float, at: tuple[float, float]) -> Node:
    return drawing.cell(words, at, width=0.42, height=_UNIT * share, color=TINTS[0])

"""Draws a feed-forward of experts: where one token goes, and how many tokens are sorted.

Notebook 23.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.model.moe import MoE, Routing

MAX_EXPERTS, MAX_TOKENS = 8, 12
COLORS = (*TINTS, "#C9C9C9")
"""The color of each expert; experts with equal numbers modulo 8 have the same color."""
_ROW, _HEIGHT, _GAP = 0.42, 0.3, 0.12


def color_of(expert: int) -> str:
    """Returns the color of an expert in every picture of the course."""
    return COLORS[expert % len(COLORS)]


@torch.no_grad()
def layer(moe: MoE, x: Float[Tensor, "D"]) -> Figure:
    """Draws where one token goes in a layer with at most eight experts, with its real scores.

    Example: `experts.layer(model.layers[0].feed_forward, torch.randn(96))`
    """
    if moe.n_experts > MAX_EXPERTS:
        raise ValueError(f"the drawing has room for {MAX_EXPERTS} experts; got {moe.n_experts}")
    routing = moe.router(x[None])
    chosen = dict(zip(routing.experts[0].tolist(), routing.scores[0].tolist(), strict=True))
    width, shared_width = moe.experts.w_gate.shape[2], moe.shared.w_gate.out_features
    drawing = Drawing("One token in a layer of experts")
    top, first = 0.4, 1.35
    rows = [first + _ROW * e for e in range(moe.n_experts)]
    bottom = rows[-1] + 0.85
    token = drawing.tensor("x", (0.6, (first + bottom) / 2), shape={"D": len(x)})
    bus, end = 1.35, 7.3
    router = drawing.step("router", (2.3, top), does="choice",
                          detail=f"{moe.n_experts} directions")
    drawing.arrow(token, (bus, token.y), (bus, top), router)
    total = drawing.sign("+", (end, bottom))
    for e, y in enumerate(rows):
        drawing.step(f"expert {e}", (5.35, y), does="focus" if e in chosen else "plain",
                     width=1.0)
    boxes = {node.name: node for node in drawing.nodes}
    for k, (e, score) in enumerate(sorted(chosen.items())):
        y = rows[e]
        times = drawing.sign("×", (4.2 - 0.75 * k, y))
        drawing.arrow(router, (times.x, top), times, label=f"{score:.2f}", is_left=bool(k))
        drawing.arrow((bus, token.y), (bus, y), times)
        drawing.arrow(times, boxes[f"expert {e}"])
        drawing.arrow(boxes[f"expert {e}"], (end, y), total)
    shared = drawing.step("shared", (5.35, bottom), does="weights", width=1.0)
    drawing.arrow((bus, token.y), (bus, bottom), shared)
    drawing.arrow(shared, total)
    out = drawing.tensor("out", (end + 0.9, bottom), shape={"D": len(x)})
    drawing.arrow(total, out)
    drawing.note(f"hidden channels: {width} in each expert, {shared_width} in the shared one",
                 (0.25, bottom + 0.62))
    which = " and ".join(f"expert {e}, times {score:.2f}" for e, score in sorted(chosen.items()))
    return drawing.figure(
        f"This token goes to {which}, and to the shared expert, which has no score. The other "
        f"{moe.n_experts - len(chosen)} experts are not computed.")


def sorted_tokens(names: Sequence[str], routing: Routing) -> Figure:
    """Draws tokens in the order of the text, and their copies sorted by expert.

    Raises ValueError if there is no room for all copies.

    Example: `experts.sorted_tokens(["the", "cat", "sat"], routing)`
    """
    experts_NA = routing.experts
    n_active, n_copies = experts_NA.shape[1], experts_NA.numel()
    if n_copies > MAX_TOKENS:
        raise ValueError(f"the drawing has room for {MAX_TOKENS} copies of tokens; got {n_copies}")
    order = experts_NA.flatten().argsort(stable=True).tolist()
    drawing = Drawing("Sorted by expert, each expert is one product")
    above, below = 0.75, 2.15
    widths = [Drawing("").cell(name, (0.0, 0.0), width=0.42).width for name in names]
    upper: list[Node] = []
    left = 0.35
    for n, name in enumerate(names):
        color = color_of(int(experts_NA[n, 0])) if n_active == 1 else "white"
        upper.append(drawing.cell(name, (left + widths[n] / 2, above), width=widths[n],
                                  height=_HEIGHT, color=color))
        left += widths[n] + _GAP
    drawing.note("in the order of the text", (0.2, above - 0.42))
    left, groups = 0.35, {}
    for place, copy in enumerate(order):
        n, e = copy // n_active, int(experts_NA.flatten()[copy])
        if place and e not in groups:
            left += 0.3
        node = drawing.cell(names[n], (left + widths[n] / 2, below), width=widths[n],
                            height=_HEIGHT, color=color_of(e))
        groups.setdefault(e, []).append(node)
        drawing.arrow(upper[n].bottom, node.top, color="0.55")
        left += widths[n] + _GAP
    for e, nodes in groups.items():
        middle = (nodes[0].left[0] + nodes[-1].right[0]) / 2
        drawing.note(f"expert {e}", (middle, below + 0.34), align="center")
    counts = ", ".join(f"{len(nodes)} to expert {e}" for e, nodes in groups.items())
    return drawing.figure(f"{len(names)} tokens, {n_copies} copies: {counts}. Copies of the same "
                          "expert are next to each other, in the order of the text.")

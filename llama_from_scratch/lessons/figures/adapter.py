"""Draws how a text model sees: the blocks between its layers, one of them, and who sees what.

Notebook 22.
"""

from collections.abc import Sequence

from jaxtyping import Bool
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.config import VisionLlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS

_N_DRAWN = 2
_CELL, _HEIGHT, _GAP = 0.34, 0.3, 0.24


def model(config: VisionLlamaConfig) -> Figure:
    """Draws the text layers in a row, the blocks before some of them, and the image above.

    The first two blocks and the last one are drawn.

    Example: `adapter.model(family.config("llama-3.2-11b-vision-instruct"))`
    """
    vision, at = config.vision, config.cross_layers
    drawing = Drawing("A finished text model, and blocks that look at an image")
    drawn = [*at[:_N_DRAWN], at[-1]] if len(at) > _N_DRAWN + 1 else list(at)
    image = drawing.tensor("tiles", (0.75, 0.5))
    encoder = drawing.step("encoder", (2.2, 0.5), does="weights",
                           detail=f"{vision.n_local_layers} + {vision.n_global_layers} layers")
    projector = drawing.step("projector", (3.75, 0.5), does="weights")
    states = drawing.tensor("states", (5.6, 0.5), shape={
        "J": vision.max_tiles, "P+1": vision.n_tokens, "D": config.dim})
    _chain(drawing, image, encoder, projector, states)

    y, bus = 2.4, 1.45
    before = drawing.tensor("ids", (0.4, y))
    first, places = 0, []
    for layer in drawn:
        if layer == at[-1] and len(drawn) < len(at):
            before = _next(drawing, before, "…")
        elif layer > first:
            before = _next(drawing, before, _layers(first, layer - 1), does="weights")
        before = _next(drawing, before, "block", does="focus")
        places.append(before)
        first = layer
    before = _next(drawing, before, _layers(first, config.n_layers - 1), does="weights")
    _next(drawing, before, "head", does="weights")
    drawing.arrow(states, (states.x, bus), (places[0].x, bus), places[0])
    for block in places[1:]:
        drawing.arrow((block.x, bus), block)
    drawing.arrow((states.x, bus), (places[-1].x, bus), has_head=False)
    where = ", ".join(map(str, at))
    return drawing.figure(
        f"The {config.n_layers} text layers are the finished text model's. The blue blocks before "
        f"layers {where} look at the same {config.image_tokens:,} states of the image.")


def _layers(first: int, last: int) -> str:
    return f"layer {last}" if first == last else f"layers {first}–{last}"


def _next(drawing: Drawing, before: Node, name: str, *, does: str = "plain") -> Node:
    """Adds a step to the right of `before`, and an arrow to it."""
    width = Drawing("").step(name, (0.0, 0.0)).width
    step = drawing.step(name, (before.right[0] + _GAP + width / 2, before.y), does=does)
    drawing.arrow(before, step)
    return step


def block(config: VisionLlamaConfig) -> Figure:
    """Draws one cross-attention block: queries of the text, keys and values of the image, gates.

    Example: `adapter.block(family.config("llama-3.2-11b-vision-instruct"))`
    """
    drawing = Drawing("A cross-attention block, before a text layer")
    states = drawing.tensor("states", (0.65, 0.6), shape={
        "S": config.image_tokens, "D": config.dim})
    x = drawing.tensor("x", (0.65, 2.55), shape={"D": config.dim})
    drawing.note("of the image", (0.65, 0.05), align="center")
    drawing.note("of each token", (0.65, 3.15), align="center")
    wk = drawing.step("wk", (2.0, 0.3), does="weights")
    wv = drawing.step("wv", (2.0, 1.0), does="weights")
    k_norm = drawing.step("norm", (3.05, 0.3), detail="per head")
    kept = drawing.step("kept", (4.4, 0.65), detail="keys and values", does="memory")
    for weight in (wk, wv):
        drawing.arrow(states, (1.4, states.y), (1.4, weight.y), weight)
    drawing.arrow(wk, k_norm)
    drawing.arrow(k_norm, (3.75, k_norm.y), (3.75, 0.55), (kept.left[0], 0.55))
    drawing.arrow(wv, (3.6, wv.y), (3.6, 0.8), (kept.left[0], 0.8))
    norm = drawing.step("norm", (1.75, 2.55))
    wq = drawing.step("wq", (2.6, 2.55), does="weights")
    q_norm = drawing.step("norm", (3.45, 2.55), detail="per head")
    look = drawing.step("attention", (4.7, 2.55), detail="no RoPE", does="choice")
    wo = drawing.step("wo", (5.8, 2.55), does="weights")
    _chain(drawing, x, norm, wq, q_norm, look, wo)
    drawing.arrow(kept, (kept.x, 1.5), (look.x, 1.5), look)
    total, middle = _gated(drawing, wo, 6.6, 2.55), (1.2, 2.55)
    drawing.arrow(middle, (1.2, 1.75), (total.x, 1.75), total)
    ffn_norm = drawing.step("norm", (7.25, 4.35))
    ffn = drawing.step("feed-forward", (5.95, 4.35), does="weights",
                       detail=f"{config.ffn_dim:,} wide")
    corner = (8.05, 2.55)
    drawing.arrow(total, corner, (corner[0], 4.35), ffn_norm)
    drawing.arrow(ffn_norm, ffn)
    gate = drawing.sign("×", (4.75, 4.35))
    drawing.arrow(ffn, gate)
    drawing.arrow(drawing.step("tanh(gate)", (4.75, 5.15), does="focus"), gate)
    end = drawing.sign("+", (3.75, 4.35))
    drawing.arrow(gate, end)
    drawing.arrow((corner[0], 3.6), (end.x, 3.6), end)
    drawing.arrow(end, drawing.step("text layer", (2.35, 4.35), does="weights"))
    return drawing.figure(
        "Queries come from the text, keys and values from the image, once. Both results are "
        "multiplied by tanh(gate) before they are added; at the start that is 0.")


def _gated(drawing: Drawing, node: Node, x: float, y: float) -> Node:
    """Adds a gate and a sum to the right of `node`; returns the sum."""
    gate, total = drawing.sign("×", (x, y)), drawing.sign("+", (x + 0.9, y))
    source = drawing.step("tanh(gate)", (x, y + 0.8), does="focus")
    drawing.arrow(node, gate)
    drawing.arrow(source, gate)
    drawing.arrow(gate, total)
    return total


def sight(
    names: Sequence[str], sees: Bool[Tensor, "T I"], *, n_tiles: Sequence[int], max_tiles: int
) -> Figure:
    """Draws which tiles of which images each token sees: a row for each token.

    `n_tiles`: that each image uses, of `max_tiles`. Raises ValueError if the table is too wide.

    Example: `adapter.sight(["a", "<image>", "b"], sees, n_tiles=[2], max_tiles=4)`
    """
    drawing = Drawing("Which tiles does each token see?")
    left, top = 1.6, 0.9
    for image, used in enumerate(n_tiles):
        start = left + image * (_CELL * max_tiles + 0.3)
        middle = start + _CELL * (max_tiles - 1) / 2
        drawing.note(f"image {image}", (middle, top - 0.72), align="center")
        for tile in range(max_tiles):
            x = start + _CELL * tile
            drawing.note(f"{tile}", (x, top - 0.36), align="center")
            for t in range(len(names)):
                shown = bool(sees[t, image]) and tile < used
                drawing.cell("", (x, top + _HEIGHT * t), width=_CELL, height=_HEIGHT,
                             color=TINTS[0] if shown else
                             "white" if tile < used else "0.85")
    for t, name in enumerate(names):
        drawing.note(name, (left - 0.35, top + _HEIGHT * t), align="right")
    drawing.note("tile", (left - 0.35, top - 0.36), align="right")
    drawing.key({"is seen": TINTS[0], "is not seen": "white", "unused tile": "0.85"},
                (0.3, top + _HEIGHT * len(names) + 0.15))
    of_images = [f"image {i} is seen by {int(sees[:, i].sum())} of {len(names)} tokens"
                 for i in range(len(n_tiles))]
    return drawing.figure(f"{'; '.join(of_images).capitalize()}. No token sees an unused tile.")


def _chain(drawing: Drawing, *nodes: Node) -> None:
    for first, second in zip(nodes, nodes[1:], strict=False):
        drawing.arrow(first, second)

"""Draws the vision encoder: its stages, one layer with and without gates, and its result.

Notebook 21.
"""

from matplotlib.figure import Figure

from llama_from_scratch.config import VisionConfig
from llama_from_scratch.lessons.figures.flow import Drawing, Node
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.vision.encoder import N_COLORS, TOKEN_MULTIPLE

_N_CHANNELS = 3


def stages(config: VisionConfig) -> Figure:
    """Draws the way from the tiles of an image to the vectors that a text model attends to.

    Raises ValueError if the config has a size with which the drawing gets too wide.

    Example: `encoder.stages(released)`, with the config of a released encoder
    """
    J, P, W, n = config.max_tiles, config.n_patches, config.dim, config.n_tokens
    n_padded = n + -n % TOKEN_MULTIPLE
    drawing = Drawing("From tiles to states that a text model can look at")
    pixels = drawing.tensor("pixels", (0.65, 0.55))
    drawing.note(f"J C px px\n{J} × {N_COLORS} × {config.tile_px} × {config.tile_px}",
                 (0.65, 1.0), align="center")
    cut = drawing.step("cut, × matrix", (2.2, 0.55), does="weights")
    patches = drawing.tensor("patches", (3.95, 0.55), shape={"J": J, "P": P, "W": W})
    tile = drawing.step("+ tile", (5.35, 0.55), detail="gated", does="focus")
    class_token = drawing.step("class token", (6.55, 0.55), detail="before them", does="weights")
    place = drawing.step("+ place", (7.75, 0.55), detail="gated", does="focus")
    _chain(drawing, pixels, cut, patches, tile, class_token, place)

    tokens = drawing.tensor("tokens", (7.75, 1.75), shape={"J": J, "P+1": n, "W": W})
    pad = drawing.step("norm, then pad", (5.9, 1.75), detail=f"to {n_padded:,} a tile")
    local = drawing.step(f"{config.n_local_layers} local layers", (3.9, 1.75),
                         detail="without gates", does="weights")
    after = drawing.step("norm, + tile", (2.2, 1.75), detail="gated", does="focus")
    shared = drawing.step(f"{config.n_global_layers} global layers", (0.65, 1.75), detail="gated",
                          does="focus")
    _chain(drawing, place, tokens, pad, local, after, shared)

    kept = ", ".join(map(str, config.intermediate_layers))
    early = drawing.step("keep the states", (3.9, 2.8), detail=f"that enter layers\n{kept}",
                         does="memory")
    drawing.arrow(local, early)
    last = drawing.tensor("last state", (0.65, 3.0), shape={"T": J * n_padded, "W": W})
    drawing.arrow(shared, last)
    states = drawing.tensor("states", (2.0, 4.2), shape={
        "J": J, "P+1": n, f"{1 + len(config.intermediate_layers)} W": config.n_features})
    drawing.arrow(last, (0.65, 4.2), states)
    drawing.arrow(early, (3.9, 3.6), (2.0, 3.6), states)
    projector = drawing.step("projector", (4.3, 4.2), does="weights")
    result = drawing.tensor("for the text model", (6.6, 4.2), shape={
        "J": J, "P+1": n, "D": config.output_dim})
    _chain(drawing, states, projector, result)
    return drawing.figure(
        f"One image of {J} tiles becomes {J * n:,} vectors that are {config.output_dim:,} wide. "
        "Blue steps are gated: a fresh encoder works as if they were not there.")


def _chain(drawing: Drawing, *nodes: Node) -> None:
    for first, second in zip(nodes, nodes[1:], strict=False):
        drawing.arrow(first, second)


def layers(config: VisionConfig) -> Figure:
    """Draws a local layer and, below it, a global one, whose two halves are gated.

    Example: `encoder.layers(released)`
    """
    drawing = Drawing("A local layer, and a global one with its two gates")
    heads = f"{config.n_heads} heads of {config.head_dim}"
    for name, y, is_gated in (("local", 0.9, False), ("global", 2.45, True)):
        drawing.note(f"{name} layer", (0.05, y - 0.78))
        x = drawing.tensor("x", (0.35, y))
        before, at = x, 1.25
        for step, detail in (("attention", heads), ("feed-forward", f"{config.ffn_dim:,} wide")):
            before, at = _half(drawing, before, at, step=step, detail=detail, is_gated=is_gated)
        drawing.arrow(before, drawing.tensor("out", (8.35, y)))
    return drawing.figure(
        "Both layers add twice to what came in. In the global layer each addition is first "
        "multiplied by tanh(gate), which is 0 at the start: then out equals x.")


def _half(
    drawing: Drawing, x: Node, at: float, *, step: str, detail: str, is_gated: bool
) -> tuple[Node, float]:
    """Adds norm, step, gate and sum to the right of `x`; returns the sum and the next place."""
    y = x.y
    norm = drawing.step("norm", (at, y))
    does = drawing.step(step, (at + 1.12, y), detail=detail, does="weights")
    chain = [x, norm, does]
    if is_gated:
        gate = drawing.sign("×", (at + 2.1, y))
        source = drawing.step("tanh(gate)", (at + 2.1, y + 0.75), does="focus")
        drawing.arrow(source, gate)
        chain.append(gate)
    total = drawing.sign("+", (at + 2.7, y))
    _chain(drawing, *chain, total)
    middle = (x.right[0] + norm.left[0]) / 2
    drawing.arrow((middle, y), (middle, y - 0.55), (total.x, y - 0.55), total)
    return total, at + 3.65


def features(config: VisionConfig) -> Figure:
    """Draws the order of one token's features: the last state, then the others, interleaved.

    Only the first three channels of each state are drawn.

    Example: `encoder.features(released)`
    """
    W, kept = config.dim, config.intermediate_layers
    names = ["last", *map(str, kept)]
    tints = [TINTS[i % len(TINTS)] for i in range(len(names))]
    n = min(_N_CHANNELS, W)
    drawing = Drawing("One token's features: the last state, then channel by channel")
    drawing.note("state", (0.05, 0.18))
    left = 1.15
    for row, (name, tint) in enumerate(zip(names, tints, strict=True)):
        y = 0.5 + 0.34 * row
        drawing.note("the last state" if not row else f"into layer {name}", (0.05, y))
        for w in range(n):
            drawing.cell(f"{w}", (left + 0.45 + 0.38 * w, y), color=tint, width=0.34)
        if n < W:
            drawing.note("…", (left + 0.3 + 0.38 * n, y))
    drawing.note("channel", (left + 0.45 - 0.1, 0.18))
    y = 0.5 + 0.34 * len(names) + 0.75
    x = 0.3
    for w in range(n):
        _feature(drawing, f"{w}", x, y, tint=tints[0], number=w)
        x += 0.36
    drawing.note(f"… {W:,} channels", (x - 0.1, y))
    x += 1.55
    for w in range(2):
        for row in range(1, len(names)):
            _feature(drawing, f"{w}", x, y, tint=tints[row], number=W + w * len(kept) + row - 1)
            x += 0.5
    drawing.note("…", (x - 0.15, y))
    drawing.note("the number of the feature:", (0.05, y + 0.34))
    drawing.note("in the result:", (0.05, y - 0.4))
    return drawing.figure(
        f"After the {W:,} features of the last state come channel 0 of all {len(kept)} earlier "
        "states, then channel 1 of all of them, and so on.")


def _feature(
    drawing: Drawing, text: str, x: float, y: float, *, tint: str, number: int
) -> None:
    drawing.cell(text, (x, y), color=tint, width=0.32)
    drawing.note(f"{number}", (x, y + 0.6), align="center")

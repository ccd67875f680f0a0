"""Drawings of RMSNorm: its steps with their shapes, and where the norms are in a model.

Notebook 11.
"""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Llama


def rms_norm(norm: RMSNorm, *, n_tokens: int = 6) -> Figure:
    """Draws RMSNorm: the square, mean and root of x, x / rms, and the weight.

    Example: `norms.rms_norm(model.norm)`
    """
    D = norm.weight.numel()
    with torch.no_grad():
        out_shape = norm(torch.ones(1, n_tokens, D)).shape
    stream = dict(zip("BTD", out_shape, strict=True))
    drawing = Drawing("RMSNorm: divide each token by its own size")
    x = drawing.tensor("x", (0.65, 0.6), shape=stream)
    square = drawing.step("square", (1.6, 2.0), detail="each number")
    mean = drawing.step("mean", (2.85, 2.0), detail="over D")
    size = drawing.tensor("mean square", (4.25, 2.0), shape={"B": 1, "T": n_tokens})
    root = drawing.step("1 / √(… + eps)", (5.95, 2.0), detail=f"eps = {norm.eps:g}")
    drawing.arrow(x, (0.65, square.y), square)
    drawing.arrow(square, mean)
    drawing.arrow(mean, size)
    drawing.arrow(size, root)
    divide = drawing.sign("×", (5.95, 0.6))
    drawing.arrow(x, divide)
    drawing.arrow(root, divide, label="one number per token", is_left=True)
    weigh = drawing.sign("×", (7.35, 0.6))
    drawing.arrow(divide, weigh, label="size 1")
    weight = drawing.step("weight", (7.35, 2.0), does="weights", detail=f"D = {D:,}")
    drawing.arrow(weight, weigh)
    out = drawing.tensor("out", (8.3, 0.6), shape=stream)
    drawing.arrow(weigh, out)
    return drawing.figure(
        f"All {D:,} numbers of a token are divided by one number, the token's own size. Then the "
        "learned weight gives each channel its size.")


def in_model(model: Llama, ids: Sequence[int]) -> Figure:
    """Draws where the norms are, with the sizes of their inputs and outputs in a real run.

    The drawing shows the first and the last block, and the norm before the head. A size is the root
    of the mean square over all tokens and channels. Raises ValueError for a model with one layer.

    Example: `norms.in_model(model, tokenizer.encode("Once upon a time", bos=True))`
    """
    if model.config.n_layers < 2:
        raise ValueError("this drawing shows a first and a last block, so the model must have at "
                         f"least 2 layers; got {model.config.n_layers}")
    sizes = measured(model, ids)
    drawing = Drawing(f"{len(sizes)} norms: two in each of {model.config.n_layers} blocks, and "
                      "one at the end")
    road = 2.75
    last = model.config.n_layers - 1
    embed = drawing.step("embed", (0.55, road), does="weights")
    before: object = embed
    for left, block in ((1.15, 0), (4.75, last)):
        nodes = []
        for x, name, part in ((left + 0.55, "attention_norm", "Attention"),
                              (left + 1.9, "ffn_norm", "FeedForward")):
            key = f"layers.{block}.{name}"
            norm = drawing.step("RMSNorm", (x, 1.55), does="focus",
                                detail=f"{sizes[key][0]:.2f} → {sizes[key][1]:.2f}")
            reader = drawing.step(part, (x, 0.65), does="weights")
            plus = drawing.sign("+", (x + 0.7, road))
            drawing.arrow(before, plus, color=ORANGE)
            drawing.arrow((x, road), norm)
            drawing.arrow(norm, reader)
            drawing.arrow(reader, (plus.x, reader.y), plus)
            nodes += [norm, reader, plus]
            before = plus
        drawing.frame(f"block {block + 1}", nodes)
        if block == 0:
            dots = drawing.cell("…", (4.36, road), width=0.3)
            drawing.arrow(before, dots, color=ORANGE)
            before = dots
    norm = drawing.step("RMSNorm", (8.3, road), does="focus",
                        detail=f"{sizes['norm'][0]:.2f} → {sizes['norm'][1]:.2f}")
    drawing.arrow(before, norm, color=ORANGE)
    head = drawing.step("output", (8.3, 1.55), does="weights")
    drawing.arrow(norm, head)
    drawing.note("input size → output size, measured in a run of this model", (1.15, road + 0.45))
    first = sizes["layers.0.attention_norm"][0]
    return drawing.figure(
        f"The size of the orange stream changes from {first:.2f} to {sizes['norm'][0]:.2f}; no "
        "norm divides it. Each part reads a copy that a norm has divided by its size and weighted.")


def measured(model: Llama, ids: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Returns the sizes of each norm's input and output, by the norm's name."""
    found: dict[str, tuple[float, float]] = {}
    names = {module: name for name, module in model.named_modules() if isinstance(module, RMSNorm)}

    def note(module: torch.nn.Module, args: tuple, out: torch.Tensor) -> None:
        found[names[module]] = tuple(float(x.float().square().mean().sqrt())
                                     for x in (args[0], out))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            model(torch.tensor([list(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    return found

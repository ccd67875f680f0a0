"""Shows where the tokens of an image look: the attention of any token, layer and head.

Used by the chapter on the vision encoder (21).
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.look import BLUE, RED
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore, slider
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.vision.encoder import TileTokens, VisionAttention, VisionEncoder

CLASS_TOKEN = 0


@torch.no_grad()
def image_attention_weights(
    encoder: VisionEncoder, pixels: Float[Tensor, "I J C px px"], aspect_ids: Int[Tensor, "I"]
) -> Float[Tensor, "I L H T T"]:
    """Returns the weight of each key for each query, in every head of every layer.

    Local layers come first, and T includes padding. The weights are computed again by the plain
    formula, because fused attention does not keep them. Errors as in the encoder's `forward`.
    """
    weights: list[Tensor] = []

    def see(module: VisionAttention, arguments: tuple[Tensor, GivenMask | TileTokens]) -> None:
        x, visible = arguments
        q, k = (w(x).unflatten(-1, module.heads) for w in (module.wq, module.wk))
        score = torch.einsum("ithk,ishk->ihts", q, k) / math.sqrt(module.heads[1])
        weights.append(score.masked_fill(~visible.mask, -math.inf).softmax(-1))

    with ExitStack() as hooks:
        for block in (*encoder.local_layers, *encoder.global_layers):
            hooks.callback(block.attention.register_forward_pre_hook(see).remove)
        encoder(pixels, aspect_ids)
    return torch.stack(weights, dim=1)


def image_attention(
    encoder: VisionEncoder, pixels: Float[Tensor, "I J C px px"], aspect_ids: Int[Tensor, "I"], *,
    names: Sequence[str],
) -> Explorer:
    """Returns a widget that shows where a token of an image looks, in any layer and head.

    `names`: of the images, all different. Hovering describes a patch. Raises ValueError for an
    encoder of several tiles, and unless there is a name for each image.
    """
    config = encoder.config
    if config.max_tiles > 1:
        raise ValueError("this widget shows the patches of one tile, so the encoder must have "
                         f"max_tiles=1; got {config.max_tiles}")
    if len(set(names)) != len(pixels) or len(names) != len(pixels):
        raise ValueError(f"each of the {len(pixels)} images needs a name of its own; got "
                         f"{list(names)}")
    layers = [*(f"local {i}" for i in range(config.n_local_layers)),
              *(f"global {i}" for i in range(config.n_global_layers))]

    def draw(image: str, layer: str, head: int, token: int) -> Figure:
        chosen = list(names).index(image)
        weights_1LHTT = image_attention_weights(encoder, pixels[chosen:chosen + 1],
                                                aspect_ids[chosen:chosen + 1])
        return image_attention_frame(
            pixels[chosen, 0], weights_1LHTT[0, layers.index(layer), head, token], token=token,
            n_patches=config.n_patches, title=f"{layer}, head {head}")

    return explore(draw, title="Where does this token look?", has_hover=True, controls={
        "image": list(names), "layer": layers, "head": list(range(config.n_heads)),
        "token": slider(config.n_patches)},
        labels={"token": "looking token (0: class token)"}, start={"layer": layers[-1]})


def image_attention_frame(
    image: Float[Tensor, "C px px"], weights: Float[Tensor, "T"], *, token: int, n_patches: int,
    title: str,
) -> Figure:
    """Draws the image, the weights of its patches, and what is left for tokens that are no patches.

    The first weight belongs to the class token, those after the patches to padding.
    """
    side = math.isqrt(n_patches)
    of_patches = weights[1:1 + n_patches].view(side, side)
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9.2, 3.5), width_ratios=(1, 1.15, 0.7))
    patch_px = image.shape[-1] // side
    rows = of_patches.tolist()

    def tell(row: int, column: int) -> str:
        return (f"patch {1 + row * side + column} (row {row}, column {column}): "
                f"weight {rows[row][column]:.1%}")

    shown = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    left.imshow(shown.permute(1, 2, 0).numpy())
    left.format_coord = lambda x, y: tell(int(y) // patch_px, int(x) // patch_px)
    for edge in range(1, side):
        for line in (left.axhline, left.axvline):
            line(edge * patch_px - 0.5, color="0.5", linewidth=0.6)
    left.set_title("the image and its patches")
    drawn = middle.imshow(of_patches.numpy(), vmin=0)
    middle.format_coord = lambda x, y: tell(round(y), round(x))
    fig.colorbar(drawn, ax=middle, shrink=0.8)
    middle.set_title(title)
    for ax, size in ((left, patch_px), (middle, 1)):
        ax.set(xticks=[], yticks=[])
        if token != CLASS_TOKEN and token <= n_patches:
            _outline(ax, (token - 1) // side, (token - 1) % side, size=size)
    others = {"patches": of_patches.sum().item(), "class token": weights[CLASS_TOKEN].item(),
              "padding": weights[1 + n_patches:].sum().item()}
    bars = right.barh(list(others), others.values(), color=BLUE)
    right.bar_label(bars, [f"{value:.0%}" for value in others.values()], padding=3)
    right.set(xlim=(0, 1.35), xticks=[0, 1], xlabel="weight (sum: 1)")
    right.invert_yaxis()
    best = int(of_patches.argmax())
    fig.set_label(
        f"{title.capitalize()}: {'the class token' if token == CLASS_TOKEN else f'patch {token}'} "
        f"looks most at patch {1 + best} (row {best // side}, column {best % side}), "
        f"{of_patches.max():.0%}. All patches together get {others['patches']:.0%}, the class "
        f"token {others['class token']:.0%} and the padding {others['padding']:.0%}.")
    return fig


def _outline(ax: Axes, row: int, column: int, *, size: int) -> None:
    ax.add_patch(plt.Rectangle((column * size - 0.5, row * size - 0.5), size, size, fill=False,
                               edgecolor=RED, linewidth=2.5))

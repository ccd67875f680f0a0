"""Shows which token looks at which: the attention weights of one head, or of all heads of a layer.

Used by the chapter on attention (13).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT
from torch import Tensor

from llama_from_scratch.lessons.figures.look import (
    BLACK,
    BLUE,
    CLEAR,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    hatch_hidden,
)
from llama_from_scratch.lessons.views.inspect_model import trace
from llama_from_scratch.lessons.views.text import MAX_NAMED_TOKENS, encode, label_axis, names_of
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore, slider
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

_GROUP_COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK, "#999999")


def attention(
    model: Llama, tokenizer: Tokenizer, *, text: str, layer: int = 0, head: int | str = "all"
) -> Explorer:
    """Returns a widget that shows which token looks at which, in each layer and head.

    The words describe the row of `token`; hovering describes any other cell.
    """
    config = model.config

    def draw(text: str, layer: int, head: int | str, token: int) -> Figure:
        ids = encode(model, tokenizer, text=text)
        weights_HTS = trace(model, torch.tensor(ids)).weights[layer]
        names = names_of(tokenizer, ids)
        if head == "all":
            return attention_heads_frame(weights_HTS, names, n_kv_heads=config.n_kv_heads,
                                         token=token, layer=layer)
        title = _head_title(layer, head, weights_HTS, config.n_kv_heads)
        return attention_frame(weights_HTS[head], names, token=token, title=title,
                               color=_group_color(head, weights_HTS, config.n_kv_heads))

    n_tokens = len(encode(model, tokenizer, text=text))
    controls = {"text": text, "layer": slider(config.n_layers - 1),
                "head": ["all", *range(config.n_heads)],
                "token": slider(max(n_tokens - 1, 1), n_tokens - 1)}
    return explore(draw, title="Who looks at whom?", controls=controls,
                   labels={"head": "query head", "token": "query token (position)"},
                   start={"layer": layer, "head": head}, has_hover=True,
                   limits=lambda text, **_: {"token": len(encode(model, tokenizer, text=text)) - 1})


def _group(head: int, weights: Tensor, n_kv_heads: int) -> int:
    return head // (len(weights) // n_kv_heads)


def _group_color(head: int, weights: Tensor, n_kv_heads: int) -> str:
    return _GROUP_COLORS[_group(head, weights, n_kv_heads) % len(_GROUP_COLORS)]


def _head_title(layer: int, head: int, weights: Tensor, n_kv_heads: int) -> str:
    return f"layer {layer}, head {head}, key/value {_group(head, weights, n_kv_heads)}"


def attention_frame(
    weights: Float[Tensor, "T S"], names: Sequence[str], *, token: int, title: str,
    color: str = BLUE
) -> Figure:
    """Draws one head: the triangle of weights, and bars for what the query `token` looks at most.
    """
    n = len(names)
    height = 2.1 + 0.165 * n if n <= MAX_NAMED_TOKENS else 4.8
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, max(height, 3.6)), width_ratios=(1.7, 1))
    _triangle(left, weights, names, token=token, title=title)
    if n <= MAX_NAMED_TOKENS:
        row = plt.Rectangle((-0.5, token - 0.5), token + 1, 1, fill=False, edgecolor=RED,
                            linewidth=2, clip_on=False)
        left.add_patch(row)
    left.set(title=title, xlabel="looked at (key); bright is more, hatched is hidden",
             ylabel="looking (query)")
    label_axis(left.xaxis, names, rotation=90)
    label_axis(left.yaxis, names)
    top = weights[token].topk(min(8, token + 1))
    places = range(len(top.values))
    right.barh(places, top.values.tolist(), color=color)
    right.set_yticks(places, [f"{names[s]}  {s}" for s in top.indices.tolist()])
    for label in right.get_yticklabels():
        label.set_parse_math(False)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="weight (a row sums to 1)")
    right.set_title(f"{token}: {names[token]} looks at", parse_math=False)
    told = ", ".join(f"“{names[s]}” ({s}) {w:.0%}"
                     for w, s in zip(top.values.tolist(), top.indices.tolist(), strict=True))
    fig.set_label(f"{title}: token {token}, “{names[token]}”, looks at {told}.")
    return fig


def attention_heads_frame(
    weights: Float[Tensor, "H T S"], names: Sequence[str], *, n_kv_heads: int, token: int,
    layer: int
) -> Figure:
    """Draws all heads of one layer at a small size.

    Heads that share a key/value head have frames of the same color.
    """
    n_heads = len(weights)
    columns = min(n_heads, 4 if n_heads <= 16 else 8)
    rows = -(-n_heads // columns)
    cell = 9.5 / columns
    fig, axes = plt.subplots(rows, columns, figsize=(9.5, 0.75 + rows * (cell + 0.15)),
                             squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[n_heads:]:
        ax.axis("off")
    told = []
    for head, (ax, weights_TS) in enumerate(zip(axes.flat[:n_heads], weights, strict=True)):
        _triangle(ax, weights_TS, names, token=token,
                  title=_head_title(layer, head, weights, n_kv_heads))
        color, group = _group_color(head, weights, n_kv_heads), _group(head, weights, n_kv_heads)
        ax.spines[:].set(visible=True, color=color, linewidth=4)
        ax.set_title(f"{head}: kv {group}" if columns > 4 else f"head {head}, key/value {group}",
                     fontsize=11)
        best = int(weights_TS[token].argmax())
        told.append(f"head {head} at “{names[best]}” ({best}) {weights_TS[token, best]:.0%}")
    axes[0, 0].locator_params(integer=True)
    fig.supxlabel("looked at (key position); bright is more, hatched is hidden", fontsize=12)
    fig.supylabel("looking (query)", fontsize=12)
    sharing = (f"{n_heads // n_kv_heads} heads share a key/value head "
               "(same color)" if n_kv_heads < n_heads else "none shared")
    fig.suptitle(f"Layer {layer}: {n_heads} heads, {sharing}", fontsize=13, fontweight="bold")
    fig.set_label(f"Layer {layer}: token {token}, “{names[token]}”, looks most: {'; '.join(told)}.")
    return fig


def _triangle(ax: Axes, weights: Tensor, names: Sequence[str], *, token: int, title: str) -> None:
    n, rows = len(weights), weights.tolist()

    def tell(x: float | int, y: float | int) -> str:
        s, t = round(x), round(y)
        if s > t:
            return (f"{title}: hidden. Query “{names[t]}” ({t}) cannot see later tokens "
                    "(causal mask)")
        return (f"{title}: query “{names[t]}” ({t}) looks at key "
                f"“{names[s]}” ({s}) with weight {rows[t][s]:.1%}")

    ax.format_coord = tell
    hidden = np.triu(np.ones((n, n), dtype=bool), 1)
    colors = plt.get_cmap("viridis").with_extremes(bad=CLEAR)
    # The square root makes weights of a hundredth visible; all heads use the scale from 0 to 1.
    ax.imshow(np.ma.array(weights.numpy(), mask=hidden), norm=PowerNorm(0.5, 0, 1), aspect="auto",
              cmap=colors)
    hatch_hidden(ax)
    ax.plot(token + 0.6, token, marker=CARETLEFT, color=RED, markersize=10, clip_on=False)
    ax.set_xlim(-0.5, n - 0.5)

"""Draws the layers of Llama 4: which tokens each of them sees, and how queries grow.

Notebook 24.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.config import LayerSpec, TemperatureTuning
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import BLUE, CLEAR, ORANGE, TINTS, hatch_hidden
from llama_from_scratch.model.mask import Visible, plain_tokens
from llama_from_scratch.model.temperature import query_scales

_CELL, _HEIGHT, _PITCH = 0.34, 0.3, 0.42
_MOST_TOKENS = 16


def seen_from(layers: Sequence[LayerSpec], position: int) -> Bool[Tensor, "L T"]:
    """Returns which tokens the token at `position` sees in each layer, itself included."""
    tokens = plain_tokens(position + 1)
    rows = []
    for spec in layers:
        mask = Visible(tokens=tokens, n_queries=1, chunk_size=spec.chunk_size).mask
        rows.append(torch.ones(position + 1, dtype=torch.bool) if mask is None else mask[0, 0, 0])
    return torch.stack(rows)


def sight(layers: Sequence[LayerSpec], *, position: int) -> Figure:
    """Draws which tokens the one at `position` sees in each layer, the first layer at the bottom.

    Raises ValueError for more than 16 tokens.

    Example: `llama4.sight(scout.layers[:4], position=13)`, with chunks of a few tokens
    """
    if position >= _MOST_TOKENS:
        raise ValueError(f"at most {_MOST_TOKENS} tokens are drawn; got position {position}")
    sees_LT = seen_from(layers, position)
    drawing = Drawing(f"What token {position} sees in each layer")
    left = 3.1
    for i, spec in enumerate(layers):
        y = _PITCH * (len(layers) - 1 - i)
        kind = "RoPE" if spec.has_rope else "no RoPE"
        reach = "everything" if spec.chunk_size is None else f"chunks of {spec.chunk_size}"
        drawing.note(f"layer {i}: {kind}, {reach}", (left - 0.4, y), align="right")
        for t in range(position + 1):
            sees, x = bool(sees_LT[i, t]), left + _CELL * t
            drawing.cell("", (x, y), width=_CELL, height=_HEIGHT,
                         color="white" if not sees else TINTS[1 if t == position else 0])
    bottom = _PITCH * len(layers)
    for t in range(position + 1):
        drawing.note(f"{t}", (left + _CELL * t, bottom - 0.06), align="center")
    drawing.note("token", (left - 0.4, bottom - 0.06), align="right")
    drawing.key({"the token itself": TINTS[1], "is seen": TINTS[0], "is not seen": "white"},
                (0.4, bottom + 0.36))
    counts = [f"{int(row.sum())} in layer {i}" for i, row in enumerate(sees_LT)]
    return drawing.figure(f"Of {position + 1} tokens, token {position} sees "
                          f"{', '.join(counts)}.")


def masks(*, n_tokens: int, chunk_size: int, position: int) -> Figure:
    """Draws the masks of a layer with chunks and of one without; a frame marks a token's row.

    Raises ValueError if the token is outside the text.

    Example: `llama4.masks(n_tokens=24, chunk_size=8, position=17)`
    """
    if not 0 <= position < n_tokens:
        raise ValueError(f"the token must be one of the {n_tokens} tokens of the text, from 0 to "
                         f"{n_tokens - 1}; got {position}")
    tokens = plain_tokens(n_tokens)
    kinds = {f"RoPE, chunks of {chunk_size}": chunk_size, "no RoPE, everything": None}
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.1), sharey=True)
    counts = []
    for ax, (name, size) in zip(axes, kinds.items(), strict=True):
        visible = Visible(tokens=tokens, n_queries=n_tokens, chunk_size=size)
        mask_TS = visible.mask
        mask_TS = (torch.ones(n_tokens, n_tokens).tril().bool() if mask_TS is None
                   else mask_TS[0, 0])
        counts.append(int(mask_TS[position].sum()))
        shown = torch.where(mask_TS, 1.0, torch.nan)
        ax.imshow(shown, vmin=0, vmax=1, cmap=plt.get_cmap("Blues").with_extremes(bad=CLEAR))
        hatch_hidden(ax)
        ax.add_patch(plt.Rectangle((-0.5, position - 0.5), n_tokens, 1, fill=False,
                                   edgecolor=ORANGE, linewidth=2.2))
        ax.set(title=f"{name}: sees {counts[-1]}", xlabel="key s")
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("query t")
    fig.set_label(f"The framed row is token {position}. It sees {_tokens(counts[0])} in a layer "
                  f"with chunks of {chunk_size}, and {counts[1]} in one without.")
    return fig


def _tokens(n: int) -> str:
    return "only itself" if n == 1 else f"{n} tokens"


def query_growth(tuning: TemperatureTuning, *, contexts: Mapping[str, int]) -> Figure:
    """Draws the factor of temperature tuning by position, up to the longest of some contexts.

    Example: `llama4.query_growth(tuning, contexts={"Maverick": 1_048_576})`
    """
    longest = max(contexts.values())
    at = torch.unique(torch.logspace(2, 12, 400, base=10, dtype=torch.float64).clamp(max=longest)
                      .round().long() - 1)
    fig, ax = plt.subplots(figsize=(8, 3.1))
    ax.plot(at + 1, query_scales(at[None], tuning)[0], color=BLUE)
    for name, n_tokens in contexts.items():
        last = query_scales(torch.tensor([[n_tokens - 1]]), tuning).item()
        ax.plot([n_tokens], [last], "o", color=ORANGE)
        ax.annotate(f"{name}: {last:.2f}", (n_tokens, last), xytext=(-8, 6), ha="right",
                    textcoords="offset points", fontsize=11)
    ax.set(xscale="log", xlabel="position (tokens)", ylabel="factor of the query",
           ylim=(0.95, None), title="Queries grow slowly with the position")
    fig.set_label(f"Nothing changes before position {tuning.floor - 1:,}. At the end of "
                  f"{longest:,} tokens, queries are {last_words(tuning, longest)} times as long.")
    return fig


def last_words(tuning: TemperatureTuning, n_tokens: int) -> str:
    """Returns the factor of the last of `n_tokens` queries, with two decimals."""
    return f"{query_scales(torch.tensor([[n_tokens - 1]]), tuning).item():.2f}"

"""Widgets that show what a model of a given config would cost.

They show parameters and FLOPs as areas, and how the KV cache grows.

Both take configs by name. The default is every published Llama; add your own with `{"mine": config,
**published()}`.

Used by the chapters on attention (13), the transformer (15) and generation (16). Source of the
layout of the areas: Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.family import FAMILY
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, ORANGE, TINTS
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model import costs

_TINT = {"embedding": TINTS[2], "attention": TINTS[0], "feed-forward": TINTS[1], "norms": "0.8",
         "output": TINTS[4]}


def published() -> dict[str, LlamaConfig]:
    """Returns the config of every published Llama by its name, newest last."""
    return {name: release.config for name, release in FAMILY.items()}


def quantity(value: float | int, unit: str = "") -> str:
    """Returns a value with three digits, a prefix and its unit: 8.03e9, "B" -> "8.03 GB".

    Without a unit, the prefixes are k, M, B (billion) and T.
    """
    prefixes = ("", "k", "M", "G", "T", "P") if unit else ("", "k", "M", "B", "T")
    step = 0
    while abs(value) >= 999.5 and step < len(prefixes) - 1:
        value, step = value / 1000, step + 1
    digits = f"{value:.3g}" if step else f"{value:,.4g}"
    return f"{digits} {prefixes[step]}{unit}".rstrip()


# --- parameters and FLOPs -------------------------------------------------------------------------


def areas(models: Mapping[str, LlamaConfig] | None = None, *, start: str | None = None) -> Explorer:
    """Returns a widget that shows a model's parameters, or the work of one decoded token, as areas.

    `start`: the model shown first.
    """
    models = dict(models or published())

    def draw(model: str, show: str, context: int) -> Figure:
        config = models[model]
        if show == "parameters":
            return areas_frame(params_by_place(config),
                               title=f"{model}: {quantity(config.n_params)} parameters")
        parts = flops_by_place(config, context=context)
        work = quantity(config.flops_per_token(context), "FLOP")
        return areas_frame(parts, unit="FLOP",
                           title=f"{model}: {work} per token at context {context:,}")

    return explore(draw, title="Where the parameters are, where the work is", controls={
        "model": list(models), "show": ["parameters", "FLOPs per token"],
        "context": {f"{2**k:,}": 2**k for k in range(7, 18)}},
                   labels={"context": "context (tokens)"},
                   start={"context": 8192} | ({"model": start} if start else {}))


Parts = Mapping[tuple[str, str], int]
"""(place, matrix) -> amount, summed over layers; `LlamaConfig.param_counts` has the same places."""


def params_by_place(config: LlamaConfig) -> Parts:
    """Returns the parameters of each kind of matrix in all layers; they sum to `config.n_params`.
    """
    amounts = costs.params_by_matrix(config)
    counts = config.param_counts
    return {
        ("embedding", "embedding = output" if config.is_tied else "embedding"): counts["embedding"],
        ("output", "output"): counts["output"],
        **{place: n for place, n in amounts.items() if place[0] in ("attention", "feed-forward")},
        ("norms", "norms"): counts["norms"],
    }


def flops_by_place(config: LlamaConfig, *, context: int) -> Parts:
    """Returns the FLOPs of one decoded token with `context` tokens visible, by place.

    They sum to `config.flops_per_token(context)`.

    The embedding is a look-up and costs nothing. Each weight that is multiplied costs two FLOPs,
    and so does each multiplication of the scores and of the weighted sum.
    """
    work = dict(costs.flops_by_matrix(config))
    output = 2 * config.vocab_size * config.dim
    looking = config.flops_per_token(context) - config.flops_per_token(0)
    return work | {("output", "output"): output, ("attention", "scores q·k"): looking // 2,
                   ("attention", "weights·v"): looking // 2}


def areas_frame(parts: Parts, *, title: str, unit: str = "") -> Figure:
    """Draws a rectangle for each matrix; its area is its share, and its color shows its place."""
    width, height = 10.0, 4.2
    fig, ax = plt.subplots(figsize=(9.5, 4.6))
    groups = {}
    for (place, _), amount in parts.items():
        groups[place] = groups.get(place, 0) + amount
    groups = dict(sorted(((place, amount) for place, amount in groups.items() if amount),
                         key=lambda item: -item[1]))
    total, hidden = sum(groups.values()), []
    tiles = squarify(list(groups.values()), width=width, height=height)
    for place, (x, y, w, h) in zip(groups, tiles, strict=True):
        leaves = sorted(((name, n) for (of, name), n in parts.items() if of == place and n),
                        key=lambda item: -item[1])
        inside = squarify([n for _, n in leaves], width=w, height=h)
        for (name, n), (dx, dy, leaf_w, leaf_h) in zip(leaves, inside, strict=True):
            corner = (x + dx, y + dy)
            ax.add_patch(plt.Rectangle(corner, leaf_w, leaf_h, facecolor=_TINT[place],
                                       edgecolor="white", linewidth=2))
            whole = f"{name}\n{quantity(n, unit)}\n{n / total:.0%}"
            label = next((text for text in (whole, name) if _fits(text, leaf_w, leaf_h)), "")
            ax.text(x + dx + leaf_w / 2, y + dy + leaf_h / 2, label, ha="center", va="center",
                    fontsize=11)
            if label != whole:
                hidden.append(f"{name} {quantity(n, unit)}")
        ax.add_patch(plt.Rectangle((x, y), w, h, fill=False, edgecolor=BLACK, linewidth=1.2))
    ax.set(title=title, xlim=(0, width), ylim=(height, 0))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel(f"in the small areas: {', '.join(hidden)}" if hidden else "", loc="left",
                  fontsize=11)
    ax.spines[:].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=_TINT[place]) for place in groups]
    fig.legend(handles, [f"{place} {amount / total:.1%}" for place, amount in groups.items()],
               loc="outside lower center",
               ncols=len(groups))
    told = ", ".join(f"{place} {quantity(amount, unit)} "
                     f"({amount / total:.1%})" for place, amount in groups.items())
    fig.set_label(f"{title}: {told}.")
    return fig


def _fits(label: str, width: float, height: float) -> bool:
    lines = label.split("\n")
    # inches at 11 points
    return width > 0.09 * max(map(len, lines)) + 0.1 and height > 0.2 * len(lines) + 0.05


def squarify(
    amounts: Sequence[float | int], *, width: float | int, height: float | int
) -> list[tuple[float, float, float, float]]:
    """Returns (x, y, width, height) of a rectangle for each amount; together they fill the whole.

    The rectangles are as square as their order allows.

    Give the largest amount first. Rectangles are placed in rows along the shorter side of the free
    space. A row gets one more rectangle as long as this makes its worst rectangle squarer.
    """
    width, height = float(width), float(height)
    scale = width * height / sum(amounts)
    left, tiles, x, y = [amount * scale for amount in amounts], [], 0.0, 0.0
    while left:
        side, n = min(width, height), 1
        while n < len(left) and _worst(left[: n + 1], side) <= _worst(left[:n], side):
            n += 1
        row, left = left[:n], left[n:]
        depth, along = sum(row) / side, 0.0
        for area in row:
            length = area / depth
            tiles.append((x, y + along, depth, length) if width >= height
                         else (x + along, y, length, depth))
            along += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth
    return tiles


def _worst(row: Sequence[float], side: float) -> float:
    depth = sum(row) / side
    return max(max(depth**2 / area, area / depth**2) for area in row)


# --- KV cache -------------------------------------------------------------------------------------


def kv_cache(
    models: Mapping[str, LlamaConfig] | None = None, *, start: str | None = None
) -> Explorer:
    """Returns a widget: how the KV cache grows, and what sharing key/value heads saves.

    `start`: the model shown first.
    """
    models = dict(models or published())
    longest = max(config.max_seq_len for config in models.values())

    def draw(
        model: str, heads_per_group: str, context: int, batch: int, bytes_per_value: int
    ) -> Figure:
        config = models[model]
        n_heads = config.n_heads
        named = {"as released": n_heads // config.n_kv_heads, "all (MQA)": n_heads}
        shared = named.get(heads_per_group)
        shared = shared or int(heads_per_group.split()[0])
        if n_heads % shared:
            raise ValueError(f"groups of query heads must have equal sizes, but {model} has "
                             f"{n_heads} heads, which cannot be divided by {shared}. Choose "
                             "another number")
        return kv_cache_frame(config, name=model, n_kv_heads=n_heads // shared, context=context,
                              batch=batch,
                              bytes_per_value=bytes_per_value)

    contexts = {f"{2**k:,}": 2**k for k in range(7, longest.bit_length())}
    return explore(draw, title="The KV cache as it grows", controls={
        "model": list(models),
        "heads_per_group": ["as released", "1 (MHA)", "2", "4", "8", "16", "all (MQA)"],
        "context": contexts, "batch": {f"{2**k}": 2**k for k in range(9)},
        "bytes_per_value": [2, 1, 4]},
        labels={"heads_per_group": "query heads per key/value head", "context": "context (tokens)",
                "batch": "batch (sequences)"},
        start={"context": list(contexts.values())[len(contexts) * 2 // 3]}
                   | ({"model": start} if start else {}))


def kv_bytes(
    config: LlamaConfig, *, n_kv_heads: int, context: int, batch: int, bytes_per_value: int
) -> int:
    """Returns the bytes of a key and a value in each layer, for all heads, tokens and sequences."""
    return 2 * config.n_layers * n_kv_heads * config.head_dim * context * batch * bytes_per_value


def kv_cache_frame(
    config: LlamaConfig, *, name: str, n_kv_heads: int, context: int, batch: int,
    bytes_per_value: int
) -> Figure:
    """Draws the cache against the context, with this sharing and without, next to the weights.

    Cache and weights have the same unit.
    """
    cache = lambda heads, tokens: kv_bytes(
        config, n_kv_heads=heads, context=tokens, batch=batch, bytes_per_value=bytes_per_value)
    here, unshared, weights = (cache(n_kv_heads, context), cache(config.n_heads, context),
                               config.n_params * bytes_per_value)
    power = min(int(math.log10(max(here, weights)) // 3), 4)
    unit, scale = ("B", "kB", "MB", "GB", "TB")[power], 1000.0**power
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), width_ratios=(1.4, 1))
    tokens = [0, context]
    for heads, color, line, note in ((config.n_heads, "0.6", ":", " (none shared)"),
                                     (n_kv_heads, BLUE, "-", "")):
        left.plot(tokens, [cache(heads, t) / scale for t in tokens], color=color, linestyle=line,
                  label=f"G = {heads}{note}")
    left.axhline(weights / scale, color=ORANGE, linestyle="--", label="weights")
    left.set(xlabel="context (tokens)", ylabel=f"memory ({unit})", xlim=(0, context),
             ylim=(0, None),
             title=f"batch {batch}, {8 * bytes_per_value} bits per value")
    left.xaxis.set_major_locator(plt.MaxNLocator(4))
    left.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
    left.legend()
    bars = right.bar(["weights", "KV cache", "unshared"],
                     [weights / scale, here / scale, unshared / scale],
                     color=[ORANGE, BLUE, "0.75"])
    right.bar_label(bars, [quantity(value, "B") for value in (weights, here, unshared)],
                    fontsize=11, padding=2)
    right.set(ylabel=f"memory ({unit})", title=f"at {context:,} tokens")
    right.margins(y=0.12)
    per_token = cache(n_kv_heads, 1) // batch
    fig.suptitle(f"{name}: {quantity(per_token, 'B')} per token and sequence", fontsize=13,
                 fontweight="bold")
    beyond = (f" The model was made for {config.max_seq_len:,} "
              "tokens." if context > config.max_seq_len else "")
    fig.set_label(f"{name}, {batch} × {context:,} tokens, {n_kv_heads} key/value heads: the cache "
                  f"takes {quantity(here, 'B')}, the weights {quantity(weights, 'B')}. Without "
                  f"sharing, the cache would take {quantity(unshared, 'B')}.{beyond}")
    return fig

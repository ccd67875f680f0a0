"""Shows which experts the tokens of a text go to, layer by layer, and what a mixture costs.

Used by the chapter on a mixture of experts (23).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from llama_from_scratch.config import Dense, Experts, LlamaConfig
from llama_from_scratch.lessons.figures.experts import color_of
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, RED, TINTS
from llama_from_scratch.lessons.views.sizes import quantity
from llama_from_scratch.lessons.views.text import (
    BOS,
    MAX_NAMED_TOKENS,
    encode,
    label_axis,
    names_of,
)
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore, slider
from llama_from_scratch.model import costs
from llama_from_scratch.model.moe import Routing, routings_of
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

_PLACES = {"embedding and output": TINTS[4], "attention": TINTS[0],
           "dense and shared": TINTS[1], "routed experts": TINTS[2]}


# --- which token goes where -----------------------------------------------------------------------


def token_experts(
    model: Llama, tokenizer: Tokenizer, *, text: str, layer: int = 0
) -> Explorer:
    """Returns a widget that shows the expert of each token of a text in each layer with experts.

    The bars belong to one token in one layer. `layer`: counts layers with experts.
    """

    def read(text: str) -> list[int]:
        return encode(model, tokenizer, text=text, max_tokens=MAX_NAMED_TOKENS)

    def draw(text: str, layer: int, token: int) -> Figure:
        ids = read(text)
        names = ["<begin>" if name == BOS else name for name in names_of(tokenizer, ids)]
        return token_experts_frame(_routings(model, ids), names, layer=layer, token=token)

    ids = read(text)
    n_layers = len(_routings(model, ids))
    return explore(draw, title="Which expert does each token go to?", has_hover=True,
                   controls={"text": text, "layer": slider(n_layers - 1),
                             "token": slider(max(len(ids) - 1, 1), len(ids) - 1)},
                   labels={"layer": "layer with experts", "token": "token (position)"},
                   start={"layer": layer},
                   limits=lambda text, **_: {"token": len(read(text)) - 1})


@torch.no_grad()
def _routings(model: Llama, ids: Sequence[int]) -> dict[int, Routing]:
    """Returns the routing of each layer with experts, by its number."""
    with routings_of(model) as found:
        model(torch.tensor([ids]))
    return {int(name.split(".")[1]): passes[0] for name, passes in found.items()}


def token_experts_frame(
    routings: Mapping[int, Routing], names: Sequence[str], *, layer: int, token: int
) -> Figure:
    """Draws a row for each layer with experts, and the scores of one token in one of them.

    A score is the sigmoid of the logit, also of experts that are not chosen.

    `routings`: by the number of the layer. `layer`: counts the given layers from 0.
    """
    numbers, shown = [*routings], [*routings.values()]
    experts_LTA = torch.stack([routing.experts for routing in shown])
    colors = np.array([[to_rgb(color_of(int(chosen[0]))) for chosen in row]
                       for row in experts_LTA])
    n_layers, n_tokens, n_active = experts_LTA.shape
    fig, (top, below) = plt.subplots(
        2, 1, figsize=(9.5, 3.5 + 0.34 * n_layers), height_ratios=(0.34 * n_layers, 1.7))
    top.imshow(colors, aspect="auto")
    for row in range(n_layers):
        for t in range(n_tokens):
            words = " ".join(map(str, experts_LTA[row, t].tolist()))
            top.text(t, row, words, ha="center", va="center",
                     fontsize=12 if n_active == 1 else 10)
    top.add_patch(plt.Rectangle((token - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=RED,
                                linewidth=2.4, clip_on=False))
    top.set_yticks(range(n_layers), [f"layer {number}" for number in numbers])
    top.set(title="The expert of each token")
    label_axis(top.xaxis, names, rotation=90)
    top.tick_params(length=0)
    top.spines[:].set_visible(False)
    routing = shown[layer]
    scores_E, chosen = routing.logits[token].sigmoid(), routing.experts[token].tolist()
    n_experts = len(scores_E)
    below.bar(range(n_experts), scores_E.tolist(), color=[color_of(e) for e in range(n_experts)],
              edgecolor=[RED if e in chosen else "0.6" for e in range(n_experts)],
              linewidth=[2.4 if e in chosen else 0.8 for e in range(n_experts)])
    below.set(xlabel="expert", ylabel="score", ylim=(0, 1))
    below.set_title(f"Layer {numbers[layer]}, token {token}: {names[token]}", parse_math=False)
    below.set_xticks(range(n_experts) if n_experts <= 32 else [])
    scores = " and ".join(f"expert {e} with the score {score:.2f}" for e, score in zip(
        chosen, routing.scores[token].tolist(), strict=True))
    tokens_of = {e: [names[t] for t in range(n_tokens) if e in experts_LTA[layer, t].tolist()]
                 for e in range(n_experts)}
    told = "; ".join(f"expert {e}: {' '.join(f'“{name}”' for name in found)}"
                     for e, found in tokens_of.items() if found)
    fig.set_label(f"In layer {numbers[layer]}, token {token}, “{names[token]}”, goes to {scores}. "
                  f"All tokens of this layer: {told}.")

    def words_of(column: float | int, row: float | int) -> str:
        t, line = round(column), round(row)
        return (f"layer {numbers[line]}, {t} “{names[t]}”: expert "
                f"{', '.join(map(str, experts_LTA[line, t].tolist()))}")

    top.format_coord = words_of
    return fig


# --- what it costs --------------------------------------------------------------------------------


def with_experts(
    config: LlamaConfig, *, n_experts: int | None = None, n_active: int | None = None,
    width: int | None = None, shared_width: int | None = None, step: int | None = None,
) -> LlamaConfig:
    """Returns a config with other experts; what is None stays as it is.

    `step`: every `step`-th layer has experts, and the others are dense. A dense config gets 8
    experts of which one is active, and expert and shared expert are each half as wide as its
    feed-forward. Raises ValueError for sizes that do not go together.
    """
    given = {"n_experts": n_experts, "n_active": n_active, "width": width,
             "shared_width": shared_width}
    given = {name: value for name, value in given.items() if value is not None}
    if not given and step is None:
        return config
    half = config.ffn_dim // 2
    base = next((spec.feed_forward for spec in config.layers
                 if isinstance(spec.feed_forward, Experts)),
                Experts(n_experts=8, n_active=1, width=half, shared_width=half))
    experts = dataclasses.replace(base, **given)
    has_some = any(isinstance(spec.feed_forward, Experts) for spec in config.layers)
    layers = []
    for i, spec in enumerate(config.layers):
        is_mixture = ((i + 1) % step == 0 if step is not None
                      else isinstance(spec.feed_forward, Experts) or not has_some)
        layers.append(dataclasses.replace(
            spec, feed_forward=experts if is_mixture else Dense(width=config.ffn_dim)))
    return dataclasses.replace(config, layers=tuple(layers))


def experts_costs(
    models: Mapping[str, LlamaConfig], *, start: str | None = None
) -> Explorer:
    """Returns a widget: all parameters of a mixture, and those that one token uses.

    `models`: configs by name, each of which can be changed. `start`: the model shown first.
    """

    def choices(*values: int) -> dict[str, int]:
        return {"as it is": 0} | {f"{value:,}": value for value in values}  # None is no choice

    def draw(
        model: str, n_experts: int, n_active: int, width: int, shared_width: int, step: int
    ) -> Figure:
        config = with_experts(
            models[model], n_experts=n_experts or None, n_active=n_active or None,
            width=width or None, shared_width=shared_width or None, step=step or None)
        is_changed = any((n_experts, n_active, width, shared_width, step))
        return experts_costs_frame(config, title=f"{model}, changed" if is_changed else model)

    return explore(
        draw, title="Parameters that are stored, and parameters that a token uses",
        controls={"model": list(models), "n_experts": choices(1, 2, 4, 8, 16, 32, 64, 128, 256),
                  "n_active": choices(1, 2, 4, 8), "width": choices(512, 1024, 2048, 4096, 8192),
                  "shared_width": choices(512, 1024, 2048, 4096, 8192),
                  "step": choices(1, 2, 3, 4)},
        labels={"n_experts": "experts", "n_active": "experts per token",
                "width": "width of an expert", "shared_width": "width of the shared expert",
                "step": "every how many layers"},
        start={"model": start} if start else {})


def experts_costs_frame(config: LlamaConfig, *, title: str) -> Figure:
    """Draws all and active parameters by place, and both for other numbers of experts."""
    stored, active = params_in_places(config)
    n_params, n_active_params = config.n_params, config.n_active_params
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.0), width_ratios=(1.25, 1))
    power = min(int(np.log10(n_params) // 3), 4)
    scale, unit = 1000.0**power, ("", "thousands", "millions", "billions", "trillions")[power]
    ends = np.zeros(2)
    for place, color in _PLACES.items():
        amounts = np.array([stored[place], active[place]]) / scale
        left.barh([0, 1], amounts, left=ends, color=color, label=place, edgecolor="white")
        ends += amounts
    left.set_yticks([0, 1], ["stored", "used by\na token"])
    left.invert_yaxis()
    left.bar_label(left.containers[-1], [quantity(n_params), quantity(n_active_params)],
                   padding=4, fontsize=11)
    left.margins(x=0.16)
    left.set(xlabel=f"parameters ({unit})" if unit else "parameters")
    left.set_title(title, parse_math=False)
    fig.legend(loc="outside lower center", ncols=4)
    n_experts, totals = _by_number(config)
    right.plot(n_experts, totals / scale, "o-", markersize=4, color=BLUE, label="stored")
    right.axhline(n_active_params / scale, color=ORANGE, label="used by a token")
    right.set(xscale="log", yscale="log", xlabel="experts in a layer", ylabel=left.get_xlabel(),
              title="With more experts")
    right.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    right.minorticks_off()
    right.legend()
    fig.set_label(f"{title}: {n_params:,} parameters are stored, and {n_active_params:,} of them "
                  f"are used by a token: {n_active_params / n_params:.1%}.")
    return fig


def params_in_places(config: LlamaConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the parameters in each place: those that are stored, and those that a token uses.

    They sum to `config.n_params` and `config.n_active_params`. Norms count as attention, and
    routers as shared.
    """
    stored = dict.fromkeys(_PLACES, 0)
    for name, shape in costs.param_shapes(config).items():
        stored[_place_of(name)] += int(np.prod(shape))
    idle = config.n_params - config.n_active_params
    return stored, stored | {"routed experts": stored["routed experts"] - idle}


def _place_of(name: str) -> str:
    if ".experts." in name:
        return "routed experts"
    if ".feed_forward." in name:
        return "dense and shared"
    return "attention" if name.startswith("layers.") or name == "norm.weight" else (
        "embedding and output")


def _by_number(config: LlamaConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of experts, and how many parameters the model has with each of them.

    Each expert adds its matrices and its direction of the router, so one model is enough to count.
    """
    specs = [spec.feed_forward for spec in config.layers if isinstance(spec.feed_forward, Experts)]
    now, least = (specs[0].n_experts, specs[0].n_active) if specs else (1, 1)
    numbers = np.array([n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n >= least])
    of_experts = sum(int(np.prod(shape)) for name, shape in costs.param_shapes(config).items()
                     if ".experts." in name or ".router." in name)
    return numbers, config.n_params + (numbers - now) * (of_experts / now)

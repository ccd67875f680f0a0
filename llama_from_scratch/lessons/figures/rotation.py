"""Drawings of RoPE: pairs of channels as hands of clocks, and where in a layer they are turned.

Notebook 12.
"""

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.measuring import axes, shapes_of
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama

POSITIONS = (0, 1, 2, 3, 4, 16, 64, 256, 1024)


def pairs(rope: Rope, *, positions: Sequence[int] = POSITIONS, n_pairs: int = 4) -> Figure:
    """Draws the hands of some pairs at some positions, from the fastest pair to the slowest.

    The first positions are neighbors, which move fast hands. The last are far away, which moves
    slow hands, too.

    Example: `rotation.pairs(model.rope)`
    """
    turns_TR = rope(torch.tensor([list(positions)]))[0]
    n_all = turns_TR.shape[1]
    chosen = [round(i * (n_all - 1) / (n_pairs - 1)) for i in range(n_pairs)]
    drawing = Drawing("RoPE: each pair of channels is a hand, and the position turns it")
    freqs = rope(torch.tensor([[1]]))[0, 0].angle()
    for row, pair in enumerate(chosen):
        y = 0.45 + 0.66 * row
        drawing.note(f"channels {2 * pair}, {2 * pair + 1}\n{_speed(float(freqs[pair]))}", (0.1, y))
        for column, angle in enumerate(turns_TR[:, pair].angle().tolist()):
            drawing.clock(angle, (2.6 + 0.68 * column, y))
    below = 0.45 + 0.66 * len(chosen) - 0.18
    for column, position in enumerate(positions):
        drawing.note(f"{position:,}", (2.6 + 0.68 * column, below), align="center")
    drawing.note("position", (0.1, below))
    return drawing.figure(
        "Each row is a pair of channels. The first hand turns fast, so neighbors have different "
        "hands. The last hand hardly turns, so it differs only between far positions.")


def _speed(freq: float) -> str:
    """Returns words for the number of tokens in one turn of a hand."""
    if freq <= 0:
        return "hardly turns"
    return f"one turn: {2 * math.pi / freq:,.0f} tokens"


def in_layer(model: Llama, *, n_tokens: int = 6) -> Figure:
    """Draws where the first layer turns q and k, but not v, with the shapes of a real run.

    Example: `rotation.in_layer(model)`
    """
    part, config = model.layers[0].attention, model.config
    ids = torch.zeros(1, n_tokens, dtype=torch.long)
    with shapes_of(part) as seen, shapes_of(model) as outer, torch.no_grad():
        model(ids, cache=model.new_cache(batch_size=1, max_seq_len=n_tokens))
    (q, k), v = seen["rotate in"][:2], seen["attend in"][2]
    turns = outer["rope out"][0]
    drawing = Drawing("RoPE turns q and k, before the cache; v is left as it is")
    places = drawing.tensor("positions", (2.25, 1.75), shape=axes("BT", tuple(ids.shape)))
    rope = drawing.step("Rope", (3.6, 1.75), detail=f"theta = {config.rope_theta:,.0f}")
    drawing.arrow(places, rope)
    angles = drawing.tensor("turns", (4.95, 1.75), shape=axes("BTR", turns))
    drawing.arrow(rope, angles)
    rows = {"q": (0.6, q), "k": (2.9, k), "v": (4.0, v)}
    made = {name: drawing.tensor(name, (3.2, y), shape=axes("BTHK" if name == "q" else "BTGK",
                                                             shape))
            for name, (y, shape) in rows.items()}
    x = drawing.tensor("x", (0.75, 2.9), shape=axes("BTD", seen["wq in"][0]))
    for name, (y, _) in rows.items():
        weight = drawing.step(f"w{name}", (2.0, y), does="weights")
        drawing.arrow(x, *(() if y == x.y else ((1.45, x.y), (1.45, y))), weight)
        drawing.arrow(weight, made[name])
    turned = {name: drawing.step("turn pairs", (4.95, rows[name][0]), does="focus")
              for name in "qk"}
    for name, step in turned.items():
        drawing.arrow(made[name], step)
    drawing.arrow(angles, turned["q"])
    drawing.arrow(angles, turned["k"])
    cache = drawing.step("KV cache", (6.75, 3.45), does="memory",
                         detail="turned keys,\nvalues as they are")
    drawing.arrow(turned["k"], (6.75, rows["k"][0]), cache)
    drawing.arrow(made["v"], (6.75, rows["v"][0]), cache)
    scores = drawing.step("attend", (8.2, 0.6), does="choice", detail="q · k, then\nsum of v")
    drawing.arrow(turned["q"], scores)
    drawing.arrow(cache, (8.2, cache.y), scores)
    return drawing.figure(
        "One table has a turn for each position and pair. All heads and layers use it. A key is "
        "turned once, by its own position, and is then kept in the cache.")

"""Drawings of a model's parts, made from a run of the real modules: every shape is measured.

Notebooks 10 to 15.
"""

import torch
from matplotlib.figure import Figure
from torch import nn

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE
from llama_from_scratch.lessons.figures.measuring import axes, shapes_of
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


def text_to_vectors(model: Llama, tokenizer: Tokenizer, *, text: str) -> Figure:
    """Draws how a short text becomes pieces, ids and rows of the embedding.

    The first 12 numbers of each row are drawn as colors.

    Example: `architecture.text_to_vectors(model, tokenizer, text="Once upon a time")`
    """
    ids = tokenizer.encode(text)
    rows = model.embed(torch.tensor([ids]))[0, :, :12].detach()
    drawing = Drawing("From text to vectors: each token is a row of a table")
    pitch = min(0.9, 7.2 / len(ids))
    middle = pitch * (len(ids) - 1) / 2 + 1.6
    whole = drawing.step(f'"{text}"', (middle, 0.2))
    span = pitch * (len(ids) - 1) + 0.5
    cut = drawing.step("tokenizer.encode", (middle, 0.95), does="choice", width=span,
                       detail="cuts the text and looks each piece up")
    drawing.arrow(whole, cut)
    config = model.config
    table = drawing.step("tok_embeddings", (middle, 3.1), does="weights", width=span,
                         detail=f"a table of V = {config.vocab_size:,} rows with "
                                f"D = {config.dim:,} numbers each")
    for i, (token, row) in enumerate(zip(ids, rows, strict=True)):
        x = middle + (i - (len(ids) - 1) / 2) * pitch
        piece = drawing.tensor(letters(tokenizer.decode_bytes([token])), (x, 1.75))
        number = drawing.step(f"{token:,}", (x, 2.35))
        vector = drawing.vector(row.tolist(), (x, 4.3))
        drawing.arrow((x, cut.bottom[1]), piece)
        drawing.arrow(piece, number)
        drawing.arrow(number, (x, table.top[1]))
        drawing.arrow((x, table.bottom[1]), vector)
    for words, y in (("pieces", 1.75), ("ids", 2.35), ("vectors", 4.2)):
        drawing.note(words, (0.1, y))
    drawing.note(f"T × D = {len(ids)} × {config.dim:,}", (0.1, 4.45))
    return drawing.figure(
        f"The text becomes {len(ids)} pieces. Each piece has one id, and each id has one row of "
        f"{config.dim:,} numbers in the embedding. The colors show the first 12 numbers.")


def attention(model: Llama, *, n_tokens: int = 6) -> Figure:
    """Draws the first layer's attention, from x through q, k, v, heads and cache to wo.

    Example: `architecture.attention(model)`
    """
    part = model.layers[0].attention
    config = model.config
    cache = model.new_cache(batch_size=1, max_seq_len=n_tokens)
    ids = torch.zeros(1, n_tokens, dtype=torch.long)
    with shapes_of(part) as seen, torch.no_grad():
        model(ids, cache=cache)
    (q, k), n_kept = seen["rotate in"][:2], seen["attend in"][1][1]
    drawing = Drawing(f"Attention: {config.n_heads} query heads, "
                      f"{config.n_kv_heads} key/value heads")
    x = drawing.tensor("x", (0.65, 1.9), shape=axes("BTD", seen["wq in"][0]))
    ways = {}
    for name, y, shape in (("q", 0.6, q), ("k", 1.9, k), ("v", 3.2, k)):
        weight = drawing.step(f"w{name}", (2.0, y), does="weights",
                              detail=_matrix(getattr(part, f"w{name}")))
        if y == x.y:
            drawing.arrow(x, weight)
        else:
            drawing.arrow(x, (1.35, x.y), (1.35, y), weight)
        ways[name] = drawing.tensor(name, (3.55, y), copies=shape[2],
                                    shape=axes("BTHK" if name == "q" else "BTGK", shape))
        drawing.arrow(weight, ways[name])
    turn_q, turn_k = (drawing.step("RoPE", (4.95, y), detail="turns pairs") for y in (0.6, 1.9))
    drawing.arrow(ways["q"], turn_q)
    drawing.arrow(ways["k"], turn_k)
    kept = drawing.step("KV cache", (6.15, 2.62), does="memory",
                        detail=f"keys and values\nof S = {n_kept:,} tokens")
    drawing.arrow(turn_k, (kept.x, turn_k.y), kept)
    drawing.arrow(ways["v"], (kept.x, ways["v"].y), kept)
    score = drawing.step("softmax of q·k / √K", (7.15, 0.6), does="choice",
                         detail="over the visible keys")
    drawing.arrow(turn_q, score)
    drawing.arrow((kept.right[0], 2.42), (7.15, 2.42), score, label="keys")
    mix = drawing.sign("×", (8.3, 2.7))
    drawing.arrow(score, (8.3, score.y), mix, label="")
    drawing.arrow((kept.right[0], mix.y), mix, label="values")
    found = drawing.tensor("found", (7.25, 4.3), shape=axes("BTHK", seen["attend out"][0]),
                           copies=seen["attend out"][0][2])
    drawing.arrow(mix, (8.3, found.y), found)
    out = drawing.step("wo", (5.6, 4.3), does="weights", detail=_matrix(part.wo))
    drawing.arrow(found, out)
    end = drawing.tensor("out", (4.15, 4.3), shape=axes("BTD", seen["wo out"][0]))
    drawing.arrow(out, end)
    return drawing.figure(
        f"x is used three times. Queries have {config.n_heads} heads; keys and values have "
        f"{config.n_kv_heads}. Only keys and values go into the cache, and v is not turned.")


def feed_forward(part: FeedForward, *, n_tokens: int = 6) -> Figure:
    """Draws SwiGLU: two paths of the same width, one of which is the gate of the other.

    Example: `architecture.feed_forward(model.layers[0].feed_forward)`
    """
    with shapes_of(part) as seen, torch.no_grad():
        part(torch.zeros(1, n_tokens, part.w_gate.in_features))
    drawing = Drawing("SwiGLU: one path is the gate of the other")
    x = drawing.tensor("x", (0.65, 1.2), shape=axes("BTD", seen["w_gate in"][0]))
    gate = drawing.step("w_gate", (2.15, 0.5), does="weights", detail=_matrix(part.w_gate))
    up = drawing.step("w_up", (2.15, 1.9), does="weights", detail=_matrix(part.w_up))
    for weight in (gate, up):
        drawing.arrow(x, (1.4, x.y), (1.4, weight.y), weight)
    open_ = drawing.step("silu", (3.55, 0.5), detail="z · sigmoid(z)")
    drawing.arrow(gate, open_)
    mix = drawing.sign("×", (4.5, 1.2))
    drawing.arrow(open_, (4.5, 0.5), mix, label="gate")
    drawing.arrow(up, (4.5, 1.9), mix, label="values")
    wide = drawing.tensor("hidden", (5.75, 1.2), shape=axes("BTF", seen["activation out"][0]))
    drawing.arrow(mix, wide)
    down = drawing.step("w_down", (7.05, 1.2), does="weights", detail=_matrix(part.w_down))
    drawing.arrow(wide, down)
    end = drawing.tensor("out", (8.3, 1.2), shape=axes("BTD", seen["w_down out"][0]))
    drawing.arrow(down, end)
    return drawing.figure(
        "The upper path decides, number by number, how much of the lower path passes. The width "
        f"grows from {part.w_gate.in_features:,} to {part.w_gate.out_features:,} and shrinks back.")


def model(llama: Llama, *, n_tokens: int = 6) -> Figure:
    """Draws the whole model and one of its blocks: the residual stream is a road that parts add to.

    Example: `architecture.model(model)`
    """
    config = llama.config
    ids = torch.zeros(1, n_tokens, dtype=torch.long)
    with shapes_of(llama) as seen, torch.no_grad():
        llama(ids)
    stream = axes("BTD", seen["tok_embeddings out"][0])
    drawing = Drawing("A Llama is a road: each part reads from it and adds to it")
    y = 3.1
    start = drawing.tensor("ids", (0.6, y), shape=axes("BT", tuple(ids.shape)))
    embed = drawing.step("embed", (1.75, y), does="weights", detail=f"V = {config.vocab_size:,}")
    drawing.arrow(start, embed)
    add_1, add_2 = drawing.sign("+", (4.2, y)), drawing.sign("+", (6.4, y))
    drawing.arrow(embed, add_1, color=ORANGE)
    drawing.arrow(add_1, add_2, color=ORANGE)
    parts = []
    for left, plus, title, detail in ((3.15, add_1, "Attention", "between tokens"),
                                      (5.25, add_2, "FeedForward", "in each token")):
        norm = drawing.step("RMSNorm", (left, 2.2))
        part = drawing.step(title, (left, 1.3), does="weights", detail=detail)
        drawing.arrow((left, y), norm, label="reads")
        drawing.arrow(norm, part)
        drawing.arrow(part, (plus.x, part.y), plus, label="adds", is_left=True)
        parts += [norm, part, plus]
    drawing.frame(f"Block, {config.n_layers} times", parts)
    last = drawing.step("norm, output", (7.85, y), does="weights", detail="the head")
    drawing.arrow(add_2, last, color=ORANGE)
    logits = drawing.tensor("logits", (7.85, 1.85), shape=axes("BTV", seen["output out"][0]))
    drawing.arrow(last, logits)
    sizes = " × ".join(f"{size:,}" for size in stream.values())
    drawing.note(f"the residual stream is {' '.join(stream)} = {sizes} everywhere", (2.5, y + 0.45))
    return drawing.figure(
        f"The orange road has the same shape from the first of {config.n_layers} blocks to the "
        "last. Attention and feed-forward read from it through a norm and add to it.")


def _matrix(linear: nn.Linear) -> str:
    return f"{linear.in_features:,} → {linear.out_features:,}"

"""Widgets that look into the reader's own model, tokenizer and runs, each with a frame: the same picture without controls.

`attention(model, tokenizer, text="...")` is a widget, `attention_frame(...)` the figure under it; a frame takes numbers and
never runs a model. Every widget runs the model anew when a control moves, so it shows the weights as they are now.

Used by the chapters on the tokenizer (10), RoPE (12), attention (13), the transformer (15), generation (16), training (17).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT
from torch import Tensor

from llama_from_scratch.config import LlamaConfig, RopeScaling
from llama_from_scratch.generate.sampling import Sampling, distribution
from llama_from_scratch.lessons import figures
from llama_from_scratch.lessons.check.difference import counted
from llama_from_scratch.lessons.figures import BLACK, BLUE, GREEN, ORANGE, letters
from llama_from_scratch.lessons.views.inspect_model import Trace, lens, trace
from llama_from_scratch.lessons.widgets.live import running_mean
from llama_from_scratch.lessons.widgets import Explorer, explore
from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer, merge_word
from llama_from_scratch.train import History

BOS = "<|begin_of_text|>"

MAX_TOKENS = 200
"""The longest text that a picture of every token still answers to at once."""

# Beyond these, names at a readable size would overlap: axes count instead, and layers are left out evenly.
_MAX_NAMED_TOKENS, _MAX_LAYERS_SHOWN, _MAX_HANDS = 32, 16, 8
_GROUP_COLOURS = (BLUE, ORANGE, GREEN, figures.PINK, figures.SKY, figures.RED, BLACK, "#999999")


def encode(model: Llama, tokenizer: Tokenizer, *, text: str, max_tokens: int = MAX_TOKENS) -> list[int]:
    """The ids of a reader's text, after the token that begins a text if the vocabulary has one.

    Raises ValueError for an empty text, one of more than `max_tokens` or the model's context, or a foreign tokenizer.
    """
    if not text:
        raise ValueError("there is nothing to read: type a few words")
    limit = min(max_tokens, model.config.max_seq_len)
    at_least = len(text) / max(map(len, tokenizer.ranks))  # known without encoding, which would take long
    ids = tokenizer.encode(text, bos=BOS in tokenizer.special_ids) if at_least <= limit else []
    if not ids or len(ids) > limit:
        raise ValueError(f"there is room for {limit} tokens; got {len(ids) or 'far more'} in {len(text):,} letters. "
                         "Shorten the text")
    if max(ids) >= model.config.vocab_size:
        raise ValueError(f"the model knows the ids 0 to {model.config.vocab_size - 1}, and this text holds {max(ids)}. "
                         "Is this the tokenizer that the model was trained with?")
    return ids


def _names(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [letters(tokenizer.decode_bytes([i])) for i in ids]


def _label(axis: Axis, names: Sequence[str], *, rotation: int = 0) -> None:
    """Tokens on an axis, or their numbers when there are too many to be read."""
    if len(names) <= _MAX_NAMED_TOKENS:
        axis.set_ticks(range(len(names)), [name if len(name) < 12 else name[:10] + "…" for name in names], rotation=rotation)
        for label in axis.get_ticklabels():
            label.set_parse_math(False)


# --- attention -------------------------------------------------------------------------------------------------------


def attention(model: Llama, tokenizer: Tokenizer, *, text: str, layer: int = 0, head: int | str = "all") -> Explorer:
    """Who looks at whom, in each layer and head. The words tell the row of `token`, hovering any other cell."""
    config = model.config

    def draw(text: str, layer: int, head: int | str, token: int) -> Figure:
        ids = encode(model, tokenizer, text=text)
        weights_HTS = trace(model, torch.tensor(ids)).weights[layer]
        names = _names(tokenizer, ids)
        if head == "all":
            return attention_heads_frame(weights_HTS, names, n_kv_heads=config.n_kv_heads, token=token, layer=layer)
        title = _head_title(layer, head, weights_HTS, config.n_kv_heads)
        return attention_frame(weights_HTS[head], names, token=token, title=title,
                               colour=_group_colour(head, weights_HTS, config.n_kv_heads))

    n_tokens = len(encode(model, tokenizer, text=text))
    controls = {"text": text, "layer": _slider(config.n_layers - 1), "head": ["all", *range(config.n_heads)],
                "token": _slider(max(n_tokens - 1, 1), n_tokens - 1)}
    return explore(draw, title="Who looks at whom?", controls=controls, start={"layer": layer, "head": head}, has_hover=True,
                   limits=lambda text, **_: {"token": len(encode(model, tokenizer, text=text)) - 1})


def _slider(last: int, start: int = 0) -> tuple[int, int, int] | list[int]:
    return (0, last, start) if last else [0]


def _group(head: int, weights: Tensor, n_kv_heads: int) -> int:
    return head // (len(weights) // n_kv_heads)


def _group_colour(head: int, weights: Tensor, n_kv_heads: int) -> str:
    return _GROUP_COLOURS[_group(head, weights, n_kv_heads) % len(_GROUP_COLOURS)]


def _head_title(layer: int, head: int, weights: Tensor, n_kv_heads: int) -> str:
    return f"layer {layer}, head {head}, key/value {_group(head, weights, n_kv_heads)}"


def attention_frame(
    weights: Float[Tensor, "T S"], names: Sequence[str], *, token: int, title: str, colour: str = BLUE
) -> Figure:
    """One head: the triangle of weights, and what the query `token` looks at most, as bars."""
    n = len(names)
    height = 2.1 + 0.165 * n if n <= _MAX_NAMED_TOKENS else 4.8
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, max(height, 3.6)), width_ratios=(1.7, 1))
    _triangle(left, weights, names, token=token, title=title)
    if n <= _MAX_NAMED_TOKENS:
        row = plt.Rectangle((-0.5, token - 0.5), token + 1, 1, fill=False, edgecolor=figures.RED, linewidth=2, clip_on=False)
        left.add_patch(row)
    left.set(title=title, xlabel="looked at (key); bright is more", ylabel="looking (query)")
    _label(left.xaxis, names, rotation=90)
    _label(left.yaxis, names)
    top = weights[token].topk(min(8, token + 1))
    places = range(len(top.values))
    right.barh(places, top.values.tolist(), color=colour)
    right.set_yticks(places, [f"{names[s]}  {s}" for s in top.indices.tolist()])
    for label in right.get_yticklabels():
        label.set_parse_math(False)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="weight (a row sums to 1)")
    right.set_title(f"{token}: {names[token]} looks at", parse_math=False)
    told = ", ".join(f"“{names[s]}” ({s}) {w:.0%}" for w, s in zip(top.values.tolist(), top.indices.tolist()))
    fig.set_label(f"{title}: token {token}, “{names[token]}”, looks at {told}.")
    return fig


def attention_heads_frame(
    weights: Float[Tensor, "H T S"], names: Sequence[str], *, n_kv_heads: int, token: int, layer: int
) -> Figure:
    """All heads of one layer in small; the colour of a frame is the key/value head that its group shares."""
    n_heads = len(weights)
    columns = min(n_heads, 4 if n_heads <= 16 else 8)
    rows = -(-n_heads // columns)
    cell = 9.5 / columns
    fig, axes = plt.subplots(rows, columns, figsize=(9.5, 0.75 + rows * (cell + 0.15)), squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[n_heads:]:
        ax.axis("off")
    told = []
    for head, (ax, weights_TS) in enumerate(zip(axes.flat, weights)):
        _triangle(ax, weights_TS, names, token=token, title=_head_title(layer, head, weights, n_kv_heads))
        colour, group = _group_colour(head, weights, n_kv_heads), _group(head, weights, n_kv_heads)
        ax.spines[:].set(visible=True, color=colour, linewidth=4)
        ax.set_title(f"{head}: kv {group}" if columns > 4 else f"head {head}, key/value {group}", fontsize=11)
        best = int(weights_TS[token].argmax())
        told.append(f"head {head} at “{names[best]}” ({best}) {weights_TS[token, best]:.0%}")
    axes[0, 0].locator_params(integer=True)
    fig.supxlabel("looked at (key position); bright is more", fontsize=12)
    fig.supylabel("looking (query)", fontsize=12)
    sharing = f"{n_heads // n_kv_heads} heads share a key/value head (one colour)" if n_kv_heads < n_heads else "none shared"
    fig.suptitle(f"Layer {layer}: {n_heads} heads, {sharing}", fontsize=13, fontweight="bold")
    fig.set_label(f"Layer {layer}: token {token}, “{names[token]}”, looks most: {'; '.join(told)}.")
    return fig


def _triangle(ax: Axes, weights: Tensor, names: Sequence[str], *, token: int, title: str) -> None:
    n, rows = len(weights), weights.tolist()

    def tell(x: float | int, y: float | int) -> str:
        s, t = round(x), round(y)
        if s > t:
            return f"{title}: query “{names[t]}” ({t}) cannot see what comes after it (causal mask)"
        return f"{title}: query “{names[t]}” ({t}) looks at key “{names[s]}” ({s}) with weight {rows[t][s]:.1%}"

    ax.format_coord = tell
    hidden = np.triu(np.ones((n, n), dtype=bool), 1)
    colours = plt.get_cmap("viridis").with_extremes(bad="0.92")
    # The square root lets weights of a hundredth be seen; all heads share the scale from 0 to 1.
    ax.imshow(np.ma.array(weights.numpy(), mask=hidden), norm=PowerNorm(0.5, 0, 1), aspect="auto", cmap=colours)
    ax.plot(token + 0.6, token, marker=CARETLEFT, color=figures.RED, markersize=10, clip_on=False)
    ax.set_xlim(-0.5, n - 0.5)


# --- residual stream and logit lens ----------------------------------------------------------------------------------


def residual_stream(model: Llama, tokenizer: Tokenizer, *, text: str) -> Explorer:
    """What each layer adds to a token's stream, and the token it would predict next if the model ended there."""
    def draw(text: str, token: int) -> Figure:
        ids = encode(model, tokenizer, text=text)
        passed, names = trace(model, torch.tensor(ids)), _names(tokenizer, ids)
        probs_LV = lens(model, passed.stream[:, token]).softmax(-1)
        best = probs_LV.max(-1)
        guesses = list(zip(_names(tokenizer, best.indices.tolist()), best.values.tolist()))
        follows = names[token + 1] if token + 1 < len(names) else None
        return residual_frame(passed, guesses, token=token, name=names[token], follows=follows)

    last = len(encode(model, tokenizer, text=text)) - 1
    return explore(draw, title="Layer by layer", controls={"text": text, "token": _slider(max(last, 1), last)},
                   limits=lambda text, **_: {"token": len(encode(model, tokenizer, text=text)) - 1})


def residual_frame(
    passed: Trace, guesses: Sequence[tuple[str, float]], *, token: int, name: str, follows: str | None = None
) -> Figure:
    """Sizes of the stream and of both additions per layer, beside `guesses`: (token, probability) after each layer."""
    n_layers = len(passed.attention)
    size = lambda x_LTD: x_LTD[:, token].square().mean(-1).sqrt().tolist()
    stream, attention, feed_forward = size(passed.stream), size(passed.attention), size(passed.feed_forward)
    shown = sorted({round(k) for k in np.linspace(0, n_layers, min(n_layers, _MAX_LAYERS_SHOWN) + 1)})
    rows = range(len(shown))
    where = ["embedding", *(f"layer {layer}" for layer in range(n_layers))]
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 1.5 + 0.42 * len(shown)), sharey=True)
    added = [(row, layer - 1) for row, layer in zip(rows, shown) if layer]
    for offset, sizes, colour, half in ((-0.2, attention, BLUE, "attention"), (0.2, feed_forward, ORANGE, "feed-forward")):
        places, values = [row + offset for row, _ in added], [sizes[layer] for _, layer in added]
        left.barh(places, values, height=0.38, color=colour, label=f"{half} adds")
    left.plot([stream[layer] for layer in shown], rows, "o-", color=BLACK, label="stream afterwards")
    left.set(xlim=(0, None), xlabel="size (root mean square per channel)")
    left.set_title(f"{token}: {name}", parse_math=False)
    left.set_yticks(rows, [where[layer] for layer in shown])
    left.invert_yaxis()
    left.legend(loc="upper right")
    final = guesses[-1][0]
    for row, layer in zip(rows, shown):
        guess, prob = guesses[layer]
        right.barh(row, prob, color=GREEN if guess == final else "0.75", height=0.7)
        right.text(prob + 0.02, row, f"{guess}  {prob:.0%}", va="center", fontsize=12, parse_math=False)
    right.set(xlim=(0, 1.4), xticks=(0, 0.5, 1), xlabel="probability of its first choice")
    right.set_title("What would come next?" if follows is None else f"What comes next? (here: {follows})", parse_math=False)
    told = ", ".join(f"{where[k]} “{guesses[k][0]}” {guesses[k][1]:.0%}" for k in shown)
    fig.set_label(f"After token {token}, “{name}”, the first choice is: {told}. The stream grows from size {stream[0]:.2f} "
                  f"to {stream[-1]:.2f}.")
    return fig


# --- RoPE ------------------------------------------------------------------------------------------------------------


def rope(config: LlamaConfig, *, start: Mapping[str, Any] | None = None) -> Explorer:
    """The hands of one head at a position, and how far each turns per token, under theta and under scaling.

    `start`: other first values, such as {"position": 64, "scaling": "×8 (Llama 3.1)"}.
    """
    original = config.rope_scaling.original_max_seq_len if config.rope_scaling else config.max_seq_len
    factors = {"none": None, "×8 (Llama 3.1)": 8.0, "×32 (Llama 3.2)": 32.0}

    def draw(position: int, theta: str, scaling: str) -> Figure:
        factor = factors[scaling]
        scaled = None if factor is None else RopeScaling(
            factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=original)
        return rope_frame(dataclasses.replace(config, rope_theta=float(theta.replace(",", "")), rope_scaling=scaled),
                          position=position, original=original)

    positions = [*range(9), *(2**k for k in range(4, int(math.log2(32 * original)) + 1))]
    own = f"{config.rope_theta:,.0f}"
    return explore(draw, title="RoPE: hands that turn with the position", start={"position": 3} | dict(start or {}), controls={
        "position": {f"{position:,}": position for position in positions},
        "theta": list(dict.fromkeys([own, "10,000", "500,000", "100"])), "scaling": list(factors)})


def rope_frame(config: LlamaConfig, *, position: int, original: int) -> Figure:
    """Hands at angle position · frequency, and tokens per turn for every pair; grey is the same without scaling."""
    plain_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
    freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)
    R = len(freq_R)
    shown = sorted({round(r) for r in np.linspace(0, R - 1, min(R, _MAX_HANDS))})
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), width_ratios=(1, 1.35))
    left.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.85"))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shown)))
    for place, (r, colour) in enumerate(zip(shown, colours)):
        length = 1 - 0.5 * place / len(shown)
        for freq, look in ((plain_R[r], {"color": "0.8", "lw": 4}), (freq_R[r], {"color": colour, "lw": 3})):
            angle = math.fmod(position * freq.item(), 2 * math.pi)
            left.plot([0, length * math.cos(angle)], [0, length * math.sin(angle)], solid_capstyle="round", **look)
            left.plot(length * math.cos(angle), length * math.sin(angle), "o", color=look["color"], markersize=8)
    left.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[], aspect="equal", title=f"position {position:,}",
             xlabel="dark: first pair, bright: last")
    left.spines[:].set_visible(False)
    if config.rope_scaling:
        right.plot((2 * math.pi / plain_R).numpy(), color="0.7", label="without scaling")
    right.plot((2 * math.pi / freq_R).numpy(), color=BLUE, label=f"θ = {config.rope_theta:,.0f}")
    right.scatter(shown, (2 * math.pi / freq_R[shown]).numpy(), color=colours, zorder=3, s=60)
    right.axhline(original, color=ORANGE, linestyle="--", label=f"context trained on: {original:,}")
    right.set(yscale="log", xlabel="pair r", ylabel="tokens per full turn", title="How slowly each pair turns")
    right.legend()
    turns = position * freq_R / (2 * math.pi)
    fig.set_label(f"At position {position:,} the first pair has made {turns[0]:,.2f} turns and the last {turns[-1]:.4f}; "
                  f"{int((2 * math.pi / freq_R > original).sum())} of {R} pairs finish no turn within {original:,} tokens.")
    return fig


# --- sampling --------------------------------------------------------------------------------------------------------


def sampling(model: Llama, tokenizer: Tokenizer, *, text: str) -> Explorer:
    """The probabilities of the next token before and after temperature, top-k, top-p and min-p."""
    def draw(text: str, temperature: float, top_k: int, top_p: float, min_p: float) -> Figure:
        ids = encode(model, tokenizer, text=text)
        with torch.no_grad():
            logits_V = model(torch.tensor([ids], device=model.output.weight.device))[0, -1].cpu()
        dials = Sampling(
            temperature=temperature, top_k=top_k or None, top_p=top_p if top_p < 1 else None, min_p=min_p or None)
        names = _names(tokenizer, logits_V.topk(min(14, len(logits_V))).indices.tolist())
        return sampling_frame(logits_V, dials, names=names, after=text)

    top_k = {"off": 0} | {str(k): k for k in (100, 50, 20, 10, 5, 3, 2, 1)}
    return explore(draw, title="What may come next?", controls={
        "text": text, "temperature": (0.0, 2.0, 1.0), "top_k": top_k, "top_p": (0.05, 1.0, 1.0), "min_p": (0.0, 0.5)})


def sampling_frame(logits: Float[Tensor, "V"], sampling: Sampling, *, names: Sequence[str], after: str) -> Figure:
    """Bars of the most likely tokens, called `names`: grey as the model says, blue as they are drawn from."""
    own_V, probs_V = logits.softmax(-1), distribution(logits[None], sampling)[0]
    order = logits.topk(len(names)).indices
    fig, ax = plt.subplots(figsize=(9.5, 3.6))
    places = np.arange(len(names))
    ax.bar(places - 0.2, own_V[order].tolist(), width=0.4, color="0.75", label="the model's own")
    ax.bar(places + 0.2, probs_V[order].tolist(), width=0.4, color=BLUE, label="after the dials")
    ax.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    for label in ax.get_xticklabels():
        label.set_parse_math(False)
    kept_V = probs_V[probs_V > 0]
    bits = -(kept_V * kept_V.log2()).sum().item() + 0.0
    ax.set(ylabel="probability", ylim=(0, max(1.05 * probs_V.max().item(), 1.05 * own_V.max().item())))
    end = after.replace("\n", " ")
    ax.set_title(f"{'…' if len(end) > 40 else ''}{end[-40:]} ?", parse_math=False)
    ax.legend(title=f"{len(kept_V):,} of {len(logits):,} tokens possible\nentropy {bits:.1f} bits", title_fontsize=11)
    told = ", ".join(f"“{name}” {prob:.0%}" for name, prob in zip(names[:5], probs_V[order].tolist()))
    fig.set_label(f"{len(kept_V):,} of {len(logits):,} tokens can be drawn, entropy {bits:.1f} bits. Most likely: {told}.")
    return fig


# --- learning rates --------------------------------------------------------------------------------------------------


def learning_rates(runs: Mapping[float, History]) -> Explorer:
    """Finished runs that differ in their peak learning rate, one at a time against all the others."""
    if len(runs) < 2 or any(not history.steps for history in runs.values()):
        raise ValueError(f"a sweep compares at least two runs of at least one step; got {len(runs)} runs")
    ordered = dict(sorted(runs.items()))
    rates = {f"{rate:g}": rate for rate in ordered}
    return explore(lambda peak_lr: learning_rates_frame(ordered, peak_lr=peak_lr), title="Which learning rate?",
                   controls={"peak_lr": rates})


def final_loss(history: History) -> float:
    """The running mean of the loss at the last step, in nats per token; infinite if a loss was not a number."""
    mean = running_mean(history.losses)[-1]
    return mean if math.isfinite(mean) else math.inf


def learning_rates_frame(runs: Mapping[float, History], *, peak_lr: float) -> Figure:
    """Loss curves of all runs, the one with `peak_lr` in colour; and where each ended, against its rate."""
    ends = {rate: final_loss(history) for rate, history in runs.items()}
    best = min(ends, key=ends.get)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.7), sharey=True, width_ratios=(1.3, 1))
    for rate, history in runs.items():
        is_chosen = rate == peak_lr
        left.plot(history.n_tokens, running_mean(history.losses), color=BLUE if is_chosen else "0.8",
                  zorder=3 if is_chosen else 2, linewidth=3 if is_chosen else 1.5)
    finite = [end for end in ends.values() if math.isfinite(end)]
    highest = max(history.losses[0] for history in runs.values() if math.isfinite(history.losses[0]))
    left.set(xlabel="tokens read", ylabel="loss (nats per token)", title=f"peak learning rate {peak_lr:g}",
             ylim=(0.95 * min(finite, default=0), 1.1 * highest))
    left.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1000:,.0f}k")
    right.plot(list(ends), [end if math.isfinite(end) else math.nan for end in ends.values()], "o-", color="0.6", markersize=7)
    for rate in (rate for rate, end in ends.items() if not math.isfinite(end) or end > 1.1 * highest):
        right.plot(rate, 1.05 * highest, "X", color=figures.RED, markersize=11, label=f"{rate:g} diverged")
    right.plot(best, ends[best], "*", color=ORANGE, markersize=20, label=f"lowest: {best:g}", markeredgecolor=BLACK)
    if math.isfinite(ends[peak_lr]):
        right.plot(peak_lr, ends[peak_lr], "o", color=BLUE, markersize=11)
    right.set(xscale="log", xlabel="peak learning rate", title="Loss at the end")
    right.legend()
    end = f"ends at a loss of {ends[peak_lr]:.2f}" if math.isfinite(ends[peak_lr]) else "diverges"
    fig.set_label(f"The run with peak learning rate {peak_lr:g} {end}; the lowest, {ends[best]:.2f}, has {best:g}.")
    return fig


# --- merges ----------------------------------------------------------------------------------------------------------


def merges(tokenizer: Tokenizer, *, text: str) -> Explorer:
    """A text growing together: one step per merge that touches it, in the order in which the tokenizer learned them."""
    def used(text: str) -> list[bytes]:
        if not text or len(text) > 8 * MAX_TOKENS:
            raise ValueError(f"this picture has room for 1 to {8 * MAX_TOKENS:,} letters; got {len(text):,}. "
                             f"{'Shorten the text' if text else 'Type a few words'}")
        return merges_used(tokenizer, text)

    def draw(text: str, step: int) -> Figure:
        return merges_frame(tokenizer, text, merged=used(text)[:step])

    n_steps = len(used(text))
    return explore(draw, title="Watch it merge", controls={"text": text, "step": _slider(max(n_steps, 1), n_steps // 2)},
                   limits=lambda text, **_: {"step": len(used(text))})


def merges_used(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """The tokens that merging makes on its way through `text`, first learned first.

    A merge is never undone: whatever was made is part of a final token, so splitting those finds all of them.
    """
    special = set(tokenizer.special_ids.values())
    found, left = set(), [tokenizer.decode_bytes([i]) for i in set(tokenizer.encode(text)) - special]
    while left:
        token = left.pop()
        if len(token) > 1 and token not in found:
            found.add(token)
            left += halves(tokenizer, token)
    return sorted(found, key=tokenizer.ranks.__getitem__)


def halves(tokenizer: Tokenizer, token: bytes) -> list[bytes]:
    """The two tokens that merge into `token`: what its bytes become without it."""
    inside = {token[i:j] for i in range(len(token)) for j in range(i + 1, len(token) + 1)} - {token}
    ids = merge_word(token, {piece: tokenizer.ranks[piece] for piece in inside if piece in tokenizer.ranks})
    return [tokenizer.decode_bytes([i]) for i in ids]


def merges_frame(tokenizer: Tokenizer, text: str, *, merged: Sequence[bytes]) -> Figure:
    """`text` in tokens when only the merges up to the last of `merged` are known."""
    last = tokenizer.ranks[merged[-1]] if merged else 255
    known = Tokenizer({token: rank for token, rank in tokenizer.ranks.items() if rank <= last}, pattern=tokenizer.pattern)
    ids = known.encode(text)
    if len(ids) > 3 * MAX_TOKENS:
        raise ValueError(f"this picture has room for {3 * MAX_TOKENS} tokens; got {len(ids):,}. Shorten the text")
    n_bytes = len(known.decode_bytes(ids))
    step = "single bytes"
    if merged:
        left, right = map(letters, halves(tokenizer, merged[-1]))
        step = f"{left} + {right} → {letters(merged[-1])} (merge {last - 255})"
    before, now, verb = counted(n_bytes, "byte"), counted(len(ids), "token"), "is" if n_bytes == 1 else "are"
    fig = figures.tokens([known.decode_bytes([i]) for i in ids], title=f"{before}, {now}. Last: {step}")
    fig.set_label(f"Step {len(merged)}, {step}: {before} {verb} {now}.")
    return fig

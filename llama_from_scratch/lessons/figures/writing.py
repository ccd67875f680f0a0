"""Drawings of generation: the loop from ids to the next id, and the cost of prefill and decode.

Notebook 16.
"""

import math

import torch
from matplotlib.figure import Figure

from llama_from_scratch.generate.sampling import Sampling, distribution, keep_top_k, keep_top_p
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE, TINTS
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

_MAX_TOKENS = 9


def loop(
    model: Llama, tokenizer: Tokenizer, *, prompt: str, sampling: Sampling, max_tokens: int = 100
) -> Figure:
    """Draws the loop from ids through logits to the next id and back, and what stops it.

    Each filter shows how many tokens it leaves for this prompt. Raises ValueError unless `sampling`
    has a temperature above 0, a top_k and a top_p.

    Example: `writing.loop(model, tokenizer, prompt="The little",
    sampling=Sampling(temperature=0.8, top_k=50, top_p=0.9))`
    """
    if not sampling.temperature or sampling.top_k is None or sampling.top_p is None:
        raise ValueError("this drawing shows temperature, top-k and top-p, so all must be set, and "
                         f"the temperature must be above 0; got {sampling}")
    ids = tokenizer.encode(prompt, bos=True)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1].float()
    warm = logits / sampling.temperature
    after_k = keep_top_k(warm, sampling.top_k)
    after_p = keep_top_p(after_k, sampling.top_p)
    n_k, n_p = (int((x > -math.inf).sum()) for x in (after_k, after_p))
    best = int(distribution(logits, sampling).argmax())
    drawing = Drawing("Writing is a loop: each turn chooses one id and appends it")
    text = drawing.tensor("ids", (0.65, 0.6), shape={"B": 1, "T": len(ids)})
    llama = drawing.step("Llama", (2.25, 0.6), does="weights", detail="reads new tokens")
    drawing.arrow(text, llama)
    cache = drawing.step("KV cache", (2.25, 1.75), does="memory", detail="tokens read before")
    drawing.arrow((2.05, llama.bottom[1]), (2.05, cache.top[1]))
    drawing.arrow((2.45, cache.top[1]), (2.45, llama.bottom[1]))
    scores = drawing.tensor("logits", (4.2, 0.6), shape={"B": 1, "V": logits.shape[1]})
    drawing.arrow(llama, scores, label="last token")
    heat = drawing.step("÷ temperature", (6.1, 0.6), detail=f"{sampling.temperature:g}")
    drawing.arrow(scores, heat)
    top_k = drawing.step("top-k", (7.9, 0.6), does="choice",
                         detail=f"k = {sampling.top_k}:\n{n_k:,} of {logits.shape[1]:,} left")
    drawing.arrow(heat, top_k)
    top_p = drawing.step("top-p", (7.9, 1.9), does="choice",
                         detail=f"p = {sampling.top_p:g}:\n{n_p:,} left")
    drawing.arrow(top_k, top_p)
    draw = drawing.step("draw one", (6.1, 1.9), does="choice",
                        detail="by its probability,\n"
                               f'most likely "{letters(tokenizer.decode_bytes([best]))}"')
    drawing.arrow(top_p, draw)
    names = {i: name for name, i in tokenizer.special_ids.items()}
    stops = " or ".join(sorted(names[i] for i in tokenizer.stop_ids))
    stop = drawing.step("stop?", (4.2, 1.9), does="focus", detail="or go on")
    drawing.arrow(draw, stop)
    drawing.note(f"It stops at {stops}, after max_tokens = {max_tokens},\n"
                 f"or when the context of {model.config.max_seq_len:,} tokens is full.",
                 (2.9, 2.85))
    drawing.arrow(stop, (stop.x, 2.5), (text.x, 2.5), text, color=ORANGE, label="append")
    return drawing.figure(
        f"Of {logits.shape[1]:,} ids, top-k leaves {n_k:,} and top-p leaves {n_p:,}. One of them "
        "is drawn and appended. The next turn reads only this id; the cache has the earlier ones.")


def prefill_and_decode(
    model: Llama, tokenizer: Tokenizer, *, prompt: str, n_tokens: int = 3
) -> Figure:
    """Draws one pass for the whole prompt, then one pass per token: its tokens, and its cost.

    A pass reads every weight once, for any number of tokens. The model really writes the tokens,
    greedily. Raises ValueError if they do not fit on a page.

    Example: `writing.prefill_and_decode(model, tokenizer, prompt="Once upon a time")`
    """
    ids = tokenizer.encode(prompt)
    if not 0 < len(ids) <= _MAX_TOKENS - n_tokens:
        raise ValueError(f"this drawing needs a prompt of 1 to {_MAX_TOKENS - n_tokens} tokens; "
                         f"got {len(ids)}. Change the prompt")
    cache = model.new_cache(batch_size=1, max_seq_len=len(ids) + n_tokens)
    n_weights = model.config.n_params
    rows, new, texts = [], ids, []
    for _ in range(n_tokens + 1):
        n_before = len(texts)
        texts += [letters(tokenizer.decode_bytes([i])) for i in new]
        rows.append((n_before, len(texts)))
        with torch.inference_mode():
            new = [int(model(torch.tensor([new]), cache=cache)[0, -1].argmax())]
    drawing = Drawing("Prefill reads the prompt at once; decode reads one token at a time")
    pitch = 0.6
    for number, (n_before, n_after) in enumerate(rows):
        y = 0.5 * number
        drawing.note(f"pass {number + 1}: {'decode' if number else 'prefill'}", (0.05, y))
        for place in range(n_after):
            is_fed = place >= n_before
            drawing.cell(texts[place], (1.75 + pitch * place, y), width=pitch - 0.06,
                         color=TINTS[1] if is_fed else TINTS[0])
        n_fed = n_after - n_before
        drawing.note(f"reads {n_weights:,} weights\nfor {n_fed} token{'s' * (n_fed > 1)}",
                     (1.75 + pitch * len(texts) - 0.2, y))
    drawing.key({"read in this pass": TINTS[1], "in the cache": TINTS[0]},
                (1.48, 0.5 * len(rows)))
    return drawing.figure(
        f"Each of the {len(rows)} passes reads all {n_weights:,} weights. The prefill does it for "
        f"{len(ids)} tokens, a decode step for one. So memory, not arithmetic, limits decoding.")

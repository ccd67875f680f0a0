"""Draws the KV cache over three steps of writing: what is new, and what is kept.

Notebooks 13 and 16.
"""

import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import ORANGE, TINTS
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

_PITCH = 0.46
_MAX_TOKENS = 12


def grows(model: Llama, tokenizer: Tokenizer, *, prompt: str, n_steps: int = 3) -> Figure:
    """Draws the queries and the rows of the cache after the prompt and after each new token.

    The model really writes the tokens, greedily. Raises ValueError if they do not fit on a page.

    Example: `cache.grows(model, tokenizer, prompt="Once upon a")`
    """
    ids = tokenizer.encode(prompt)
    if not 0 < len(ids) <= _MAX_TOKENS + 1 - n_steps:
        raise ValueError(f"this drawing needs a prompt of 1 to {_MAX_TOKENS + 1 - n_steps} tokens; "
                         f"got {len(ids)}. Change the prompt")
    kept = model.new_cache(batch_size=1, max_seq_len=len(ids) + n_steps)
    drawing = Drawing("The KV cache grows by what is new; queries are used once")
    new, n_fed, y = ids, 0, 0.0
    for step in range(n_steps):
        with torch.inference_mode():
            logits = model(torch.tensor([new]), cache=kept)
        n_before, S = n_fed, kept.layers[0].length
        n_fed += len(new)
        assert S == n_fed
        fed = "one token" if step else "the prompt"
        drawing.note(f"step {step + 1}\n{fed}", (0.05, y + 0.36))
        for words, top in (("queries", y), ("keys", y + 0.4), ("values", y + 0.72)):
            drawing.note(words, (1.15, top))
        for place in range(S):
            x = 2.2 + _PITCH * place
            is_new = place >= n_before
            if is_new:
                drawing.cell(f"q{place}", (x, y), color=TINTS[1], width=0.4)
            for name, top in (("k", y + 0.4), ("v", y + 0.72)):
                drawing.cell(f"{name}{place}", (x, top), width=0.4,
                             color=ORANGE if is_new else TINTS[0])
        chosen = int(logits[0, -1].argmax())
        x = 2.2 + _PITCH * (S - 1)
        word = letters(tokenizer.decode_bytes([chosen]))
        drawing.note(f'→ writes "{word}"', (x + 0.3, y))
        new, y = [chosen], y + 1.3
    drawing.key({"query": TINTS[1], "new in the cache": ORANGE, "kept": TINTS[0]},
                (2.0, y - 0.2))
    return drawing.figure(
        f"The prompt puts {len(ids)} rows into the cache at once. Each later step has one query "
        "and adds one key and one value. Blue boxes are read again, but not computed again.")

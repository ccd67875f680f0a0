"""Shows the next token's probabilities before and after temperature, top-k, top-p and min-p.

Used by the chapter on generation (16).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.generate.sampling import Sampling, distribution
from llama_from_scratch.lessons.figures.look import BLUE
from llama_from_scratch.lessons.views.text import encode, names_of
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


def sampling(model: Llama, tokenizer: Tokenizer, *, text: str) -> Explorer:
    """Returns a widget of the next token's probabilities before and after the dials of sampling."""
    def draw(text: str, temperature: float, top_k: int, top_p: float, min_p: float) -> Figure:
        ids = encode(model, tokenizer, text=text)
        with torch.no_grad():
            logits_V = model(torch.tensor([ids], device=model.device))[0, -1].cpu()
        dials = Sampling(
            temperature=temperature, top_k=top_k or None, top_p=top_p if top_p < 1 else None,
            min_p=min_p or None)
        names = names_of(tokenizer, logits_V.topk(min(14, len(logits_V))).indices.tolist())
        return sampling_frame(logits_V, dials, names=names, after=text)

    top_k = {"off": 0} | {str(k): k for k in (100, 50, 20, 10, 5, 3, 2, 1)}
    return explore(draw, title="What may come next?", controls={
        "text": text, "temperature": (0.0, 2.0, 1.0), "top_k": top_k, "top_p": (0.05, 1.0, 1.0),
        "min_p": (0.0, 0.5)},
        labels={"temperature": "temperature (divides logits)", "top_k": "top-k (tokens kept)",
                "top_p": "top-p (probability kept)", "min_p": "min-p (share of the largest)"})


def sampling_frame(
    logits: Float[Tensor, "V"], sampling: Sampling, *, names: Sequence[str], after: str
) -> Figure:
    """Draws bars for the most likely tokens, whose names are `names`.

    Gray bars are the model's own probabilities; blue bars are the ones that tokens are drawn from.
    """
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
    ax.set(ylabel="probability",
           ylim=(0, max(1.05 * probs_V.max().item(), 1.05 * own_V.max().item())))
    end = after.replace("\n", " ")
    ax.set_title(f"{'…' if len(end) > 40 else ''}{end[-40:]} ?", parse_math=False)
    ax.legend(title=f"{len(kept_V):,} of {len(logits):,} tokens possible\nentropy {bits:.1f} bits",
              title_fontsize=11)
    told = ", ".join(f"“{name}” {prob:.0%}"
                     for name, prob in zip(names[:5], probs_V[order[:5]].tolist(), strict=True))
    fig.set_label(f"{len(kept_V):,} of {len(logits):,} tokens can be drawn, entropy {bits:.1f} "
                  f"bits. Most likely: {told}.")
    return fig

"""Draws what changed in each part of a Llama from generation to generation.

Notebook 15.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from matplotlib.figure import Figure

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import TINTS

NAMES = ("llama-1-7b", "llama-2-7b", "llama-3-8b", "llama-3.1-8b", "llama-3.2-1b")


def _rope(config: LlamaConfig) -> str:
    scaling = config.rope_scaling
    return f"θ = {config.rope_theta:,.0f}" + (f"\nscaled × {scaling.factor:g}" if scaling else "")


PARTS: Mapping[str, Callable[[LlamaConfig], str]] = MappingProxyType({
    "embedding": lambda c: f"V = {c.vocab_size:,}",
    "stream": lambda c: f"D = {c.dim:,}\nL = {c.n_layers}",
    "attention": lambda c: f"H = {c.n_heads}\nG = {c.n_kv_heads}",
    "RoPE": _rope,
    "feed-forward": lambda c: f"F = {c.ffn_dim:,}",
    "norms": lambda c: f"eps = {c.norm_eps:g}",
    "head": lambda c: "the embedding" if c.is_tied else "its own",
    "context": lambda c: f"{c.max_seq_len:,}",
})
"""Part of the model -> the function that describes it, given a config."""


def parts(names: Sequence[str] = NAMES) -> Figure:
    """Draws a row for each part and a column for each model.

    An entry that differs from the one to its left is colored. `names`: up to 5 published models,
    oldest first.

    Example: `generations.parts()`
    """
    configs = [family.config(name) for name in names]
    drawing = Drawing("The same parts in every generation; numbers change")
    for column, name in enumerate(names):
        drawing.note(name, (2.0 + 1.48 * column, 0.0), align="center")
    n_changed, y = 0, 0.35
    for part, words_of in PARTS.items():
        texts = [words_of(config) for config in configs]
        height = 0.5 if any("\n" in text for text in texts) else 0.32
        middle = y + height / 2
        drawing.note(part, (0.05, middle))
        for column, text in enumerate(texts):
            is_changed = column > 0 and text != texts[column - 1]
            n_changed += is_changed
            drawing.cell(text, (2.0 + 1.48 * column, middle), width=1.4, height=height,
                         color=TINTS[1] if is_changed else "white")
        y += height + 0.08
    drawing.key({"differs from the model to its left": TINTS[1]}, (1.3, y + 0.1))
    return drawing.figure(
        f"In {len(names) - 1} steps {n_changed} entries change, but no part is new. Only the "
        "numbers differ between generations.")

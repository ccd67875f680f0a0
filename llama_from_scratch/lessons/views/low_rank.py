"""What is left of a tuning if only its first directions are kept, matrix by matrix.

Used by the chapter on low-rank adapters (51).
"""

import copy
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLUE
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune import evals
from llama_from_scratch.tune.adapters.bases import linear_layers

_WIDTH_LETTERS = 76


def kept_directions(
    base: Llama, tuned: Llama, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate, *,
    requests: Sequence[str], ranks: Sequence[int] = (0, 1, 2, 4, 8, 16, 32, 96)
) -> Explorer:
    """Returns a widget: the answers of `base` with the first directions of its change to `tuned`.

    With 0 directions it is `base` in its blocks, with all of them `tuned`. Whatever is not a matrix
    of a block is taken from `tuned`. `ranks`: those that can be chosen.
    """
    truncated = Truncated(base, tuned)

    def draw(request: str, rank: int) -> Figure:
        model, share = truncated.at(rank)
        [answer] = evals.ask(model, tokenizer, [request], format)
        return kept_directions_frame(request, answer, rank=rank, share=share)

    return explore(draw, title="How many directions does the new skill need?",
                   controls={"request": list(requests), "rank": [*ranks]},
                   labels={"rank": "directions kept of each change"}, start={"rank": ranks[1]})


class Truncated:
    """A model between two others: a base, and of its change to a tuned one the first directions."""

    def __init__(self, base: Llama, tuned: Llama) -> None:
        self._model = copy.deepcopy(tuned)
        before, after = linear_layers(base), linear_layers(tuned)
        self._layers = {name: layer for name, layer in linear_layers(self._model).items()
                        if name.startswith("layers.")}
        self._base = {name: before[name].weight.detach() for name in self._layers}
        self._changes = {name: torch.linalg.svd(after[name].weight.detach() - self._base[name],
                                                full_matrices=False) for name in self._layers}

    @torch.no_grad()
    def at(self, rank: int) -> tuple[Llama, float]:
        """Returns the model with `rank` directions of each change, and their share of the change.

        The share counts the squared length of all changes together. The model is always the same
        object.
        """
        kept = total = 0.0
        for name, layer in self._layers.items():
            u, values, v = self._changes[name]
            layer.weight.copy_(self._base[name] + (u[:, :rank] * values[:rank]) @ v[:rank])
            kept += float(values[:rank].square().sum())
            total += float(values.square().sum())
        return self._model, kept / total if total else 1.0


def kept_directions_frame(request: str, answer: str, *, rank: int, share: float) -> Figure:
    """Draws the share of the change that is kept, the request and the answer."""
    asked = textwrap.wrap(request.strip(), _WIDTH_LETTERS)
    told = textwrap.wrap(answer, _WIDTH_LETTERS) or ["(nothing)"]
    n_lines = len(asked) + len(told)
    fig, (bar, words) = plt.subplots(2, 1, figsize=(9, 1.4 + 0.3 * n_lines), layout="none",
                                     height_ratios=(0.28, 0.3 * n_lines + 0.2))
    fig.subplots_adjust(left=0.02, right=0.98, top=0.84, bottom=0.02, hspace=0.75)
    bar.barh([0], [1], color="0.9")
    bar.barh([0], [share], color=BLUE)
    bar.set(xlim=(0, 1), yticks=[], xticks=[0, 0.5, 1])
    bar.set_xticklabels(["0 %", "50 %", "100 % of the change"], ha="center")
    bar.get_xticklabels()[0].set_ha("left")
    bar.get_xticklabels()[-1].set_ha("right")
    bar.spines[:].set_visible(False)
    kept = f"{rank} direction{'s' * (rank != 1)} of each change"
    bar.set_title(f"{kept}: {share:.0%} of it")
    words.set(xlim=(0, 1), ylim=(n_lines + 0.2, -0.6))
    words.axis("off")
    for y, line in enumerate([*asked, *told]):
        is_first = y in (0, len(asked))
        if is_first:
            words.text(0.0, y, "user" if y == 0 else "model", weight="bold", fontsize=12,
                       va="center")
        words.text(0.09, y, line, fontsize=12, va="center", parse_math=False)
    fig.set_label(f"With {kept} ({share:.0%} of it), the model answers “{answer}” to "
                  f"“{request.strip()}”.")
    return fig

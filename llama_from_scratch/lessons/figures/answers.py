"""Pictures of what is learned: the tokens of answers, rows of dialogs, and what is held out.

Notebook 50.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_from_scratch.lessons.figures.dialogs import Look, id_boxes
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, TINTS
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tune.evals import Share
from llama_from_scratch.tune.rows import Rows, TokenExample
from llama_from_scratch.tune.world.words import NAMES, THINGS, is_held_out

_LEARNED, _READ, _SPECIAL = TINTS[1], "0.9", "0.45"


def learned(
    example: TokenExample, tokenizer: Tokenizer | SentencePiece, *, title: str
) -> Figure:
    """Draws every id of a dialog as a box, and colors those that are learned.

    Example: `answers.learned(rows.example_of(dialog, tokenizer, format), tokenizer, title="...")`
    """
    special = set(tokenizer.special_ids.values())
    grounds = [_LEARNED if is_learned else _READ for is_learned in example.is_learned]
    looks = [Look(ground=ground, edge=_SPECIAL if i in special else ground)
             for i, ground in zip(example.ids, grounds, strict=True)]
    key = [Patch(color=_LEARNED, label="learned"), Patch(color=_READ, label="read"),
           Patch(facecolor="white", edgecolor=_SPECIAL, label="special token")]
    fig = id_boxes(example.ids, tokenizer, looks=looks, key=key, title=title, columns=68)
    fig.set_label(f"{title}: {len(example.ids)} ids, of which {sum(example.is_learned)} are "
                  "learned: what the assistant says, and the token that ends it.")
    return fig


def rows(data: Rows, *, n_dialogs: int, seq_len: int) -> Figure:
    """Draws the first dialogs as padded rows, and below them the same dialogs as packed rows.

    Learned tokens are orange, read ones gray. What is white up to the dotted line is padding.

    Example: `answers.rows(Rows(examples, tokenizer), n_dialogs=12, seq_len=160)`
    """
    padded = next(data.in_order(batch_size=n_dialogs, seq_len=seq_len))
    first = Rows(data.examples[:n_dialogs], data.tokenizer, is_packed=True)
    packed = first.batch(0, batch_size=n_dialogs, seq_len=seq_len, seed=0)
    n_rows = [len(padded.ids), len(packed.ids)]
    fig, axes = plt.subplots(2, 1, figsize=(9, 1.6 + 0.22 * sum(n_rows)), sharex=True,
                             height_ratios=n_rows)
    shares = []
    for ax, batch, name in ((axes[0], padded, "Padded: one dialog in a row"),
                            (axes[1], packed, "Packed: dialogs that do not see each other")):
        cells = np.full((len(batch.ids), seq_len), np.nan)
        for b, (targets, documents) in enumerate(
                zip(batch.targets.tolist(), batch.documents.tolist(), strict=True)):
            for t in range(_n_real(targets)):
                cells[b, t] = targets[t] >= 0
                if t and documents[t] != documents[t - 1]:
                    ax.plot([t - 0.5, t - 0.5], [b - 0.5, b + 0.5], color=BLUE, lw=1.8)
        ax.imshow(cells, aspect="auto", cmap=ListedColormap(["0.82", ORANGE]), vmin=0, vmax=1)
        width = batch.ids.shape[1]
        shares.append(np.isfinite(cells[:, :width]).mean())
        ax.plot([width - 0.5, width - 0.5], [-0.5, len(cells) - 0.5], color="0.5", ls=":", lw=1.4)
        ax.set(title=name, ylabel="row", yticks=[0, len(cells) - 1])
    axes[1].set(xlabel="token in the row", xlim=(-0.5, seq_len - 0.5))
    fig.set_label(f"Of the padded rows {shares[0]:.0%} are tokens of dialogs, of the packed ones "
                  f"{shares[1]:.0%}. Orange tokens are learned, gray ones are read; a blue line "
                  "begins another dialog.")
    return fig


def _n_real(targets: Sequence[int]) -> int:
    """Returns how many tokens of a row belong to dialogs: up to the last learned one."""
    return max((t + 1 for t, target in enumerate(targets) if target >= 0), default=0)


def held_out() -> Figure:
    """Draws all pairs of an owner and a thing, and which of them training never shows.

    Example: `answers.held_out()`
    """
    is_held = np.array([[is_held_out(name, thing) for name in NAMES] for thing in THINGS])
    fig, ax = plt.subplots(figsize=(9, 4.6))
    ax.imshow(is_held, cmap=ListedColormap([TINTS[0], ORANGE]), aspect="auto")
    ax.set_xticks(range(len(NAMES)), NAMES, rotation=90)
    ax.set_yticks(range(len(THINGS)), THINGS)
    ax.set_xticks(np.arange(len(NAMES) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(THINGS) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set(title="Who has what: orange pairs are never trained")
    fig.set_label(f"{int(is_held.sum())} of {is_held.size} pairs of an owner and a thing are held "
                  "out. Each name and each thing occurs in many pairs that are trained.")
    return fig


def shares(series: Mapping[str, Mapping[str, Share]], *, title: str) -> Figure:
    """Draws bars of shares in percent, with two standard errors up and down.

    `series`: for each color, such as "before" and "after", the shares by name.

    Example: `answers.shares({"before": {"single": evals.Share(n_right=8, n=10)}}, title="...")`
    """
    names = list(next(iter(series.values())))
    fig, ax = plt.subplots(figsize=(8, 3.2))
    width = 0.8 / len(series)
    for i, (name, found) in enumerate(series.items()):
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
        ax.bar(places, [100 * found[each].value for each in names], width=0.92 * width,
               yerr=[200 * found[each].error for each in names], label=name, ecolor="0.3",
               capsize=4)
    ax.set_xticks(range(len(names)), names)
    ax.set(title=title, ylabel="percent", ylim=(0, 112), yticks=range(0, 101, 25))
    if len(series) > 1:
        fig.legend(loc="outside lower center", ncols=len(series))
    fig.set_label("; ".join(
        f"{name}: " + ", ".join(f"{each} {found[each]}" for each in names)
        for name, found in series.items()))
    return fig

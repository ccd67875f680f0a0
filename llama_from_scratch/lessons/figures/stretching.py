"""Pictures of longer contexts: angles never seen, needles found, and bits per byte by position.

Notebook 25.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.look import BLUE, ORANGE

_UNSEEN = "#F2B48F"


def turns(ways: Mapping[str, Tensor], *, trained: int, asked: int) -> Figure:
    """Draws how far each pair turns within `asked` tokens, and what training with `trained` showed.

    `ways`: the frequencies (R,) by a name; the first belong to the training. A pair that made a
    whole turn has shown all its angles. The others have shown what is below the end of their gray
    bar.

    Example: `stretching.turns({"as trained": model.rope.freq_R}, trained=64, asked=256)`
    """
    first = next(iter(ways.values()))
    n_pairs = len(first)
    fig, axes = plt.subplots(1, len(ways), figsize=(9.5, 3.4), sharey=True, squeeze=False)
    seen = [float(f) * trained / (2 * math.pi) for f in first]
    counts = []
    for ax, (name, freqs) in zip(axes[0], ways.items(), strict=True):
        reached = [float(f) * asked / (2 * math.pi) for f in freqs]
        ax.bar(range(n_pairs), seen, color="0.82", width=0.8)
        is_new = [s < 1 and r > s * 1.001 for s, r in zip(seen, reached, strict=True)]
        ax.scatter(range(n_pairs), reached, s=26, zorder=3,
                   c=[_UNSEEN if new else BLUE for new in is_new], edgecolors="0.25", lw=0.7)
        ax.axhline(1, color="0.4", lw=1, ls="--")
        ax.set(title=name, xlabel="pair", yscale="log", ylim=(2e-2, 60))
        counts.append(f"{name}: {sum(is_new)}")
    axes[0, 0].set_ylabel("turns")
    fig.set_label(f"Bars: the turns of each pair in {trained} tokens, in training. Dots: in "
                  f"{asked} tokens. Pairs that reach angles never seen, by way: "
                  f"{', '.join(counts)} of {n_pairs}.")
    return fig


def distances(texts: Mapping[str, Int[Tensor, "B T"]], *, trained: int) -> Figure:
    """Draws how far back the latest occurrence of each key is that is asked for.

    `texts`: pairs of keys and values, keys at even places, by the name of their kind. `trained`: a
    line at this distance.

    Example: `stretching.distances({"pairs": ids}, trained=64)`
    """
    fig, axes = plt.subplots(1, len(texts), figsize=(9.5, 3), sharey=True, squeeze=False)
    told = []
    for ax, (name, ids) in zip(axes[0], texts.items(), strict=True):
        found = [d for row in ids[:, ::2].tolist() for d in _latest(row)]
        edges = range(0, ids.shape[1] + 16, 16)
        weights = [100 / len(found)] * len(found)
        ax.hist(found, bins=edges, weights=weights, color=BLUE, edgecolor="white")
        ax.axvline(trained, color=ORANGE, lw=2, ls="--")
        ax.set(title=name, xlabel="tokens back")
        far = sum(d > trained for d in found) / len(found)
        told.append(f"{name}: {far:.0%} are more than {trained} tokens back")
    axes[0, 0].set_ylabel("percent of keys asked for")
    fig.set_label("; ".join(told) + ".")
    return fig


def _latest(keys: Sequence[int]) -> list[int]:
    """Returns, for each key that came before, how many tokens ago it came last."""
    last: dict[int, int] = {}
    found = []
    for place, key in enumerate(keys):
        if key in last:
            found.append(2 * (place - last[key]))
        last[key] = place
    return found


def needles(
    maps: Mapping[str, Sequence[Sequence[float]]], *, lengths: Sequence[int], trained: int
) -> Figure:
    """Draws maps of needles side by side: lengths downwards, depths to the right.

    `maps`: from `train.recall.needle_map`, by the name of the model. Lengths above `trained` tokens
    have a bold number.

    Example: `stretching.needles({"as trained": found}, lengths=(64, 256), trained=64)`
    """
    n_depths = len(next(iter(maps.values()))[0])
    fig, axes = plt.subplots(1, len(maps), figsize=(9.5, 0.9 + 0.55 * len(lengths)), sharey=True,
                             squeeze=False)
    for ax, (name, found) in zip(axes[0], maps.items(), strict=True):
        ax.imshow(found, vmin=0, vmax=1, aspect="auto", cmap="viridis")
        for i, row in enumerate(found):
            for j, share in enumerate(row):
                ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=11,
                        color="black" if share > 0.6 else "white")
        ax.set(title=name, xticks=[0, n_depths - 1])
        ax.set_xticklabels(["begin", "end"])
        ax.spines[:].set_visible(False)
    first = axes[0, 0]
    first.set_yticks(range(len(lengths)), [f"{n:,}" for n in lengths])
    for label, n_tokens in zip(first.get_yticklabels(), lengths, strict=True):
        label.set_fontweight("bold" if n_tokens > trained else "normal")
    first.set_ylabel("tokens in the text")
    longest = ", ".join(f"{name} {100 * sum(found[-1]) / n_depths:.0f} %"
                        for name, found in maps.items())
    fig.set_label(f"Percent of needles found, by the length of the text and by where the needle "
                  f"is. In the longest texts: {longest}.")
    return fig


def bits(curves: Mapping[str, Sequence[float]], *, edges: Sequence[int], trained: int) -> Figure:
    """Draws bits per byte against the position in the text.

    `curves`: from `train.long_context.bits_by_position`, by the name of the model. `edges`: of the
    parts. `trained`: a line at this position.

    Example: `stretching.bits({"base": [0.5, 3.4]}, edges=(0, 256, 1024), trained=256)`
    """
    fig, ax = plt.subplots(figsize=(9, 3.8))
    for name, curve in curves.items():
        ax.stairs(curve, edges, label=name, baseline=None, lw=2.4)
    ax.axvline(trained, color="0.5", lw=1, ls="--")
    top = 1.1 * max(value for curve in curves.values() for value in curve)
    ax.set(xlabel="position of the token", ylabel="bits per byte", ylim=(0, top),
           title="How surprising the text is, by position")
    fig.legend(loc="outside right upper")
    ends = ", ".join(f"{name} {curve[-1]:.2f}" for name, curve in curves.items())
    fig.set_label(f"Training ended at position {trained}. Bits per byte of the last part: {ends}.")
    return fig

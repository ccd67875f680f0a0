"""Draws who attends to whom when the tokens of a row are on several ranks, and who works when.

Every picture is made from the library's own rules: `model.mask` for one process, and
`parallel.context` for the ranks.

Notebook 45.
"""

from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.flow import Drawing
from llama_from_scratch.lessons.figures.look import CLEAR, TINTS, hatch_hidden
from llama_from_scratch.model.mask import Tokens, Visible
from llama_from_scratch.parallel.context.pieces import places, refuse_uncut
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks

Cut = Literal["contiguous", "zig-zag"]
CUTS: tuple[Cut, ...] = ("contiguous", "zig-zag")
MAX_RANKS = 4
_COLORS = TINTS[:MAX_RANKS]


def pieces(*, n_ranks: int, n_tokens: int = 64) -> Figure:
    """Draws which rank holds which piece of a row, both ways, and its share of the visible pairs.

    Raises ValueError for fewer than 2 ranks or more than 4.

    Example: `context.pieces(n_ranks=4)`
    """
    _refuse_ranks(n_ranks)
    drawing, width, first = Drawing("Which rank holds which tokens of a row"), 0.62, 1.75
    for i, cut in enumerate(CUTS):
        y = 0.35 + 1.05 * i
        drawing.note(cut, (0.1, y))
        ranks = ranks_of_tokens(n_tokens, n_ranks, cut).view(2 * n_ranks, -1)[:, 0].tolist()
        for piece, rank in enumerate(ranks):
            drawing.cell(f"{rank}", (first + width * piece, y), color=TINTS[rank], width=width,
                         height=0.4)
        shares = pairs_of_ranks(mask_of(n_tokens), ranks_of_tokens(n_tokens, n_ranks, cut), n_ranks)
        total = sum(shares)
        drawing.note("work: " + ", ".join(f"rank {rank} {100 * n / total:.0f} %"
                                          for rank, n in enumerate(shares)),
                     (first - width / 2, y + 0.42))
    return drawing.figure(
        "Each box is a piece of the row, and the number is the rank that holds it. Work is the "
        "share of the pairs of a query and a key that it may see. Contiguous pieces leave most of "
        "it to the last rank; zig-zag gives every rank the same.")


def sight(
    *, n_ranks: int, cut: Cut = "zig-zag", documents: Sequence[int] = (24,),
    chunk_size: int | None = None,
) -> Figure:
    """Draws the mask of a row, in the color of the rank that has the query, and each rank's work.

    `documents`: the lengths of the documents in the row. `chunk_size`: of a layer with chunks.
    Raises ValueError for a number of ranks that is not 2 to 4, and for a row that cannot be cut.

    Example: `context.sight(n_ranks=2, documents=(10, 14))`
    """
    _refuse_ranks(n_ranks)
    refuse_uncut(sum(documents), n_ranks)
    mask_SS = mask_of(*documents, chunk_size=chunk_size)
    ranks_S = ranks_of_tokens(sum(documents), n_ranks, cut)
    pairs = pairs_of_ranks(mask_SS, ranks_S, n_ranks)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 4.0), width_ratios=(1.25, 1))
    _draw_ranks(left, torch.where(mask_SS, ranks_S[:, None].double(), torch.nan))
    left.set(xlabel="key s", ylabel="query t", title=f"{cut}, {n_ranks} ranks")
    bars = right.barh([f"rank {rank}" for rank in range(n_ranks)], pairs, height=0.6,
                      color=_COLORS[:n_ranks])
    right.bar_label(bars, padding=4, fontsize=11)
    right.invert_yaxis()
    right.set(xlim=(0, 1.2 * max(pairs)), xlabel="pairs of a query and a key",
              title="What each rank computes")
    right.locator_params(axis="x", nbins=4)
    busiest = max(pairs) * n_ranks / sum(pairs)
    fig.set_label(
        f"Each colored cell is a pair that may be seen; its color is the rank that has the query. "
        f"The ranks compute {', '.join(map(str, pairs))} of {sum(pairs)} pairs. All wait for the "
        f"busiest, which has {busiest:.2f} times an even share.")
    return fig


def steps(*, n_ranks: int) -> Figure:
    """Draws what each rank computes in each step of the ring, piece by piece, for one document.

    Raises ValueError for fewer than 2 ranks or more than 4.

    Example: `context.steps(n_ranks=3)`
    """
    _refuse_ranks(n_ranks)
    n = 2 * n_ranks
    fig, axes = plt.subplots(1, n_ranks, figsize=(2.1 * n_ranks + 0.7, 2.9), sharey=True)
    for step, ax in enumerate(axes):
        who = torch.full((n, n), torch.nan, dtype=torch.float64)
        for rank in range(n_ranks):
            for query, key in blocks_in_step(step, rank=rank, n_ranks=n_ranks):
                who[query, key] = rank
        _draw_ranks(ax, who, has_numbers=True)
        ax.set(title=f"step {step}", xlabel="piece of keys")
        ax.set_xticks(range(n), range(n))
        ax.set_yticks(range(n), range(n))
    axes[0].set_ylabel("piece of queries")
    fig.set_label(
        f"In each of {n_ranks} steps every rank, named by number and color, computes with the keys "
        "that it has then. No block is computed twice, and those above the diagonal never. In "
        "every step all ranks have equally much to do.")
    return fig


# --- what is drawn --------------------------------------------------------------------------------


def mask_of(*documents: int, chunk_size: int | None = None) -> Bool[Tensor, "S S"]:
    """Returns what one process would see: documents of these lengths in one row."""
    numbers = torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(documents))
    positions = torch.cat([torch.arange(n) for n in documents])
    tokens = Tokens(positions=positions[None], documents=numbers[None], is_plain=False)
    return Visible(tokens=tokens, n_queries=len(numbers), chunk_size=chunk_size).mask[0, 0]


def ranks_of_tokens(n_tokens: int, n_ranks: int, cut: Cut) -> Int[Tensor, "S"]:
    """Returns the rank that holds each token of a row."""
    if cut == "contiguous":
        return torch.arange(n_tokens) * n_ranks // n_tokens
    found = torch.empty(n_tokens, dtype=torch.int64)
    for rank in range(n_ranks):
        found[places(n_tokens, rank=rank, n_ranks=n_ranks)] = rank
    return found


def pairs_of_ranks(
    mask_SS: Bool[Tensor, "S S"], ranks_S: Int[Tensor, "S"], n_ranks: int
) -> list[int]:
    """Returns how many visible pairs the queries of each rank have."""
    return [int(mask_SS[ranks_S == rank].sum()) for rank in range(n_ranks)]


def blocks_in_step(step: int, *, rank: int, n_ranks: int) -> list[tuple[int, int]]:
    """Returns the pieces of queries and keys that a rank of the ring brings together in a step."""
    tokens = Tokens(positions=torch.arange(2 * n_ranks)[None], documents=None, is_plain=False)
    mine = VisibleAcrossRanks(tokens=tokens, rank=rank, n_ranks=n_ranks)
    theirs = VisibleAcrossRanks(tokens=tokens, rank=(rank - step) % n_ranks, n_ranks=n_ranks)
    return [(query, key) for query in mine.own_pieces for key in theirs.own_pieces
            if key in mine.pieces_seen(query)]


def _draw_ranks(ax: Axes, who: Tensor, *, has_numbers: bool = False) -> None:
    """Draws a matrix of ranks in their colors; NaN is hatched."""
    ax.imshow(who.numpy(), vmin=-0.5, vmax=len(_COLORS) - 0.5,
              cmap=ListedColormap(_COLORS).with_extremes(bad=CLEAR))
    hatch_hidden(ax)
    ax.spines[:].set_visible(False)
    for row, column in who.isfinite().nonzero().tolist() if has_numbers else ():
        ax.text(column, row, f"{int(who[row, column])}", ha="center", va="center", fontsize=11)


def _refuse_ranks(n_ranks: int) -> None:
    if not 2 <= n_ranks <= MAX_RANKS:
        raise ValueError(f"the picture has colors for 2 to {MAX_RANKS} ranks; got {n_ranks}")

"""Zig-zag: which tokens of each row a rank holds, so that all ranks have equally much to do.

A late token sees more tokens than an early one. With n ranks the tokens are cut into 2n equal
pieces, and rank i holds the pieces i and 2n - 1 - i: one early, one late. The targets are made
before the cut, so a target at the border of a piece is right even though another rank holds it.

    4 ranks, 8 pieces:   0 1 2 3 3 2 1 0   (the rank of each piece)

Notebook 45. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.model.mask import PADDING
from llama_from_scratch.parallel import differentiable
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.protocols import StepBatch


def own_pieces(rank: int, n_ranks: int) -> tuple[int, int]:
    """Returns the numbers of a rank's two pieces, in the order in which it holds them."""
    return rank, 2 * n_ranks - 1 - rank


def refuse_uncut(seq_len: int, n_ranks: int) -> None:
    """Raises ValueError if rows of this length cannot be cut into 2 x `n_ranks` equal pieces.

    One rank holds whole rows of any length.
    """
    n = 2 * n_ranks
    if n_ranks > 1 and (seq_len % n or seq_len < n):
        lower, higher = seq_len // n * n, (seq_len // n + 1) * n
        lengths = f"{lower} or {higher}" if lower else f"{higher}"
        raise ValueError("context parallelism cuts each row into 2 x cp equal pieces; got "
                         f"seq_len={seq_len} for cp={n_ranks}, which is {n} pieces. Choose "
                         f"seq_len={lengths}, or another cp; a single batch can be lengthened with "
                         f"padded(batch, {n_ranks})")


def places(seq_len: int, *, rank: int, n_ranks: int) -> Int[Tensor, "T"]:
    """Returns the places in the whole row of the tokens that a rank holds, in its order.

    Raises ValueError if the row cannot be cut.
    """
    refuse_uncut(seq_len, n_ranks)
    if n_ranks == 1:
        return torch.arange(seq_len)
    pieces = torch.arange(seq_len).view(2 * n_ranks, -1)
    return pieces[list(own_pieces(rank, n_ranks))].flatten()


def tokens_of(batch: StepBatch, group: RankGroup) -> StepBatch:
    """Returns this rank's tokens of a batch that all ranks of the group have.

    Its positions, documents and targets are made for the whole rows. A rank alone has the batch
    itself, of whatever kind. Raises ValueError if the rows cannot be cut.
    """
    if group.size == 1:
        return batch
    own_T = places(batch.ids.shape[1], rank=group.rank, n_ranks=group.size).to(batch.ids.device)
    return Batch(**{name: getattr(batch, name).index_select(1, own_T)
                    for name in Batch.__dataclass_fields__})


def padded(batch: Batch, n_ranks: int) -> Batch:
    """Returns the batch with padding at the end of its rows, so that `n_ranks` ranks can cut it.

    No token sees the padding, and it has no targets. Some padding is on one rank, so work is less
    even; this is for the last, shorter window of an evaluation.
    """
    n_missing = -batch.ids.shape[1] % (2 * n_ranks) if n_ranks > 1 else 0
    if n_missing == 0:
        return batch
    fill = dict(ids=0, targets=IGNORE, documents=PADDING, positions=0)
    return Batch(**{name: F.pad(getattr(batch, name), (0, n_missing), value=value)
                    for name, value in fill.items()})


def in_order(
    parts: Shaped[Tensor, "*whole"], *, n_ranks: int, axis: int
) -> Shaped[Tensor, "*whole"]:
    """Returns the tokens in the order of the whole row, from the parts of rank 0, 1, 2, ...

    `axis`: that of the tokens, along which the parts follow each other.
    """
    if n_ranks == 1:
        return parts
    held = [piece for rank in range(n_ranks) for piece in own_pieces(rank, n_ranks)]
    pieces = parts.chunk(2 * n_ranks, dim=axis)
    return torch.cat([pieces[held.index(number)] for number in range(2 * n_ranks)], dim=axis)


def whole_of(
    x: Shaped[Tensor, "*part"], group: RankGroup, *, axis: int = 1, note: str = "tokens"
) -> Shaped[Tensor, "*whole"]:
    """Returns the whole rows in order, from every rank's tokens; all ranks use it for the same.

    A collective. The gradient is cut (`differentiable.gather`).
    """
    return in_order(differentiable.gather(x, group, axis=axis, note=note), n_ranks=group.size,
                    axis=axis)

"""Who may see whom across ranks: the rules of `model.mask`, for tokens that are not all here.

A token sees earlier tokens of its own document and, in some layers, of its own chunk. What is
earlier follows from the order in the whole row. It does not follow from positions, which restart at
each document, nor from the order on a rank, whose two pieces are not neighbors. So every rank
gathers the positions and documents of all tokens, once per pass. After that it knows without
communication which pieces its queries see.

Notebook 45. Source of the document mask: arXiv:2407.21783, section 3.2.
"""

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import Tokens, Visible, chunk_mask, document_mask
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.context.pieces import in_order, own_pieces

NOTE = "positions and documents"


@record
class VisibleAcrossRanks:
    """What the queries of one rank may see. `tokens`: of all ranks, in the order of the whole row.

    Pieces have the numbers that `pieces` gives them. What is computed is kept for all layers.
    """

    tokens: Tokens
    rank: int
    n_ranks: int
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept_pieces", {})
        object.__setattr__(self, "_kept_rules", {})

    @property
    def own_pieces(self) -> tuple[int, int]:
        """The pieces of this rank, in its order."""
        return own_pieces(self.rank, self.n_ranks)

    @property
    def piece_length(self) -> int:
        """The tokens of each piece."""
        return self.tokens.positions.shape[1] // (2 * self.n_ranks)

    def pieces_seen(self, piece: int) -> Mapping[int, bool]:
        """Returns the pieces that a piece sees a token of, and whether it sees all pairs of them.

        No piece sees a later one. For documents and chunks it looks at the masks, once per pass,
        and a GPU is waited for.
        """
        if piece not in self._kept_pieces:
            found = {other: (True, other < piece) for other in range(piece + 1)}
            if self.tokens.documents is not None or self.chunk_size is not None:
                masks = (self._mask(piece, other) for other in range(piece + 1))  # one at a time
                found = dict(enumerate(torch.stack(
                    [torch.stack((mask.any(), mask.all())) for mask in masks]).tolist()))
            self._kept_pieces[piece] = {other: is_all for other, (is_any, is_all) in found.items()
                                        if is_any}
        return self._kept_pieces[piece]

    def mask(self, piece: int, other: int) -> Bool[Tensor, "B 1 T S"] | None:
        """Returns True where a query of `piece` may see a key of `other`; None for all pairs."""
        return None if self.pieces_seen(piece)[other] else self._mask(piece, other)[:, None]

    def _mask(self, piece: int, other: int) -> Bool[Tensor, "B T S"]:
        queries, keys = self._tokens(piece), self._tokens(other)
        mask_BTS = torch.ones(1, self.piece_length, self.piece_length, dtype=torch.bool,
                              device=self.tokens.positions.device)
        if piece == other:
            mask_BTS = mask_BTS.tril()
        if queries.documents is not None:
            mask_BTS = mask_BTS & document_mask(queries.documents, keys.documents)
        if self.chunk_size is not None:
            mask_BTS = mask_BTS & chunk_mask(queries.positions, keys.positions,
                                             chunk_size=self.chunk_size)
        return mask_BTS

    def _tokens(self, first: int, last: int | None = None) -> Tokens:
        """Returns the tokens of a piece, or of all pieces from the first to the last."""
        span = self._span(first, first if last is None else last)
        documents = self.tokens.documents
        return Tokens(positions=self.tokens.positions[:, span], is_plain=False,
                      documents=None if documents is None else documents[:, span])

    def _span(self, first: int, last: int) -> slice:
        return slice(first * self.piece_length, (last + 1) * self.piece_length)

    # --- for keys that are all here -------------------------------------------------------------

    def span(self, piece: int) -> slice:
        """Returns the keys, in the whole's order, that are needed for the queries of a piece."""
        return self._span(min(self.pieces_seen(piece)), piece)

    def rule(self, piece: int) -> Visible:
        """Returns what the queries of a piece may see of the keys in `span`: they are the last."""
        if piece not in self._kept_rules:
            self._kept_rules[piece] = Visible(
                tokens=self._tokens(min(self.pieces_seen(piece)), piece),
                n_queries=self.piece_length, chunk_size=self.chunk_size)
        return self._kept_rules[piece]


class VisibilityAcrossRanks(nn.Module):
    """Takes the place of `model.visibility.Visibility` in a model whose tokens are on many ranks.

    Its calls are collectives of `group`. `max_seq_len`: of whole rows.
    """

    def __init__(self, group: RankGroup, *, max_seq_len: int) -> None:
        super().__init__()
        self.group, self.max_seq_len = group, max_seq_len

    def forward(
        self, new: Tokens, *, batch_size: int, chunk_sizes: Collection[int | None],
        cache: KVCache | None,
    ) -> Mapping[int | None, VisibleAcrossRanks]:
        """Returns the rule for each chunk size.

        Raises ValueError for a cache, for tokens without positions, for a number of tokens that is
        not two equal pieces, and for whole rows that are longer than the model is made for.
        """
        n_tokens, size = new.positions.shape[1], self.group.size
        if cache is not None:
            raise ValueError("with context parallelism a rank has keys and values of its own tokens"
                             " only, so there is no KV cache; got one. Generate with the whole "
                             "model, without cp")
        if new.is_plain:
            raise ValueError("with context parallelism a rank's tokens have gaps between them, so "
                             "each needs its position in the row; got none. Cut batches with "
                             "tokens_of(batch, group) and give positions=batch.positions")
        if n_tokens % 2:
            raise ValueError("with context parallelism a rank holds two equal pieces of each row; "
                             f"got {n_tokens} tokens. Cut batches with tokens_of(batch, group)")
        if n_tokens * size > self.max_seq_len:
            raise ValueError(f"this model is made for at most {self.max_seq_len} tokens; got "
                             f"{n_tokens} on each of {size} ranks, {n_tokens * size} in all. "
                             "Shorten the rows, or build the model with a larger max_seq_len")
        tokens = self._of_all(new)
        return {chunk_size: VisibleAcrossRanks(tokens=tokens, rank=self.group.rank, n_ranks=size,
                                               chunk_size=chunk_size)
                for chunk_size in chunk_sizes}

    def _of_all(self, new: Tokens) -> Tokens:
        parts = [new.positions] if new.documents is None else [new.positions, new.documents]
        own = torch.stack([part.long() for part in torch.broadcast_tensors(*parts)])
        whole = self.group.all_gather(own.movedim(2, 0).contiguous(), note=NOTE).movedim(0, 2)
        positions, *documents = in_order(whole, n_ranks=self.group.size, axis=2)
        return Tokens(positions=positions, documents=documents[0] if documents else None,
                      is_plain=False)

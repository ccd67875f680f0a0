"""Attention whose keys and values are gathered from all ranks, as in Llama 3.

Each rank computes keys and values of its own tokens; one all-gather per layer brings them together,
in the order of the whole row. The queries of a piece are then the last tokens of a shorter text,
which is the ordinary case: any attention leaf computes it, a fused one too. With grouped queries
there are few key/value heads, so little is sent. Backward, each rank has a part of every key's
gradient, and a reduce-scatter adds the parts up.

Notebook 45. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.parallel import differentiable
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.context.pieces import in_order
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks

NOTE = "keys and values"
TOKENS = 1
"""The axis of tokens in queries, keys and values."""


class GatheredAttention(nn.Module):
    """Takes the place of an attention leaf, `attend`, which it calls for each of its two pieces."""

    def __init__(self, attend: nn.Module, group: RankGroup) -> None:
        super().__init__()
        self.attend, self.group = attend, group

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        v: Float[Tensor, "B T G K"], visible: VisibleAcrossRanks,
    ) -> Float[Tensor, "B T H K"]:
        """Returns the attention of this rank's queries. All ranks call it."""
        parts = differentiable.all_gather(torch.stack((k, v)), self.group, axis=TOKENS + 1,
                                          note=NOTE)
        keys, values = in_order(parts, n_ranks=self.group.size, axis=TOKENS + 1)
        found = []
        for piece, queries in zip(visible.own_pieces, q.chunk(2, dim=TOKENS), strict=True):
            span = visible.span(piece)
            found.append(self.attend(queries, keys[:, span], values[:, span], visible.rule(piece)))
        return torch.cat(found, dim=TOKENS)

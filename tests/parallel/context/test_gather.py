"""Keys and values of all ranks, in order, for an ordinary attention leaf."""

import pytest
import ranks_context as work
import torch
from torch import nn

from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.mask import Tokens
from llama_from_scratch.parallel.context.gather import GatheredAttention
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks
from llama_from_scratch.parallel.world import alone

CLOSE = 1e-12


@pytest.mark.parametrize(("n_ranks", "n_kv_heads", "chunk_size"), work.LEAVES)
def test_gradients_of_queries_keys_and_values_are_right_in_the_order_of_the_row(
        ranks, n_ranks, n_kv_heads, chunk_size):
    # Megatron-LM#1464: compared after they are put in order, and gradients, not only results.
    for found in ranks.run(work.leaf, style="gather", n_ranks=n_ranks, n_kv_heads=n_kv_heads,
                           chunk_size=chunk_size)[:n_ranks]:
        assert max(found) < CLOSE, found


def test_a_causal_mask_by_the_order_on_the_ranks_is_seen(ranks):
    by_rank = ranks.run(work.leaf, style="gather", n_ranks=4, n_kv_heads=2, chunk_size=None,
                        mutant="causal by the order on the ranks")
    assert torch.tensor(by_rank).amax() > 1e-3


class Noting(nn.Module):
    """Ordinary attention that notes how many keys it was given."""

    def __init__(self):
        super().__init__()
        self.plain, self.shapes = SoftmaxAttention(), []

    def forward(self, q, k, v, visible):
        self.shapes.append((q.shape[1], k.shape[1], visible.shape))
        return self.plain(q, k, v, visible)


@pytest.mark.parametrize(("chunk_size", "keys"), [(None, (12, 24)), (6, (12, 12))])
def test_the_inner_leaf_gets_only_keys_that_are_seen(chunk_size, keys):
    tokens = Tokens(positions=torch.arange(24)[None], documents=None, is_plain=False)
    leaf = Noting()
    q = torch.zeros(1, 24, 2, 4)
    GatheredAttention(leaf, alone())(q, q, q, VisibleAcrossRanks(
        tokens=tokens, rank=0, n_ranks=1, chunk_size=chunk_size))
    assert leaf.shapes == [(12, n, (12, n)) for n in keys]

"""Keys and values that travel: every rank meets all of them, and all gradients come home."""

import on_ranks
import pytest
import ranks_context as work
import torch

from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.mask import Tokens, Visible
from llama_from_scratch.parallel.context.ring import RingAttention
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.world import alone

CLOSE = 1e-12


@pytest.mark.parametrize(("n_ranks", "n_kv_heads", "chunk_size"), work.LEAVES)
def test_gradients_of_queries_keys_and_values_are_right_in_the_order_of_the_row(
        ranks, n_ranks, n_kv_heads, chunk_size):
    # Megatron-LM#1464: compared after they are put in order, and gradients, not only results.
    for found in ranks.run(work.leaf, style="ring", n_ranks=n_ranks, n_kv_heads=n_kv_heads,
                           chunk_size=chunk_size)[:n_ranks]:
        assert max(found) < CLOSE, found


def test_scores_that_exp_cannot_take_are_merged(ranks):
    # Gradients of such a softmax are differences of nearly equal numbers, so only results count.
    for found in ranks.run(work.leaf, style="ring", n_ranks=4, n_kv_heads=2, chunk_size=None,
                           scale=1e4):
        assert found[0] < CLOSE


@pytest.mark.parametrize(("mutant", "scale", "first_wrong"), [
    ("gradients of keys do not travel", 1.0, 2),
    ("Automodel#3157: backward with the first keys", 1.0, 1),
    ("merged without the largest", 1e4, 0)])
def test_planted_mistakes_are_seen_where_they_are(ranks, mutant, scale, first_wrong):
    by_rank = ranks.run(work.leaf, style="ring", n_ranks=4, n_kv_heads=2, chunk_size=None,
                        scale=scale, mutant=mutant)
    found = torch.tensor(by_rank).amax(0)
    assert (found[:first_wrong] < CLOSE).all() and not found[first_wrong] < 1e-3, found


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_large_tensors_pass_all_ranks_while_these_compute(ranks, n_ranks):
    n_numbers = 2_000_003  # more than any buffer of a socket
    for rank, (came, is_right, is_overlapped) in enumerate(
            ranks.run(work.passed_around, n_ranks=n_ranks, n_numbers=n_numbers)[:n_ranks]):
        assert came == [(rank - step) % n_ranks for step in range(n_ranks)]
        assert is_right and is_overlapped


def test_the_ranks_agree_on_every_message():
    with Ranks(3, timeout_s=on_ranks.TIMEOUT_S, is_debug=True) as ranks:
        ranks.run(_only_group)
        for found in ranks.run(work.leaf, style="ring", n_ranks=3, n_kv_heads=2, chunk_size=None):
            assert max(found) < CLOSE


def _only_group(world):
    world.kept.groups = {3: world}


def test_one_rank_is_ordinary_attention_in_its_dtype():
    tokens = Tokens(positions=torch.arange(8)[None], documents=None, is_plain=True)
    q, k, v = (torch.randn(2, 8, n, 6, generator=torch.Generator().manual_seed(n)).bfloat16()
               for n in (4, 2, 2))
    found = RingAttention(alone())(q, k, v, VisibleAcrossRanks(tokens=tokens, rank=0, n_ranks=1))
    expected = SoftmaxAttention()(q.float(), k.float(), v.float(), Visible(
        tokens=tokens, n_queries=8))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


on_ranks.by_value(__name__)

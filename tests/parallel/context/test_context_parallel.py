"""Rows cut among ranks give what whole rows give: outputs, losses and all gradients."""

import pytest
import ranks_context as work
import small_seeing
import torch

from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.visibility import Visibility
from llama_from_scratch.parallel.context import STYLES, ContextParallel
from llama_from_scratch.parallel.world import alone

CLOSE = 1e-12
"""A share of the largest number. Everything is in float64; measured: below 1e-14."""


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("name", "kind", "n_ranks"), [
    ("grouped", "one", 2), ("grouped", "packed", 4), ("chunked, one kv head", "packed", 2),
    ("chunked, one kv head", "one", 4), ("chunked, one kv head", "packed", 3)])
def test_outputs_losses_and_gradients_are_one_process_s(ranks, name, kind, n_ranks, style):
    # Prompts without targets are on early ranks; padding; documents that are not contiguous; fewer
    # key/value heads than ranks; a chunk size that no piece is a multiple of.
    for found in ranks.run(work.compare, name, kind=kind, style=style, n_ranks=n_ranks):
        assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(("mutant", "style", "kind", "n_ranks"), [
    ("positions counted on the rank", "gather", "one", 2),
    ("torchtitan#4544: targets made after the cut", "gather", "one", 4),
    ("torchtitan#4544: targets made after the cut", "ring", "one", 2),
    (work.MEAN_OF_MEANS, "gather", "one", 2),
    ("causal by the order on the ranks", "gather", "one", 2),
    ("documents ignored", "gather", "packed", 4),
    ("documents ignored", "ring", "packed", 2),
    ("gradients of keys do not travel", "ring", "one", 2),
    ("Automodel#3157: backward with the first keys", "ring", "one", 4),
    ("blocks counted equal", "ring", "one", 2),
])
def test_planted_mistakes_are_seen(ranks, mutant, style, kind, n_ranks):
    found = ranks.run(work.compare, "grouped", kind=kind, style=style, n_ranks=n_ranks,
                      mutant=mutant)
    assert max(max(each.values()) for each in found) > 1e-5


@pytest.mark.parametrize(("style", "n_ranks"), [("gather", 4), ("ring", 2), ("ring", 3)])
def test_two_packed_documents_are_two_separate_sequences(ranks, style, n_ranks):
    found = ranks.run(work.packed_or_apart, style=style, n_ranks=n_ranks)
    assert max(found[:n_ranks]) < CLOSE


@pytest.mark.parametrize(("style", "is_sequence_parallel"), [("gather", True), ("ring", False)])
def test_heads_and_tokens_are_cut_at_once(ranks, style, is_sequence_parallel):
    for found in ranks.run(work.with_tensor_parallel, style=style,
                           is_sequence_parallel=is_sequence_parallel):
        assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize("style", STYLES)
def test_layers_may_run_in_several_stages(ranks, style):
    assert max(ranks.run(work.by_stages, style=style, n_ranks=4)) < CLOSE


@pytest.mark.parametrize("style", STYLES)
def test_bf16_products_give_nearly_the_whole_model_s_loss(ranks, style):
    for loss, dtypes in ranks.run(work.in_bf16, style=style, n_ranks=4):
        assert loss < 1e-2 and dtypes == {torch.float32}


# --- alone, and refusals --------------------------------------------------------------------------


def test_one_rank_leaves_the_model_as_it_is():
    model = work.model_of(work.config("grouped"))
    strategy = ContextParallel(model, alone(), style="ring")
    batch = work.batch_of("packed")
    assert type(model.visibility) is Visibility
    assert all(type(block.attention.attend) is SoftmaxAttention for block in model.layers)
    assert torch.equal(strategy.tokens_of(batch).ids, batch.ids)
    assert torch.equal(strategy.whole_of(batch.ids), batch.ids)


def test_what_ranks_with_some_tokens_cannot_do_is_refused(ranks):
    for found, cache_length in ranks.run(work.refused, n_ranks=2):
        cache, positions, pieces, longer, again = found
        assert "there is no KV cache; got one. Generate with the whole model" in cache
        assert cache_length == 0
        assert "each needs its position in the row; got none. Cut batches with" in positions
        assert "holds two equal pieces of each row; got 3 tokens" in pieces
        assert "at most 24 tokens; got 24 on each of 2 ranks, 48 in all. Shorten" in longer
        assert "got one with VisibilityAcrossRanks in it already. Make a new model" in again


def test_models_that_see_and_unknown_styles_are_refused():
    with pytest.raises(ValueError, match="tokens of a text model; got a VisionLlama, whose images "
                                         "belong to whole rows .*cross-attention.*Choose cp=1"):
        ContextParallel(small_seeing.seeing_model(64), alone())
    with pytest.raises(ValueError, match="are gather and ring; got 'ulysses'"):
        ContextParallel(work.model_of(work.config("grouped")), alone(), style="ulysses")


def test_a_ring_refuses_to_drop_an_attention_of_another_kind():
    model = work.model_of(work.config("grouped"))
    model.layers[1].attention.attend = torch.nn.Identity()
    with pytest.raises(ValueError, match='got a Identity, which it would not use. Choose st'):
        ContextParallel(model, alone(), style="ring")

import on_ranks
import pytest
import tensor_parallel_on_ranks as work
import torch

from llama_from_scratch import family
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.placement import Slice
from llama_from_scratch.parallel.world import alone

CLOSE = 1e-12
"""A share of the largest number. Everything is in float64; measured: below 1e-14."""
CASES = [("heads", 2, False), ("heads", 4, True), ("two kv heads, tied", 2, True),
         ("two kv heads, tied", 4, False), ("one kv head, wide, biases", 2, False),
         ("one kv head, wide, biases", 4, True), ("seeing", 2, True), ("seeing", 4, False)]


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        ranks.run(work.make_groups)
        yield ranks


# --- sharded = whole ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_ranks", "is_cut"), CASES)
def test_losses_gradients_and_norms_are_one_process_s(ranks, name, n_ranks, is_cut):
    # 7 tokens, which neither number of ranks divides; targets differ in number between
    # micro-batches; every copy stays equal to the bit (NeMo-RL#3716); a copied weight counts once
    # (TransformerEngine(ROCm)#715).
    for (losses, grads, norms), n_apart in ranks.run(
            work.compare, name, n_ranks=n_ranks, is_sequence_parallel=is_cut):
        assert max(losses, grads, norms) < CLOSE
        assert n_apart == 0


@pytest.mark.parametrize(("name", "stage", "is_cut"), [
    ("two kv heads, tied", 0, True), ("one kv head, wide, biases", 0, False),
    ("two kv heads, tied", 3, False), ("one kv head, wide, biases", 3, True)])
def test_rows_and_matrices_are_shared_at_once(ranks, name, stage, is_cut):
    found = ranks.run(work.compose, name, stage=stage, is_sequence_parallel=is_cut)
    for differences, digests in found:
        assert max(differences) < CLOSE
        assert digests == found[0][1]


@pytest.mark.parametrize(("mutant", "name", "n_ranks", "is_cut"), [
    ("NeMo-RL#3716: norm gradients not added up", "heads", 2, True),
    ("norm gradients of heads not added up", "seeing", 2, False),
    ("gate gradients not added up", "seeing", 2, True),
    ("bias gradients not added up", "one kv head, wide, biases", 2, True),
    ("transformers#48307: gradients of copied heads not added up", "two kv heads, tied", 4, False),
    ("TransformerEngine(ROCm)#715: norms counted by every rank", "heads", 2, False),
    ("bias added by every rank", "one kv head, wide, biases", 2, False),
    ("target off by the rows of the ranks before", "heads", 2, False),
    ("copy without its backward", "heads", 2, False),
    ("torchtitan#3412: head's input gradient of this rank's logits only", "heads", 2, False),
])
def test_planted_mistakes_are_seen(ranks, mutant, name, n_ranks, is_cut):
    found = ranks.run(work.compare, name, n_ranks=n_ranks, is_sequence_parallel=is_cut,
                      mutant=mutant)
    assert max(max(differences) for differences, _ in found) > 1e-5


@pytest.mark.parametrize(("name", "n_ranks", "is_cut"), [
    ("two kv heads, tied", 4, True), ("seeing", 2, True), ("seeing", 4, False)])
def test_a_split_model_is_used_like_the_whole_one(ranks, name, n_ranks, is_cut):
    # The loss is computed in pieces, and the gradient that the head's input receives is compared
    # (torchtitan#3412).
    for found in ranks.run(work.logits, name, n_ranks=n_ranks, is_sequence_parallel=is_cut):
        assert found.pop("n_local") == 0
        assert max(found.values()) < CLOSE


@pytest.mark.parametrize(("name", "n_ranks", "is_cut"), [
    ("two kv heads, tied", 4, True), ("heads", 2, False), ("seeing", 4, False)])
def test_generation_writes_the_same_on_all_ranks(ranks, name, n_ranks, is_cut):
    found = ranks.run(work.written, name, n_ranks=n_ranks, is_sequence_parallel=is_cut,
                      sampling=Sampling(temperature=1.0))
    config = work.CONFIGS[name]
    n_heads = max(config.n_kv_heads // n_ranks, 1)
    for whole, split, n_bytes in found:
        assert split == whole == found[0][0]
        assert n_bytes == 2 * 4 * 8 * config.n_layers * n_heads * config.head_dim  # float64


def test_pieces_of_gradients_are_finished_like_whole_ones(ranks):
    # The order in which ranks are added up depends on the place in what is sent together.
    assert max(ranks.run(work.in_pieces, "two kv heads, tied", n_ranks=4)) < CLOSE


def test_bf16_products_give_nearly_the_whole_model_s_loss(ranks):
    for (whole, split), dtypes in ranks.run(work.in_bf16, n_ranks=4):
        assert split == pytest.approx(whole, rel=1e-2)
        assert dtypes == {torch.float32}


# --- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_layer_sends_two_all_reduces_forward_and_two_backward(ranks, n_ranks):
    config, n_bytes = work.CONFIGS["heads"], 3 * 7 * 16 * 8
    for calls in ranks.run(work.logged, n_ranks=n_ranks, is_sequence_parallel=False, n_tokens=7):
        outside, layers = _divided(calls)
        assert layers == 2 * config.n_layers * [
            ("all_reduce", n_bytes, 2 * (n_ranks - 1) * n_bytes // n_ranks)] * 2
        assert [note for _, note, _, _ in outside] == [
            "embedding", "largest logit", "target's logit", "sum of exponentials",
            "gradient of head input"]
        assert [n for _, _, n, _ in outside] == [n_bytes, *[3 * 7 * 8] * 3, n_bytes]


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_sequence_parallel_sends_as_many_bytes(ranks, n_ranks):
    kwargs = dict(n_ranks=n_ranks, n_tokens=8)
    for plain, cut in zip(ranks.run(work.logged, is_sequence_parallel=False, **kwargs),
                          ranks.run(work.logged, is_sequence_parallel=True, **kwargs), strict=True):
        (_, plain), (outside, cut) = _divided(plain), _divided(cut)
        assert sum(sent for _, _, sent in cut) == sum(sent for _, _, sent in plain)
        n_layers = work.CONFIGS["heads"].n_layers
        assert [op for op, _, _ in cut] == 4 * n_layers * ["all_gather", "reduce_scatter"]
        assert [(op, note) for op, note, _, _ in outside if "stream" in note] == [
            ("all_gather", "stream"), ("all_gather", "gradient of stream")]


def _divided(calls):
    """The calls outside of the layers, and those inside without their notes."""
    is_inside = lambda note: "attention" in note or "feed-forward" in note
    return ([call for call in calls if not is_inside(call[1])],
            [(op, n, sent) for op, note, n, sent in calls if is_inside(note)])


def test_pytorch_counts_as_many_collectives_and_its_own_plan_needs_as_many(ranks):
    n = 2 * work.CONFIGS["heads"].n_layers
    assert ranks.run(work.counted, is_native=False) == [(n, n)] * 4
    assert ranks.run(work.counted, is_native=True) == [(n, n)] * 4


# --- slices -------------------------------------------------------------------------------------


def test_every_parameter_has_a_slice():
    model = unwritten(family.tiny("llama-3.2"))
    tp = tensor_parallel.split(model, alone())
    assert tp.slices == {name: Slice() for name, _ in model.named_parameters()
                         } | {name: Slice(axis=1) for name in tp.slices
                              if name.endswith(("wo.weight", "w_down.weight"))}


def test_a_tied_head_stays_tied():
    model = unwritten(family.tiny("llama-3.2"))
    tensor_parallel.split(model, alone())
    assert model.output.weight is model.tok_embeddings.weight


def test_one_rank_computes_what_the_model_did():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3.1"))
    ids = torch.arange(10)[None]
    expected = model(ids)
    tensor_parallel.split(model, alone(), is_sequence_parallel=True)
    assert torch.equal(model(ids), expected)


# --- refusals -----------------------------------------------------------------------------------


def test_sizes_that_do_not_divide_are_refused_and_the_model_is_left_alone(ranks):
    for message, is_unchanged in ranks.run(work.refused, n_ranks=4, vocab_size=30):
        assert "got vocab_size=30 for 4 ranks" in message
        assert is_unchanged

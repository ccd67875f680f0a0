"""The gradient's length over all ranks: each logical element counts once, the same bits for all."""

import pytest
import ranks_clip as on_ranks
import torch
import toy_parallel as toy

from llama_from_scratch.parallel.clip import clip_gradients, gradient_norm
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.placement import Slice
from llama_from_scratch.parallel.world import alone
from llama_from_scratch.train import optimizer

WAYS = [(4, 1, False), (4, 1, True), (4, 2, False), (4, 2, True), (4, 4, False), (2, 2, False)]


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=120.0) as four, Ranks(2, timeout_s=120.0) as two:
        yield {4: four, 2: two}


def expected(dtype=torch.float64):
    whole = torch.cat([grad.double().flatten() for grad in on_ranks.logical(dtype).values()])
    norms = [torch.linalg.vector_norm(whole, kind) for kind in toy.NORM_TYPES]
    return torch.stack([*norms, norms[1], torch.tensor(2.0, dtype=torch.float64)])


@pytest.mark.parametrize(("n_ranks", "tp", "is_sharded"), WAYS)
def test_counts_each_logical_element_once_with_the_same_bits_on_all_ranks(
    ranks, n_ranks, tp, is_sharded
):
    found = ranks[n_ranks].run(on_ranks.norms, tp=tp, is_sharded=is_sharded)
    torch.testing.assert_close(found[0][0], expected(), rtol=1e-12, atol=0)
    assert all(torch.equal(norms, found[0][0]) for norms, _ in found)


@pytest.mark.parametrize(("sizes", "is_sharded"), [
    (dict(tp=2, dp=2, ep=2), False), (dict(tp=2, dp=2, ep=2), True), (dict(dp=4, ep=2), True)],
    ids=str)
def test_experts_that_ranks_divide_count_once_with_the_rest(ranks, sizes, is_sharded):
    """A fault of Megatron-LM#5916: with EP and TP, the norm omitted the experts."""
    found = ranks[4].run(on_ranks.norms_with_experts, sizes=sizes, is_sharded=is_sharded)
    torch.testing.assert_close(found[0], expected()[:3], rtol=1e-12, atol=0)
    assert all(torch.equal(norms, found[0]) for norms in found)


@pytest.mark.parametrize(("n_ranks", "tp", "is_sharded"), WAYS[:5])
def test_is_within_fp32_rounding_of_what_one_process_computes(ranks, n_ranks, tp, is_sharded):
    params = on_ranks.with_gradients(on_ranks.logical(torch.float32))
    one = optimizer.clip_gradients(params.values(), max_norm=2.0)
    found = ranks[n_ranks].run(on_ranks.norms, tp=tp, is_sharded=is_sharded, dtype=torch.float32)
    torch.testing.assert_close(found[0][0][3].float(), one, rtol=1e-6, atol=0)
    if not is_sharded:
        torch.testing.assert_close(found[0][1], params["norm"].grad, rtol=1e-6, atol=0)


def test_shared_weights_drift_apart_when_each_rank_clips_by_its_own_norm(ranks):
    """A fault of Automodel#3816."""
    found = ranks[4].run(on_ranks.mistaken, "own norm")
    assert len({norm for norm, _ in found}) == 4
    assert not torch.equal(found[0][1], found[1][1])
    right = ranks[4].run(on_ranks.norms, tp=4, is_sharded=False)
    assert all(torch.equal(grad, right[0][1]) for _, grad in right)


def test_copies_that_count_as_parts_inflate_the_norm(ranks):
    """A fault of TransformerEngine(ROCm)#715."""
    norm, _ = ranks[4].run(on_ranks.mistaken, "copies as parts")[0]
    assert norm / expected()[1] > 1.3


def test_a_hundred_clipped_steps_in_fp32_stay_with_one_process(ranks):
    """A fault of torchtitan#4312."""
    model = toy.Toy().float()
    one = toy.OneProcess(model)
    lengths = []

    def clipped(params):
        lengths.append(optimizer.clip_gradients(params.values(), max_norm=0.25).item())
        return (lengths[-1],)

    toy.observed(model, one, n_steps=100, norms=clipped)
    found = ranks[4].run(on_ranks.clipped_steps, n_steps=100)
    # Rounding in another order, carried through 100 steps.
    torch.testing.assert_close(found[0][0], lengths, rtol=1e-4, atol=0)
    for others, weights in found[1:]:
        assert others == found[0][0]
        assert all(torch.equal(w, found[0][1][name]) for name, w in weights.items())


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_leaves_gradients_alone_when_the_norm_is_not_finite_on_any_rank(ranks, value):
    for rank, (norm, grad) in enumerate(ranks[2].run(on_ranks.not_finite, value)):
        assert norm == value or (norm != norm and value != value)
        assert grad[1] == 3.0 and (rank == 1 or grad[0] == 3.0)


def test_refuses_parameters_whose_copies_are_not_known(ranks):
    for told in ranks[2].run(on_ranks.refusals):
        assert "every parameter needs a Slice" in told["no slice"] and "w has none" in told[
            "no slice"]
        assert "got 3 for w, with 2 ranks" in told["other size"]
        assert "norm_type must be above 0; got 0.0" in told["type"]
        assert "no parameter has one. Call backward" in told["no gradient"]


def test_a_single_rank_needs_no_slices_and_a_rank_may_have_no_pieces():
    world = alone()
    params = on_ranks.with_gradients(on_ranks.logical())
    norm = gradient_norm(params, slices={}, tp=world, shards=None)
    torch.testing.assert_close(norm, expected()[1], rtol=1e-12, atol=0)
    assert gradient_norm({}, slices={}, tp=world, shards=None) == 0
    clip_gradients(params, slices={"norm": Slice()}, tp=world, shards=None, max_norm=1e9)
    assert torch.equal(params["kv"].grad, on_ranks.logical()["kv"])


@pytest.mark.parametrize("n", [1, 511, 512, 513, 3 * 512, 100_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", toy.NORM_TYPES)
def test_norms_of_any_length_are_exact_to_their_dtype(n, dtype, kind):
    p = torch.nn.Parameter(torch.zeros(n, dtype=dtype))
    p.grad = torch.randn(n, generator=torch.Generator().manual_seed(n)).to(dtype)
    norm = gradient_norm({"p": p}, slices={}, tp=alone(), shards=None, norm_type=kind)
    exact = torch.linalg.vector_norm(p.grad.double(), kind)
    # The rounding of 512 terms in fp32; much finer than bf16, in which no norm is computed.
    torch.testing.assert_close(norm, exact, rtol=1e-12 if dtype == torch.float64 else 1e-6, atol=0)

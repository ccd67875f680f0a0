"""Ranks that divide the experts compute what one process computes, and drop what it would drop."""

import math

import pytest
import ranks_experts as work
import torch
from llama4_twin import toy
from paper_mesh import on_paper

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import expert_parallel
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.pipeline import stage as stages
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.world import alone

TIMEOUT_S = 300.0
TWO = [("top-1", dict(stage=0)), ("top-2, idle", dict(stage=1)), ("top-1", dict(stage=2)),
       ("top-2, idle", dict(stage=3, micro_batch_size=1))]
FOUR = [("top-1", dict(dp=4, ep=2), dict(stage=0)),
        ("top-2, idle", dict(dp=4, ep=2), dict(stage=3)),
        ("top-2, idle", dict(dp=4, ep=4), dict(stage=0)),
        ("top-1", dict(dp=4, ep=4), dict(stage=2)),
        ("top-2, idle", dict(dp=2, replicate=2, ep=2), dict(stage=0)),
        ("top-1", dict(dp=2, replicate=2, ep=2), dict(stage=1)),
        ("top-1", dict(dp=2, tp=2, ep=2), dict(stage=0)),
        ("top-2, idle", dict(dp=2, tp=2, ep=2), dict(stage=3, is_sequence_parallel=True))]


@pytest.fixture(scope="module")
def two():
    with Ranks(2, timeout_s=TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def four():
    with Ranks(4, timeout_s=TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def known():
    return {name: work.alone_with(config) for name, config in work.CONFIGS.items()}


def assert_same_bits(results):
    """Every rank has the same gradients, to the bit."""
    for step, (_, grads, _) in enumerate(results[0]):
        assert all(torch.equal(grads[name], found[step][1][name])
                   for found in results for name in grads)


@pytest.mark.parametrize(("name", "how"), TWO, ids=str)
def test_two_ranks_compute_what_one_process_computes(two, known, name, how):
    results = two.run(work.together_with, work.CONFIGS[name], dict(dp=2, ep=2), **how)
    work.parity.assert_equal(results, known[name])
    assert_same_bits(results)


@pytest.mark.parametrize(("name", "sizes", "how"), FOUR, ids=str)
def test_four_ranks_compute_what_one_process_computes(four, known, name, sizes, how):
    """Megatron-LM#5916: with EP and TP, the norm counts experts once and no gradients are mixed.

    Automodel#3816: the norm and all gradients are equal to the bit on all ranks.
    """
    results = four.run(work.together_with, work.CONFIGS[name], sizes, **how)
    work.parity.assert_equal(results, known[name])
    assert_same_bits(results)


def test_an_expert_that_some_micro_batches_skip_has_gradients_of_the_others(two):
    """A fault of pytorch#196996. One rank has no chosen expert, then the other; one expert never.
    """
    config, turns = work.CONFIGS["top-1"], ((0,), (3,))
    for how in (dict(stage=0), dict(stage=3)):
        results = two.run(work.together_with, config, dict(dp=2, ep=2), turns=turns, n_steps=1,
                          micro_batch_size=1, **how)
        ((loss, grads, lengths),) = results[0]
        assert all(math.isfinite(x) for x in (loss, *lengths))
        for name, grad in grads.items():
            if ".experts." in name:
                assert [bool(of_one.any()) for of_one in grad] == [True, False, False, True]
        assert_same_bits(results)


def test_a_model_that_never_was_whole_is_the_same(four, known):
    results = four.run(work.parity.together, shard, work.CONFIGS["top-1"], dict(dp=4, ep=2),
                       stage=3, is_from_meta=True)
    work.parity.assert_equal(results, known["top-1"])


def test_weights_come_back_whole_and_every_rank_gets_its_piece(four):
    assert four.run(work.used, work.CONFIGS["top-1"]) == [(True, 0, 0)] * 4


def test_each_ep_group_with_its_own_norm_would_let_shared_weights_drift_apart(four):
    """A fault of Automodel#3816."""
    found = four.run(work.own_norms, work.CONFIGS["top-1"])
    assert len({right for right, _ in found}) == 1
    assert len({wrong for _, wrong in found}) == 2
    assert all(wrong < right for right, wrong in found)


@pytest.mark.parametrize(("mutant", "how"), [
    ("experts' gradients added over all", {}), ("experts' gradients averaged over ep", {}),
    ("router's gradients not added", {}), ("score on the output", {}),
    ("combined in another order", {}), ("counts transposed", {}),
    ("room counted rank by rank", dict(capacity=0.8)),
    ("room given to the last ranks first", dict(capacity=0.8))])
def test_planted_mistakes_are_seen(two, four, known, mutant, how):
    sizes = dict(dp=4, ep=2) if mutant == "experts' gradients added over all" else dict(dp=2, ep=2)
    config = work.CONFIGS["top-1"]
    right = work.alone_with(config, n_steps=1, **how)
    results = (two if sizes["dp"] == 2 else four).run(
        work.together_with, config, sizes, mutant=mutant, n_steps=1, **how)
    ((_, grads, _),) = right
    worst = max(float((found[0][1][name] - grads[name]).abs().max())
                for found in results for name in grads)
    assert worst > 1e-6


# --- one layer ------------------------------------------------------------------------------------


def slow_layer(layer, x, *, capacity):
    """Token by token: each asks its experts, in the order of their queues, while there is room."""
    moe = layer.moe
    logits = x @ moe.router.directions.weight.T
    wishes = logits.topk(moe.n_active, dim=1).indices
    room = math.inf if capacity is None else math.ceil(capacity * wishes.numel() / moe.n_experts)
    taken, rows = [0] * moe.n_experts, []
    for row, logit, chosen in zip(x, logits, wishes.tolist(), strict=True):
        total = moe.shared(row)
        for e in chosen:
            taken[e] += 1
            if taken[e] <= room:
                scaled = row * logit[e].sigmoid()
                hidden = torch.nn.functional.silu(scaled @ moe.experts.w_gate[e]) * (
                    scaled @ moe.experts.w_up[e])
                total = total + hidden @ moe.experts.w_down[e]
        rows.append(total)
    return torch.stack(rows), sum(max(n - room, 0) for n in taken)


@pytest.mark.parametrize("n_active", [1, 2])
@pytest.mark.parametrize("capacity", [None, 1.5, 1.0, 0.3])
def test_one_rank_with_a_capacity_is_a_slow_loop_over_tokens(capacity, n_active):
    layer = work.Layer(n_active=n_active)
    expected, n_dropped = slow_layer(layer, work.tokens(), capacity=capacity)
    if capacity is not None:
        experts = expert_parallel.split(layer, alone(), capacity=capacity)
        with experts.watched() as seen:
            found = layer.moe(work.tokens())
        assert seen["moe"][0].n_dropped == n_dropped
        assert n_dropped > 0 or capacity == 1.5
    else:
        found = layer.moe(work.tokens())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shares", "how"), [
    ([5, 0, 4, 3], dict()), ([5, 0, 4, 3], dict(capacity=1.0)),
    ([0, 0, 0, 12], dict(n_active=2, capacity=0.5)), ([1, 2, 3, 6], dict(n_experts=8))], ids=str)
def test_ranks_with_unequal_or_no_tokens_give_and_drop_what_one_rank_does(four, shares, how):
    results = four.run(work.layer_in, shares=shares, **how)
    y, dx, grads, router, _ = work.layer_alone(n=12, **how)
    torch.testing.assert_close(torch.cat([found[0] for found in results]), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([found[1] for found in results]), dx, rtol=0, atol=1e-12)
    torch.testing.assert_close(sum(found[3] for found in results), router, rtol=0, atol=1e-12)
    for found in results:
        torch.testing.assert_close(found[2], grads, rtol=0, atol=1e-12)


def test_the_traffic_is_what_the_log_shows(four):
    results = four.run(work.layer_in, shares=[5, 0, 4, 3], n_active=2, capacity=1.0)
    for rank, (_, _, _, _, (traffic,), sent) in enumerate(results):
        assert torch.equal(traffic.rows, results[0][4][0].rows)
        out = int(traffic.rows[rank].sum() - traffic.rows[rank, rank])
        come = int(traffic.rows[:, rank].sum() - traffic.rows[rank, rank])
        row = 8 * 8  # float64
        assert sent == [out * row, come * row, out * row, come * row]
        assert traffic.wanted.sum(1).tolist() == [10, 0, 8, 6]
        assert traffic.rows.sum().item() + traffic.n_dropped == 24
    assert results[0][4][0].n_dropped > 0


def test_room_goes_to_the_first_rows_and_is_rounded_up():
    wanted = torch.tensor([[3, 0], [2, 1], [4, 0]])
    assert torch.equal(expert_parallel.within(wanted, None), wanted)
    assert expert_parallel.within(wanted, 0.8).tolist() == [[3, 0], [1, 1], [0, 0]]  # 4 each
    assert expert_parallel.within(wanted, 1.1).tolist() == [[3, 0], [2, 1], [1, 0]]  # 5.5, so 6
    # In binary, 1.1 x 10 / 1 is a little more than 11.
    assert expert_parallel.within(torch.tensor([[10]]), 1.1).tolist() == [[10]]
    assert expert_parallel.within(torch.tensor([[200, 0]]), 1.1).tolist() == [[110, 0]]


def test_the_balance_over_ranks_is_that_of_all_tokens(two):
    config = work.CONFIGS["top-2, idle"]
    found = two.run(work.routings, config)
    for counts, travelled in found:
        assert torch.equal(counts, travelled) and torch.equal(counts, found[0][0])
        assert int(counts.sum()) == 4 * 16 * 2


# --- without ranks --------------------------------------------------------------------------------


def test_one_rank_without_a_capacity_changes_nothing():
    model = Llama(work.CONFIGS["top-1"])
    experts = expert_parallel.split(model, alone())
    assert experts.slices == {} and experts.groups() == {}
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())


def test_experts_are_cut_along_their_first_axis_and_nothing_else_is():
    axes, model = on_paper(Mesh(dp=2, ep=2)), unwritten(work.CONFIGS["top-1"])
    before = {name: p.shape for name, p in model.named_parameters()}
    experts = expert_parallel.split(model, axes.ep)
    after = {name: p.shape for name, p in model.named_parameters()}
    assert list(experts.slices) == [f"layers.1.feed_forward.experts.{leaf}"
                                    for leaf in ("w_gate", "w_up", "w_down")]
    assert all(after[name] == ((2, *before[name][1:]) if name in experts.slices else before[name])
               for name in before)


def test_a_rank_of_a_pipeline_divides_the_experts_that_it_has():
    model = unwritten(toy(step=2, n_layers=4))
    stages.keep(model, stages.pieces_of([2, 2]), rank=1, n_ranks=2)
    experts = expert_parallel.split(model, on_paper(Mesh(dp=2, ep=2)).ep)
    assert {name.split(".")[1] for name in experts.slices} == {"3"}


@pytest.mark.parametrize(("config", "sizes", "how", "words"), [
    (toy(step=2, n_experts=6), dict(dp=4, ep=4), {},
     "got ep=4 for the 6 experts of layers.1. Choose ep=1, 2, 3 or 6"),
    (family.tiny("llama-3"), dict(dp=2, ep=2), {}, "got ep=2, capacity=None for a model without"),
    (family.tiny("llama-3"), dict(dp=2), dict(capacity=1.0), "got ep=1, capacity=1.0 for a model"),
    (toy(step=2), dict(dp=2, ep=2), dict(capacity=0.0), "a number above 0, .* got 0.0"),
    (toy(step=2), dict(dp=2, tp=2, ep=2), dict(capacity=1.0, is_sequence_parallel=True),
     "got capacity=1.0 with it. Leave one out"),
    (toy(step=2, vocab_size=91), dict(tp=2, dp=2, ep=2), {}, "got vocab_size=91 for 2 ranks"),
])
def test_what_cannot_be_divided_is_refused_before_anything_is_cut(config, sizes, how, words):
    model = unwritten(config)
    before = {name: p.shape for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=words):
        shard(model, on_paper(Mesh(**sizes)), weights=[], **how)
    assert {name: p.shape for name, p in model.named_parameters()} == before


def test_the_native_engine_refuses_to_divide_experts():
    with pytest.raises(ValueError, match="no expert parallelism for ep=2: choose ep=1"):
        shard_natively(unwritten(toy(step=2)), on_paper(Mesh(dp=2, ep=2)), weights=[])

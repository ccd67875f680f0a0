"""The formulas of what is sent and held: equal to the logs and the tensors of real steps."""

from fractions import Fraction

import pytest
import ranks_costs as on_ranks
import ranks_sharded
import torch

from llama_from_scratch import family
from llama_from_scratch.parallel import costs
from llama_from_scratch.parallel.costs import Plan
from llama_from_scratch.parallel.expert_parallel import ExpertTraffic
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.mesh import Mesh

BF16, FP64 = torch.bfloat16, torch.float64
STEP = dict(n_rows=2, seq_len=7)
PLANS = {
    "data parallel": dict(mesh=Mesh(dp=4)),
    "data parallel, accumulated": dict(mesh=Mesh(dp=4), n_micro_batches=3),
    "data parallel, bf16 weights": dict(mesh=Mesh(dp=4), weight_dtype=BF16),
    "data parallel, float64": dict(mesh=Mesh(dp=4), weight_dtype=FP64),
    "data parallel over two axes": dict(mesh=Mesh(dp=2, replicate=2)),
    "stage 1": dict(mesh=Mesh(dp=4), stage=1, n_micro_batches=2),
    "stage 2": dict(mesh=Mesh(dp=4), stage=2, n_micro_batches=2),
    "stage 2, bf16": dict(mesh=Mesh(dp=4), stage=2, compute_dtype=BF16),
    "stage 3": dict(mesh=Mesh(dp=4), stage=3, n_micro_batches=2),
    "stage 3, kept": dict(mesh=Mesh(dp=4), stage=3, keeps_after_forward=True, n_micro_batches=2),
    "stage 3, bf16": dict(mesh=Mesh(dp=4), stage=3, compute_dtype=BF16),
    "stage 3, hybrid": dict(mesh=Mesh(dp=2, replicate=2), stage=3),
    "stage 2, padded": dict(mesh=Mesh(dp=4), stage=2, config=ranks_sharded.llama_config()),
    "stage 3, padded": dict(mesh=Mesh(dp=4), stage=3, config=ranks_sharded.llama_config()),
    "tensor": dict(mesh=Mesh(tp=4), n_micro_batches=2),
    "tensor, autocast": dict(mesh=Mesh(tp=4), is_bf16=True),
    "sequence": dict(mesh=Mesh(tp=4), is_sequence_parallel=True, n_micro_batches=2),
    "sequence, autocast": dict(mesh=Mesh(tp=4), is_sequence_parallel=True, is_bf16=True),
    "data x tensor": dict(mesh=Mesh(dp=2, tp=2)),
    "data x sequence": dict(mesh=Mesh(dp=2, tp=2), is_sequence_parallel=True),
    "stage 3 x tensor": dict(mesh=Mesh(dp=2, tp=2), stage=3),
    "stage 3 x sequence": dict(mesh=Mesh(dp=2, tp=2), stage=3, is_sequence_parallel=True),
    "one kv head": dict(mesh=Mesh(tp=4), config=on_ranks.config(n_kv_heads=1)),
    "two kv heads": dict(mesh=Mesh(tp=4), config=on_ranks.config(n_kv_heads=2)),
    "two kv heads, sequence": dict(mesh=Mesh(tp=4), config=on_ranks.config(n_kv_heads=2),
                                   is_sequence_parallel=True),
    "experts": dict(mesh=Mesh(dp=4, ep=2), config=on_ranks.with_experts(), n_micro_batches=2),
    "experts, stage 2, hybrid": dict(mesh=Mesh(dp=2, replicate=2, ep=2), stage=2,
                                     config=on_ranks.with_experts()),
    "experts, stage 3": dict(mesh=Mesh(dp=4, ep=2), stage=3, is_bf16=True, n_micro_batches=2,
                             config=on_ranks.with_experts()),
    "experts x sequence": dict(mesh=Mesh(dp=2, tp=2, ep=2), stage=1, is_sequence_parallel=True,
                               config=on_ranks.with_experts(), seq_len=8),
    "tied": dict(mesh=Mesh(dp=2, tp=2), stage=2, config=on_ranks.config(is_tied=True)),
}


def plan(name, **changes):
    return Plan(**{"config": on_ranks.config()} | STEP | PLANS[name] | changes)


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=300.0) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def logs(ranks):
    found = ranks.run(on_ranks.logged, [plan(name) for name in PLANS])
    return {name: [each[i] for each in found] for i, name in enumerate(PLANS)}


@pytest.mark.parametrize("name", PLANS)
def test_bytes_equal_the_log_of_a_real_step(logs, name):
    expected = costs.sent_bytes(plan(name))
    if expected.pop(("ep", "all_to_all"), 0):  # it depends on what the tokens have chosen
        for log in logs[name]:
            assert log.pop(("ep", "all_to_all")) == log.pop("by the traffic") > 0
    for key in expected.keys() | logs[name][0].keys():
        sent = [log.get(key, 0) for log in logs[name]]
        assert sum(sent) == expected.get(key, 0) * len(sent), (key, sent, expected)
    if name not in ("stage 3 x sequence", "experts x sequence"):  # there, pieces that it owns
        assert all(log == logs[name][0] for log in logs[name])


def test_rows_that_all_experts_share_equally_are_as_many_as_a_plan_expects():
    its_plan = plan("experts", n_rows=3, seq_len=8, n_micro_batches=1)
    even = torch.full((2, 4), 3 * 8 * 1 // 4)
    (expected,) = [each for each in costs.exchanges(its_plan) if each.op == "all_to_all"]
    assert costs.traffic_bytes(its_plan, ExpertTraffic(wanted=even, sent=even)) == [
        expected.sent_bytes] * 2
    assert expected.sent_bytes == 4 * 3 * 8 * Fraction(1, 2) * its_plan.config.dim * 4
    # One rank sends all, the other receives all: both carry as much.
    skewed = torch.tensor([[0, 0, 12, 12], [0, 0, 0, 0]])
    assert costs.traffic_bytes(its_plan, ExpertTraffic(wanted=skewed, sent=skewed)) == [
        2 * 24 * its_plan.config.dim * 4] * 2


def test_accumulation_saves_bytes_where_gradients_are_sent_once():
    def sent(name, **changes):
        return sum(costs.sent_bytes(plan(name, **changes)).values())

    assert sent("data parallel", n_micro_batches=8) == sent("data parallel")
    assert sent("stage 2", n_micro_batches=8, reduces_once=True) < sent("stage 2",
                                                                        n_micro_batches=8)
    two = dict(mesh=Mesh(tp=2))
    assert sent("tensor", n_micro_batches=8, **two) == 4 * sent("tensor", **two)


def test_a_ring_never_sends_twice_the_gradients_and_stage_3_sends_half_as_much_again():
    n_bytes = 4 * on_ranks.config().n_params
    for d in (2, 4, 1000):
        (sent,) = costs.sent_bytes(plan("data parallel", mesh=Mesh(dp=d))).values()
        assert sent == Fraction(2 * (d - 1), d) * n_bytes < 2 * n_bytes
        in_shards = sum(costs.sent_bytes(plan("stage 3", mesh=Mesh(dp=d),
                                              n_micro_batches=1)).values())
        assert sent < in_shards < 1.6 * sent  # the root is gathered once


def test_a_data_parallel_rank_holds_all_gradients_however_many_ranks_there_are(ranks):
    """A fault of verl#7458."""
    its_plan = plan("data parallel, accumulated")
    for weights, between, at_the_end in ranks.run(on_ranks.held, its_plan):
        expected = costs.memory_bytes(its_plan)
        assert (weights, between) == (expected["weights"], expected["gradients"])
        assert at_the_end == between == 4 * its_plan.config.n_params
    assert len({str(costs.memory_bytes(plan("data parallel", mesh=Mesh(dp=d))))
                for d in (1, 2, 4, 8)}) == 1
    narrow = plan("data parallel, accumulated", weight_dtype=BF16)
    for weights, between, at_the_end in ranks.run(on_ranks.held, narrow):
        expected = costs.memory_bytes(narrow)
        assert (weights, at_the_end) == (expected["weights"], expected["gradients"])
        assert between == 4 * narrow.config.n_params


@pytest.mark.parametrize("way", ["stage 1", "stage 2", "stage 3", "stage 3, once"])
@pytest.mark.parametrize("dtype", [None, BF16])
def test_memory_of_the_stages_equals_what_ranks_hold(ranks, way, dtype):
    options = ranks_sharded.WAYS[way]
    its_plan = Plan(config=ranks_sharded.llama_config(), mesh=Mesh(dp=4), compute_dtype=dtype,
                    n_micro_batches=2, **options)
    expected = costs.memory_bytes(its_plan)
    *_, after_step, peaks, n_stepped = zip(
        *ranks.run(ranks_sharded.memory, way=way, param_dtype=dtype), strict=True)
    assert set(after_step) == {expected["weights"]}
    limit = expected["weights"] + expected["gathered"] + expected["gradients"]
    assert 0.6 * limit < max(peaks) <= limit
    assert max(n_stepped) * 8 == expected["averages"]


def test_405b_on_16384_ranks_is_counted_without_any_of_them():
    config = family.config("llama-3.1-405b")
    llama_3 = Plan(config=config, mesh=Mesh(tp=8, dp=2048), stage=3, keeps_after_forward=True,
                   compute_dtype=BF16, is_sequence_parallel=True, seq_len=8192)
    held = costs.memory_bytes(llama_3)
    assert sum(costs.local_sizes(llama_3).values()) == pytest.approx(config.n_params / 8, rel=1e-3)
    assert held["weights"] == pytest.approx(4 * config.n_params / 16384, rel=1e-3)
    per_layer = [each for each in costs.exchanges(llama_3) if each.what.startswith("layers")]
    tensor = sum(each.sent_bytes for each in per_layer) / config.n_layers
    assert tensor == Fraction(8 * 2 * 7, 8) * 8192 * 16384 == pytest.approx(1.88e9, rel=0.01)


def test_refuses_what_it_has_no_formula_for():
    with pytest.raises(ValueError, match="got a VisionLlamaConfig"):
        Plan(config=family.tiny("llama-3.2-vision"), mesh=Mesh(dp=2))
    for mesh in (Mesh(cp=2, dp=2), Mesh(pp=2)):
        with pytest.raises(ValueError, match=f"got the mesh {mesh}. Choose cp=1 and pp=1"):
            plan("stage 1", mesh=mesh)
    with pytest.raises(ValueError, match="must divide"):
        costs.sent_bytes(plan("tensor", mesh=Mesh(tp=3)))

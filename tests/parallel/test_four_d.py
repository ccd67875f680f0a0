"""All dimensions at once: tp, cp, pp, dp and ep on 4, 8 and 16 ranks compute what one process does.

The gradient's length and all replicated tensors have the same bits on all ranks after every step
(`parity.assert_equal`), for tied and untied heads, and with uneven targets.
"""

import on_ranks
import parity
import pytest
import torch
from llama4_twin import toy
from parity import batches, model_of, step_of, together
from pipeline_on_ranks import deep_config

from llama_from_scratch import family
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.fake import pretended
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.train.loop import gradients

on_ranks.by_value("parity")
ZERO_BUBBLE = PipelinePlan(schedule="zero_bubble")
INTERLEAVED = PipelinePlan(schedule="interleaved", n_chunks=2)
ON_FOUR = [
    (dict(pp=2, dp=2), dict(stage=3, pipeline=ZERO_BUBBLE)),
    (dict(pp=2, dp=2), dict(stage=1, pipeline=INTERLEAVED)),
    (dict(pp=2, replicate=2), dict(pipeline=ZERO_BUBBLE)),
    (dict(pp=2, tp=2), dict(pipeline=INTERLEAVED, is_sequence_parallel=True)),
    (dict(cp=2, pp=2), dict(pipeline=ZERO_BUBBLE, context="ring")),
    (dict(cp=2, dp=2), dict(stage=3)), (dict(cp=2, tp=2), dict(is_sequence_parallel=True))]
EXPERTS_ON_FOUR = [
    (dict(cp=2, dp=2, ep=4), dict(stage=3)), (dict(pp=2, dp=2, ep=2), dict(stage=2))]
ON_EIGHT = [
    (shard, dict(tp=2, cp=2, pp=2), dict(pipeline=ZERO_BUBBLE)),
    (shard_natively, dict(cp=2, pp=2, dp=2), dict(stage=3, pipeline=INTERLEAVED))]
ON_SIXTEEN = dict(tp=2, cp=2, pp=2, dp=2)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def known(request):
    its_config = deep_config(4, is_tied=request.param)
    return its_config, parity.alone(its_config)


@pytest.fixture(scope="module")
def experts():
    its_config = toy(step=2, n_active=2)
    return its_config, parity.alone(its_config)


@pytest.fixture(scope="module")
def four():
    with on_ranks.ranks(4) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def eight():
    with on_ranks.ranks(8) as ranks:
        yield ranks


def assert_equal(ranks, known, engine, sizes, how):
    its_config, alone = known
    results = ranks.run(parity.together, engine, its_config, sizes, micro_batch_size=1,
                        is_from_meta="stage" in how, **how)
    parity.assert_equal(results, alone)
    first = results[0]
    for step in range(parity.N_STEPS):
        for name, gradient in first[step][1].items():
            assert all(torch.equal(gradient, found[step][1][name]) for found in results)


@pytest.mark.parametrize(("sizes", "how"), ON_FOUR, ids=str)
def test_two_dimensions_on_four_ranks(four, known, sizes, how):
    assert_equal(four, known, shard, sizes, how)


def reductions(world, its_config):
    """The names of the buckets that one step adds up over dp, in a divided backward pass of three
    micro-batches, and the largest difference of the gradients from one process."""
    axes = Mesh(pp=2, dp=2).on(world)
    sharded = shard(model_of(its_config), axes, pipeline=ZERO_BUBBLE, bucket_bytes=0)
    (batch, *_), whole = batches(its_config.vocab_size, n_rows=6), model_of(its_config)
    gradients(whole, batch)
    world.log.clear()
    step_of(sharded, batch, micro_batch_size=1)
    notes = [call.note for call in world.log.calls
             if (call.op, call.group) == ("all_reduce", "data") and call.note != "loss"]
    known = dict(whole.named_parameters())
    worst = max(float((p.grad - known[name].grad).abs().max())
                for name, p in sharded.params.items())
    return sorted(notes), sorted(sharded.params), worst


def test_a_zero_bubble_of_three_micro_batches_reduces_each_gradient_once(four):
    """Runtimes have reduced none of them (pytorch#144530), or after the wrong micro-batch
    (pytorch#134052)."""
    for notes, names, worst in four.run(reductions, deep_config(4)):
        assert notes == names and worst < 1e-12


@pytest.mark.parametrize(("sizes", "how"), EXPERTS_ON_FOUR, ids=str)
def test_experts_with_other_dimensions_on_four_ranks(four, experts, sizes, how):
    assert_equal(four, experts, shard, sizes, how)


@pytest.mark.parametrize(("engine", "sizes", "how"), ON_EIGHT,
                         ids=lambda each: getattr(each, "__name__", str(each)))
def test_three_dimensions_on_eight_ranks(eight, known, engine, sizes, how):
    assert_equal(eight, known, engine, sizes, how)


def test_experts_with_three_dimensions_on_eight_ranks(eight, experts):
    assert_equal(eight, experts, shard, dict(cp=2, pp=2, dp=2, ep=4),
                 dict(stage=3, pipeline=ZERO_BUBBLE))


def test_all_dimensions_on_sixteen_ranks():
    tied = deep_config(4, is_tied=True)
    with on_ranks.ranks(16) as ranks:
        assert_equal(ranks, (tied, parity.alone(tied)), shard, ON_SIXTEEN, dict(
            stage=3, pipeline=INTERLEAVED, is_sequence_parallel=True))
        assert_equal(ranks, (tied, parity.alone(tied)), shard_natively, ON_SIXTEEN, dict(stage=2))


# --- planted mistakes -----------------------------------------------------------------------------


def without(world, its_config, sizes, mistake, **how):
    """What the ranks compute together with a mistake in it."""
    def engine(model, axes, **how):
        sharded = shard(model, axes, **how)
        mistake(sharded)
        return sharded

    return together(world, engine, its_config, sizes, micro_batch_size=1, **how)


def does_nothing(x, **_):
    return x


def tied_gradients_not_added(sharded):
    sharded.axes.ends.all_reduce = does_nothing


def tied_weight_counted_twice(sharded):
    sharded._counted_once = lambda: dict(type(sharded)._counted_once(sharded), twice={})


def lengths_of_one_rank_only(sharded):
    sharded._counted_once = lambda: dict(type(sharded)._counted_once(sharded), pp=None)


def gradients_of_cp_not_added(sharded):
    sharded.data.group = sharded.axes.data
    for bucket in sharded.data.buckets:
        bucket.group = sharded.axes.data


@pytest.mark.parametrize(("sizes", "mistake", "seen_in"), [
    (dict(pp=2), tied_gradients_not_added, "gradients"),
    (dict(pp=2), tied_weight_counted_twice, "lengths"),
    (dict(pp=2), lengths_of_one_rank_only, "lengths"),
    (dict(cp=2), gradients_of_cp_not_added, "gradients"),
], ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_mistake_between_the_dimensions_is_seen(sizes, mistake, seen_in):
    its_config = deep_config(2, is_tied=True)
    alone = parity.alone(its_config)
    found = on_ranks.launch(without, 2, its_config, sizes, mistake)
    (_, grads, lengths), (_, known_grads, known_lengths) = found[0][0], alone[0]
    wrong = {"gradients": max(float((grads[name] - known_grads[name]).abs().max())
                              for name in grads),
             "lengths": max(abs(a / b - 1) for a, b in zip(lengths, known_lengths, strict=True))}
    assert wrong[seen_in] > 1e-3, wrong


def test_the_same_ranks_without_a_mistake_are_right():
    its_config = deep_config(2, is_tied=True)
    for sizes in (dict(pp=2), dict(cp=2)):
        found = on_ranks.launch(without, 2, its_config, sizes, does_nothing)
        parity.assert_equal(found, parity.alone(its_config))


# --- 405B on 16,384 ranks -------------------------------------------------------------------------


@pytest.mark.parametrize(("mesh", "seq_len"), [
    (Mesh(tp=8, cp=1, pp=16, dp=128), 8192), (Mesh(tp=8, cp=16, pp=16, dp=8), 131072)], ids=str)
def test_405b_on_16384_ranks(mesh, seq_len):
    """Llama 3's own meshes (arXiv:2407.21783, table 4). 126 layers are 16 x 8 pieces, of which the
    first has only the embedding and the last only the head."""
    config = family.config("llama-3.1-405b")
    plan = PipelinePlan(schedule="interleaved", n_chunks=8)
    n_layer = sum(p.numel() for name, p in unwritten(config).named_parameters()
                  if name.startswith("layers.5."))
    n_norms = 2 * config.dim
    for rank, n_layers, others in ((0, 7, config.vocab_size // 8 * config.dim),
                                   (mesh.size - 1, 7, config.vocab_size // 8 * config.dim
                                    + config.dim),
                                   (8 * mesh.cp * 5, 8, 0)):
        with pretended(size=mesh.size, rank=rank) as world:
            axes = mesh.on(world)
            sharded = on_paper(config, axes, plan)
            held = {name: tuple(p.shape) for name, p in sharded.model.named_parameters()}
            n_held = sum(p.numel() for p in sharded.model.parameters())
            n_own = sum(p.numel() for p in sharded.params.values())
        assert len({name.split(".")[1] for name in held if "layers" in name}) == n_layers
        assert n_held == n_layers * ((n_layer - n_norms) // 8 + n_norms) + others
        first = next(name for name in held if name.endswith("wq.weight")).split(".")[1]
        assert held[f"layers.{first}.attention.wq.weight"] == (2048, 16384)
        assert held[f"layers.{first}.feed_forward.w_down.weight"] == (16384, 6656)
        n_shards = mesh.cp * mesh.dp
        assert n_shards == 128 and abs(n_own - n_held / n_shards) <= 128 * 10  # padding
        # Bytes on this rank: bf16 weights, whole fp32 gradients, and its part of master weights
        # and averages.
        assert 2 * n_held + 4 * n_held + 12 * n_own < 80 * 2**30
    assert axes.pp.size == 16 and axes.cp.size == mesh.cp and seq_len % (2 * mesh.cp) == 0


def on_paper(config, axes, plan):
    def nothing():
        for name, p in unwritten(config).named_parameters():
            yield name, torch.empty(p.shape, device="meta")

    return shard(unwritten(config), axes, stage=2, is_sequence_parallel=True, pipeline=plan,
                 param_dtype=torch.bfloat16, weights=nothing())

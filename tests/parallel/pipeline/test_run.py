"""Every schedule, executed on ranks, computes what one process computes; and broken ones do not."""

import dataclasses
from fractions import Fraction

import on_ranks
import pipeline_on_ranks
import pytest

from llama_from_scratch.parallel.launch import RankFailed, Ranks
from llama_from_scratch.parallel.pipeline import deferred, schedule
from llama_from_scratch.parallel.pipeline.layers import layers_of
from llama_from_scratch.parallel.pipeline.schedules import make

on_ranks.by_value(__name__)
on_ranks.by_value("pipeline_on_ranks")


@pytest.fixture(scope="module")
def two():
    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def known():
    its_config = pipeline_on_ranks.deep_config(4)
    return its_config, *pipeline_on_ranks.alone(its_config)


def counts_of(its_config, order):
    return [len(layers) for layers in layers_of(its_config.n_layers, order.n_pieces)]


def difference(results, known):
    """The largest difference of losses, validations and gradients; each name is on some rank."""
    _, loss, grads = known
    assert {name for found in results for name in found["grads"]} == set(grads)
    return max([abs(results[-1]["loss"] - loss)]
               + [abs(found["validation"] - loss) for found in results]
               + [float((grad - grads[name]).abs().max())
                  for found in results for name, grad in found["grads"].items()])


ORDERS = {
    "gpipe": make("gpipe", 2, n_micro_batches=4), "1f1b": make("1f1b", 2, n_micro_batches=4),
    "interleaved": make("interleaved", 2, n_micro_batches=4, n_chunks=2),
    "breadth-first": make("interleaved", 2, n_micro_batches=4, n_chunks=3, n_together=4),
    "zero bubble": make("zero_bubble", 2, n_micro_batches=4)}
"""A zero bubble of three micro-batches, beside dp, is in tests/parallel/test_four_d.py."""


@pytest.mark.parametrize("recomputes", (False, True), ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", ORDERS)
def test_a_schedule_computes_what_one_process_computes(two, known, name, recomputes):
    """Also W passes: a runtime forgot to divide them by the number of micro-batches
    (pytorch#164777)."""
    order = ORDERS[name]
    results = two.run(pipeline_on_ranks.through_pipeline, known[0], order,
                      counts_of(known[0], order), recomputes=recomputes)
    assert difference(results, known) < 1e-12
    for rank, found in enumerate(results):
        assert found["spans"] == [str(op) for op in order.ops[rank]]


def test_micro_batches_of_different_sizes(two, known):
    order = make("1f1b", 2, n_micro_batches=2)
    results = two.run(pipeline_on_ranks.through_pipeline, known[0], order, (2, 2), micro_rows=3)
    assert difference(results, known) < 1e-12


def test_ranks_send_one_stream_forward_and_one_gradient_back_per_micro_batch(two, known):
    its_config = known[0]
    for name, hops in (("1f1b", 1), ("interleaved", 3)):
        order = ORDERS[name]
        results = two.run(pipeline_on_ranks.through_pipeline, its_config, order,
                          counts_of(its_config, order))
        streams = sum(found["sent_bytes"] for found in results)
        one = Fraction(16 * its_config.dim * 8)  # tokens of a micro-batch, in float64
        assert streams == (2 * 4 + 4) * hops * one  # the validation sends its four rows, too
        assert sum(found["counts"]["send"] for found in results) == 2 * 4 * hops


def test_a_rank_keeps_as_many_micro_batches_as_its_schedule_says(two, known):
    for name, most in (("gpipe", [4, 4]), ("1f1b", [2, 1])):
        order = ORDERS[name]
        results = two.run(pipeline_on_ranks.through_pipeline, known[0], order, (2, 2))
        assert [found["most_in_flight"] for found in results] == most


# --- planted mistakes ---------------------------------------------------------------------------


def twice_for_each_use(pipeline):
    """The mistake of runtimes that count a weight of two nodes for each of them."""
    put_off = deferred.WeightGradients.put_off

    def doubled(self, product):
        put_off(self, product)
        put_off(self, product)

    pipeline._put_off.put_off = lambda product: doubled(pipeline._put_off, product)


def test_a_gradient_that_is_added_twice_is_seen(two, known):
    results = two.run(pipeline_on_ranks.through_pipeline, known[0], ORDERS["zero bubble"], (2, 2),
                      change=twice_for_each_use)
    assert difference(results, known) > 1e-3


def test_a_missing_pass_is_seen(two, known):
    order = ORDERS["zero bubble"]
    shorter = tuple(op for op in order.ops[1] if op != schedule.Op(kind="W", micro_batch=2))
    results = two.run(pipeline_on_ranks.through_pipeline, known[0],
                      dataclasses.replace(order, ops=(order.ops[0], shorter)), (2, 2))
    assert difference(results, known) > 1e-3


def test_the_loss_must_be_divided_by_the_targets_of_the_whole_batch(two, known):
    """Means of the micro-batches' means are another number, because targets are uneven."""
    results = two.run(pipeline_on_ranks.through_pipeline, known[0], ORDERS["1f1b"], (2, 2),
                      change=means_of_means)
    assert difference(results, known) > 1e-3


def means_of_means(pipeline):
    step = pipeline.step

    def wrong(micro_batches, *, loss, n_targets):
        def mean(model, batch, *, is_bf16):
            return loss(model, batch, is_bf16=is_bf16) / batch.n_targets

        return step(micro_batches, loss=mean, n_targets=len(micro_batches))

    pipeline.step = wrong


# --- errors -------------------------------------------------------------------------------------


def fails_in_the_middle(pipeline):
    block = next(module for name, module in pipeline.model.layers.named_children()
                 if any(True for _ in module.parameters()))
    if pipeline.group.rank == 1:
        block.register_forward_hook(raise_it)


def raise_it(*_):
    raise ArithmeticError("broken layer")


def test_an_error_on_one_rank_ends_all(known):
    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks, pytest.raises(
            RankFailed, match="rank 1 raised ArithmeticError: broken layer"):
        ranks.run(pipeline_on_ranks.through_pipeline, known[0], ORDERS["1f1b"], (2, 2),
                  change=fails_in_the_middle)

"""Two ways to train with evenly used experts do what they say, and validation stays plain."""

import dataclasses

import pytest
import torch
from tiny_experiments import tiny

from llama_from_scratch.config import Experts, LayerSpec
from llama_from_scratch.experiments.running import prepare
from llama_from_scratch.model.moe import BestScores, BiasedChoice, balancing_loss, routings_of
from llama_from_scratch.train import TrainParts, train
from llama_from_scratch.train.balance import BalancedNats, BiasedSteps
from llama_from_scratch.train.loss import sum_of_nats

EXPERTS = Experts(n_experts=4, n_active=1, width=16, shared_width=16)


def prepared(tmp_path, **settings):
    plain = LayerSpec(feed_forward=EXPERTS).to_dict()["feed_forward"]
    return prepare(tiny(tmp_path, **{"model.layers.feed_forward": plain} | settings))


def first_batch(found):
    return found.data.batch(0, batch_size=2, seq_len=16, seed=0)


def test_the_loss_is_the_nats_and_a_part_of_the_balancing_loss_for_each_target(tmp_path):
    found = prepared(tmp_path)
    batch = first_batch(found)
    with routings_of(found.model) as routings:
        nats = sum_of_nats(found.model, batch)
    (passes,) = routings.values()
    expected = nats + 0.3 * batch.n_targets * balancing_loss(passes)
    torch.testing.assert_close(BalancedNats(factor=0.3)(found.model, batch), expected)


def test_micro_batches_weigh_the_balancing_loss_by_their_targets(tmp_path):
    found = prepared(tmp_path)
    batch, loss = first_batch(found), BalancedNats(factor=100.0)
    parts = [(loss(found.model, each) - sum_of_nats(found.model, each)).item()
             for each in batch.split(1)]
    for part, each in zip(parts, batch.split(1), strict=True):
        assert part / each.n_targets == pytest.approx(100.0, rel=0.5), "near 1 for a fresh router"


def test_the_factor_moves_the_router_and_factor_zero_does_not(tmp_path):
    grads = []
    for factor in (0.0, 1.0):
        found = prepared(tmp_path)
        BalancedNats(factor=factor)(found.model, first_batch(found)).backward()
        grads.append(found.model.layers[0].feed_forward.router.directions.weight.grad)
    found = prepared(tmp_path)
    sum_of_nats(found.model, first_batch(found)).backward()
    plain = found.model.layers[0].feed_forward.router.directions.weight.grad
    torch.testing.assert_close(grads[0], plain)
    assert not torch.allclose(grads[1], plain)


def test_a_dense_model_is_refused_by_both(tmp_path):
    found = prepare(tiny(tmp_path))
    with pytest.raises(ValueError, match="only a model with experts has routings"):
        BalancedNats(factor=0.1)(found.model, first_batch(found))
    with (pytest.raises(ValueError, match="only a model with experts has routings"),
          BiasedSteps(rate=0.1)(found.model, TrainParts())):
        pass


def test_biases_move_after_each_step_by_the_choices_since_the_last_one(tmp_path):
    found = prepared(tmp_path)
    choice_of = lambda: found.model.layers[0].feed_forward.router.choose
    seen = []

    def on_step(step):
        assert isinstance(choice_of(), BiasedChoice) and choice_of().counts_E.sum() == 0
        seen.append(choice_of().bias_E.clone())

    with BiasedSteps(rate=0.25)(found.model, TrainParts()) as parts:
        train(found.model, found.data, config=tiny(tmp_path).train, on_step=on_step, parts=parts,
              validation=found.validation)
    assert isinstance(choice_of(), BestScores)
    moves = torch.stack(seen).diff(dim=0, prepend=torch.zeros(1, 4))
    assert set(moves.abs().unique().tolist()) <= {0.0, 0.25} and moves.any(1).all()


def test_validation_is_without_the_biases_and_is_not_counted(tmp_path):
    found = prepared(tmp_path)
    router = found.model.layers[0].feed_forward.router
    plain = TrainParts().evaluate(found.model, found.validation, batch_size=2, seq_len=16)
    with BiasedSteps(rate=0.1)(found.model, TrainParts()) as parts:
        router.choose.bias_E += torch.tensor([9.0, 0.0, 0.0, 0.0])
        biased = TrainParts().evaluate(found.model, found.validation, batch_size=2, seq_len=16)
        router.choose.counts_E.zero_()
        without = parts.evaluate(found.model, found.validation, batch_size=2, seq_len=16,
                                 is_bf16=False)
        assert router.choose.counts_E.sum() == 0 and found.model.training
    assert without == plain != biased


def test_other_parts_of_a_step_stay_and_their_reduce_is_called(tmp_path):
    found, seen = prepared(tmp_path), []
    given = dataclasses.replace(
        TrainParts(), reduce=lambda model, loss: seen.append(loss) or 2 * loss)
    with BiasedSteps(rate=0.1)(found.model, given) as parts:
        assert parts.reduce(found.model, torch.tensor(3.0)) == 6 and seen == [3]
        assert parts.clip is given.clip

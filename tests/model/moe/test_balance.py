import math

import pytest
import torch
from llama4_twin import loud_llama4, random_ids, toy
from torch.nn import functional as F

from llama_from_scratch.model.moe.balance import (
    Balance,
    BiasedChoice,
    balance_of,
    balancing_loss,
    biased_choices,
    routings_of,
)
from llama_from_scratch.model.moe.routing import BestScores, Routing


def routing_of(experts, *, n_experts=4, logits=None):
    experts = torch.tensor(experts)
    logits = torch.zeros(len(experts), n_experts) if logits is None else logits
    return Routing(logits=logits, experts=experts, scores=torch.ones(experts.shape))


def test_shares_and_the_effective_number_are_those_of_the_counts():
    balance = balance_of([routing_of([[0], [0], [1]]), routing_of([[3]])])
    assert balance.counts.tolist() == [2, 1, 0, 1]
    assert balance.shares.tolist() == [0.5, 0.25, 0.0, 0.25]
    assert balance.entropy == pytest.approx(1.5 * math.log(2))
    assert balance.n_effective == pytest.approx(2 ** 1.5)


def test_even_use_has_all_experts_and_one_favorite_has_one():
    assert Balance(counts=torch.full((8,), 5)).n_effective == pytest.approx(8)
    assert Balance(counts=torch.tensor([0, 0, 7])).n_effective == pytest.approx(1)


def test_overflow_is_the_share_of_choices_above_the_room():
    balance = Balance(counts=torch.tensor([6, 2, 0, 0]))  # an even share is 2
    assert balance.overflow(1.0) == pytest.approx(4 / 8)
    assert balance.overflow(2.0) == pytest.approx(2 / 8)
    assert balance.overflow(3.0) == 0


def test_the_use_of_no_pass_is_refused():
    with pytest.raises(ValueError, match="over at least one pass; got none"):
        balance_of([])
    with pytest.raises(ValueError, match="at least one layer with experts; got none"):
        balancing_loss([])


def test_the_balancing_loss_is_its_formula_and_1_for_even_use():
    torch.manual_seed(0)
    logits = torch.randn(9, 4)
    experts = logits.topk(2, dim=1).indices
    routing = Routing(logits=logits, experts=experts, scores=torch.ones(9, 2))
    expected = 0.0
    for e in range(4):
        share = (experts == e).sum() / 18
        expected += 4 * share * logits.softmax(-1)[:, e].mean()
    torch.testing.assert_close(balancing_loss([routing]), expected)
    even = routing_of([[0], [1], [2], [3]])
    assert balancing_loss([even]).item() == pytest.approx(1)
    torch.testing.assert_close(balancing_loss([routing, even]), (expected + 1) / 2)


def test_the_balancing_loss_pushes_tokens_away_from_the_favorite():
    logits = torch.zeros(4, 3, requires_grad=True)
    balancing_loss([routing_of([[0], [0], [0], [1]], logits=logits, n_experts=3)]).backward()
    slope = logits.grad.sum(0)
    assert slope[0] > slope[1] > slope[2] and slope[0] > 0 > slope[2]


def test_routings_are_collected_by_layer_and_pass_with_their_graph():
    model, ids = loud_llama4(toy(step=2)), random_ids(2, 7)
    with routings_of(model) as routings:
        model(ids)
        model(ids[:, :3])
    assert list(routings) == ["layers.1.feed_forward", "layers.3.feed_forward"]
    for passes in routings.values():
        assert [len(routing.experts) for routing in passes] == [14, 6]
    balancing_loss([r for passes in routings.values() for r in passes]).backward()
    assert model.layers[3].feed_forward.router.directions.weight.grad.any()
    model(ids)
    assert all(len(passes) == 2 for passes in routings.values()), "the hooks are gone"


def test_routings_of_a_model_without_experts_are_refused():
    model = loud_llama4(toy())
    model.layers = model.layers[:0]
    with pytest.raises(ValueError, match="only a model with experts has routings"), \
            routings_of(model):
        pass


def test_a_bias_counts_for_the_choice_in_training_and_not_for_the_score():
    model, ids = loud_llama4(toy(n_layers=1)), random_ids(2, 9)
    router = model.layers[0].feed_forward.router
    with biased_choices(model) as choices, routings_of(model) as routings:
        [choice] = choices
        choice.bias_E[2] = 100.0
        model(ids)
        model.eval()
        model(ids)
        model.train()
    with_bias, without = routings["layers.0.feed_forward"]
    assert (with_bias.experts == 2).all() and not (without.experts == 2).all()
    torch.testing.assert_close(with_bias.scores[:, 0], with_bias.logits[:, 2].sigmoid())
    assert choice.counts_E.tolist() == [0, 0, 18, 0], "evaluation is not counted"
    assert type(router.choose) is BestScores and router.choose.training


def test_a_nudge_raises_who_was_chosen_less_than_the_mean():
    choice = BiasedChoice(4)
    choice.counts_E += torch.tensor([5, 1, 2, 0])
    choice.nudge(0.1)
    torch.testing.assert_close(choice.bias_E, torch.tensor([-0.1, 0.1, 0.0, 0.1]))
    assert not choice.counts_E.any()


def test_both_ways_make_the_use_more_even_and_training_alone_does_not_have_to():
    """From a router that sends three quarters of the tokens to one expert."""
    def uneven():
        model = loud_llama4(toy(n_layers=1)).train()
        with torch.no_grad():
            model.layers[0].feed_forward.router.directions.weight[1] *= 6
        return model

    def n_effective(model):
        with torch.no_grad(), routings_of(model) as routings:
            model(ids)
        return balance_of(routings["layers.0.feed_forward"]).n_effective

    ids = random_ids(8, 32)
    start = n_effective(uneven())
    by_loss = uneven()
    rate = torch.optim.SGD(by_loss.layers[0].feed_forward.router.parameters(), lr=1.0)
    for _ in range(30):
        with routings_of(by_loss) as routings:
            logits = by_loss(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        rate.zero_grad()
        (loss + balancing_loss(routings["layers.0.feed_forward"])).backward()
        rate.step()
    by_bias = uneven()
    with biased_choices(by_bias) as [choice]:
        for _ in range(60):
            by_bias(ids)
            choice.nudge(0.2)
        found = n_effective(by_bias)
    assert n_effective(by_loss) > start + 0.5 and found > start + 0.5

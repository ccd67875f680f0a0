import copy
import dataclasses

import pytest
import torch
from llama4_twin import loud_llama4, random_ids, toy
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.config import Experts
from llama_from_scratch.model.moe.layer import MoE
from llama_from_scratch.model.moe.upcycling import upcycle
from llama_from_scratch.model.transformer import Llama

IDS = random_ids(2, 9, vocab_size=60)


def dense(**changes):
    torch.manual_seed(0)
    return Llama(dataclasses.replace(family.tiny("llama-3"), **changes))


def grown(model, **changes):
    return upcycle(model, **dict(n_experts=4, width=32) | changes)


@pytest.mark.parametrize("changes", [{}, dict(n_active=3), dict(every=2), dict(seed=5)], ids=str)
def test_at_first_it_computes_exactly_what_the_dense_model_computes(changes):
    model = dense()
    assert torch.equal(grown(model, **changes)(IDS), model(IDS))


def test_every_second_layer_begins_with_the_second():
    model = grown(dense(), every=2)
    kinds = [type(block.feed_forward) is MoE for block in model.layers]
    assert kinds == [i % 2 == 1 for i in range(len(kinds))]
    specs = [isinstance(spec.feed_forward, Experts) for spec in model.config.layers]
    assert specs == kinds
    assert model.config.n_active_params < sum(p.numel() for p in model.parameters())


def test_the_dense_model_stays_as_it_is_and_shares_no_memory():
    model = dense()
    before, config = copy.deepcopy(model.state_dict()), model.config
    other = grown(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    assert model.config is config
    assert all(torch.equal(model.state_dict()[name], x) for name, x in before.items())


def test_experts_are_different_channels_of_the_dense_layer():
    model = dense()
    other = grown(model)
    w_gate = model.layers[0].feed_forward.w_gate.weight
    experts = other.layers[0].feed_forward.experts
    rows = {tuple(row.tolist()): i for i, row in enumerate(w_gate)}
    chosen = [[rows[tuple(row.tolist())] for row in expert.T] for expert in experts.w_gate]
    assert all(len(set(each)) == 32 for each in chosen)
    assert len({tuple(each) for each in chosen}) == 4, "each expert has others"
    w_up = model.layers[0].feed_forward.w_up.weight
    for expert, channels in zip(experts.w_up, chosen, strict=True):
        assert torch.equal(expert.T, w_up[channels]), "a channel keeps its gate and its up together"


def test_the_seed_decides_and_torchs_generator_does_not_move():
    model = dense()
    state = torch.get_rng_state()
    one, same, other = (grown(model, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "layers.0.feed_forward.router.directions.weight"
    assert not torch.equal(one[name], other[name])


def test_training_moves_the_experts_first_and_then_the_router():
    model = grown(dense())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rate, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for step in range(12):
        logits = model(IDS)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        rate.zero_grad()
        loss.backward()
        if step == 0:
            layer = model.layers[0].feed_forward
            assert layer.experts.w_down.grad.any()
            assert not layer.router.directions.weight.grad.any()
            assert not layer.experts.w_gate.grad.any()
        rate.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_and_mode_are_those_of_the_dense_model(dtype):
    model = dense().to(dtype).eval()
    other = grown(model)
    assert {p.dtype for p in other.parameters()} == {dtype}
    assert not any(part.training for part in other.modules())
    assert torch.equal(other(IDS), model(IDS))


def test_what_cannot_be_grown_is_refused():
    model = dense()
    with pytest.raises(ValueError, match="only a Llama can be upcycled; got Linear"):
        upcycle(torch.nn.Linear(2, 2), n_experts=4, width=2)
    with pytest.raises(ValueError, match="`every` counts layers, from 1 to .*; got 0"):
        grown(model, every=0)
    with pytest.raises(ValueError, match=r"width must be at most \d+; got 100000"):
        grown(model, width=100_000)
    with pytest.raises(ValueError, match="without biases; layer 0 has a MoE"):
        grown(loud_llama4(toy()), width=8)
    with pytest.raises(ValueError, match="layer 0 has a FeedForward with biases"):
        grown(dense(has_ffn_bias=True))

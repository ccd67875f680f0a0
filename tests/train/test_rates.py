import pytest
import torch
from small_seeing import seeing_model
from torch import nn

from llama_from_scratch.train.rates import Rates, gates_of, without_gates
from llama_from_scratch.vision.cross_attention import CrossBlock


def steps(groups, *, n_steps, n_taken):
    """The places of parameters that start at 0, after steps against a gradient of 1 each."""
    rates = Rates(groups, n_steps=n_steps)
    for _ in range(n_taken):
        rates.step(sum(p.sum() for p in rates.params))
    return [p.item() for p in rates.params]


def test_each_group_goes_its_own_length_even_where_two_rates_are_equal():
    params = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups = [(rate, {str(i): p}) for i, (rate, p) in enumerate(
        zip((1e-3, 1e-2, 1e-3), params, strict=True))]
    slow, fast, other = steps(groups, n_steps=100, n_taken=50)
    assert slow == other < 0 and fast == pytest.approx(10 * slow, rel=1e-5)


def test_the_rate_rises_and_falls():
    params = [nn.Parameter(torch.zeros(1))]
    rates, places = Rates([(1.0, {"p": params[0]})], n_steps=100), [0.0]
    for _ in range(100):
        rates.step(params[0].sum())
        places.append(params[0].item())
    lengths = [before - after for before, after in zip(places, places[1:], strict=False)]
    assert lengths[0] < lengths[15] < lengths[30] > lengths[60] > lengths[99]
    assert lengths[30] == pytest.approx(1.0, rel=0.01)
    assert lengths[99] == pytest.approx(0.02, rel=0.05)


def test_gates_are_single_numbers_and_not_the_gate_of_a_feed_forward():
    block = seeing_model(300).layers[1].cross
    assert isinstance(block, CrossBlock)
    params = dict(block.named_parameters())
    assert set(gates_of(params)) == {"attention_gate.weight", "ffn_gate.weight"}
    assert "feed_forward.w_gate.weight" in without_gates(params)
    assert gates_of(params) | without_gates(params) == params

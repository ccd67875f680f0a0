"""Gradients of weights that are put off are those that backward would have computed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.parallel.pipeline.deferred import Product, WeightGradients, deliver


class Stage(nn.Module):
    """A weight used twice, products with several outputs, a bias, and a weight of no product.

    Runtimes have doubled the first (pytorch#180952) and mixed up the second (pytorch#170277).
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.twice = nn.Linear(6, 6)
        self.qkv = nn.Linear(6, 18, bias=False)
        self.gate_up = nn.Linear(6, 10, bias=False)
        self.down = nn.Linear(5, 6)
        self.scale = nn.Parameter(torch.rand(6))
        self.double()

    def forward(self, x):
        q, k, v = self.qkv(x * self.scale).chunk(3, dim=-1)
        x = x + q * k + v
        x = self.twice(torch.tanh(self.twice(x)))
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def plain(xs, **how):
    stage = Stage(**how)
    inputs = [x.clone().requires_grad_() for x in xs]
    for x in inputs:
        (stage(x) ** 2).sum().backward()
    return {name: p.grad for name, p in stage.named_parameters()}, [x.grad for x in inputs]


def in_two_halves(xs, *, order=None):
    """The gradients, those of the inputs, and which parameters had one before the second half."""
    stage, store = Stage(), WeightGradients()
    store.split(stage)
    inputs, later = [x.clone().requires_grad_() for x in xs], []
    for x in inputs:
        y = (stage(x) ** 2).sum()
        with store.collecting() as products:
            y.backward()
        later.append(products)
    before = {name for name, p in stage.named_parameters() if p.grad is not None}
    for number in order or range(len(later)):
        deliver(later[number])
    return {name: p.grad for name, p in stage.named_parameters()}, [x.grad for x in inputs], before


@pytest.mark.parametrize("order", ([0, 1, 2], [2, 0, 1]))
def test_shared_weights_and_products_with_several_outputs_over_three_micro_batches(order):
    xs = [torch.randn(2, 3, 6, dtype=torch.float64) for _ in range(3)]
    grads, of_inputs = plain(xs)
    found, found_of_inputs, before = in_two_halves(xs, order=order)
    assert before == {"scale", "twice.bias", "down.bias"}
    for name, grad in grads.items():
        assert torch.allclose(found[name], grad, rtol=0, atol=1e-12), name
    assert all(torch.equal(a, b) for a, b in zip(of_inputs, found_of_inputs, strict=True))


def test_a_product_is_there_once_for_each_use():
    stage, store = Stage(), WeightGradients()
    store.split(stage)
    y = stage(torch.randn(2, 6, dtype=torch.float64).requires_grad_()).sum()
    with store.collecting() as later:
        y.backward()
    assert len(later) == 5


def test_without_collecting_nothing_is_put_off():
    x = torch.randn(2, 6, dtype=torch.float64)
    grads, _ = plain([x])
    stage = Stage()
    WeightGradients().split(stage)
    (stage(x.clone().requires_grad_()) ** 2).sum().backward()
    assert all(torch.allclose(p.grad, grads[name], rtol=0, atol=1e-12)
               for name, p in stage.named_parameters())


def test_hooks_of_a_parameter_see_the_gradient():
    """Otherwise ranks along dp would never add it up (pytorch#144530)."""
    p, seen = nn.Parameter(torch.zeros(2, 3)), []
    p.register_post_accumulate_grad_hook(lambda q: seen.append(q.grad.clone()))
    product = Product(weight=p, x=torch.ones(4, 3), dy=torch.ones(4, 2))
    deliver([product])
    deliver([product, product])
    assert [grad.unique().tolist() for grad in seen] == [[4.0], [12.0]]


def test_frozen_weights_and_inputs_without_gradients_need_one_product_only():
    stage, store = Stage(), WeightGradients()
    stage.qkv.weight.requires_grad_(False)
    store.split(stage)
    y = stage.gate_up(torch.randn(2, 6, dtype=torch.float64)).sum()
    z = stage.qkv(torch.randn(2, 6, dtype=torch.float64).requires_grad_()).sum()
    with store.collecting() as later:
        (y + z).backward()
    assert not later and stage.gate_up.weight.grad is not None and stage.qkv.weight.grad is None


def test_autocast_multiplies_in_bfloat16_and_gives_gradients_of_the_weight_s_dtype():
    torch.manual_seed(1)
    layer, store = nn.Linear(8, 4), WeightGradients()
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        known = layer(x)
        store.split(layer)
        found = layer(x)
    assert found.dtype == known.dtype == torch.bfloat16 and torch.equal(found, known)
    (expected,) = torch.autograd.grad(known.float().sum(), layer.weight)
    with store.collecting() as later:
        found.float().sum().backward()
    deliver(later)
    assert layer.weight.grad.dtype == torch.float32
    assert torch.allclose(layer.weight.grad, expected, atol=1e-2)

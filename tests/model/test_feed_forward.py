import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.config import Dense, FeedForwardSpec, record
from llama_from_scratch.model.feed_forward import FeedForward, SwiGLU, build


def products(layer, values):
    return [sum(w * v for w, v in zip(row, values, strict=True)) for row in layer.weight.tolist()]


def test_feed_forward_equals_the_formula_channel_by_channel():
    torch.manual_seed(0)
    ffn, x = FeedForward(4, 6), torch.randn(3, 4)
    for n in range(3):
        gate, up = products(ffn.w_gate, x[n].tolist()), products(ffn.w_up, x[n].tolist())
        hidden = torch.tensor([g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)])
        torch.testing.assert_close(ffn(x)[n], ffn.w_down.weight @ hidden)


def test_the_gate_is_the_branch_that_passes_through_silu():
    ffn = FeedForward(1, 1)
    for weight, value in ((ffn.w_gate, 2.0), (ffn.w_up, 3.0), (ffn.w_down, 1.0)):
        torch.nn.init.constant_(weight.weight, value)
    torch.testing.assert_close(ffn(torch.ones(1, 1)), F.silu(torch.tensor([[2.0]])) * 3)


def test_a_closed_gate_lets_nothing_through():
    ffn = FeedForward(2, 5)
    torch.nn.init.zeros_(ffn.w_gate.weight)
    assert torch.equal(ffn(torch.randn(7, 2)), torch.zeros(7, 2))


def test_the_activation_is_a_part_without_parameters():
    gate, up = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([3.0, 3.0, -5.0])
    expected = torch.tensor([-3 / (1 + math.e), 0.0, -10 / (1 + math.exp(-2))])
    torch.testing.assert_close(SwiGLU()(gate, up), expected)
    assert not list(SwiGLU().parameters())


class Product(nn.Module):
    def forward(self, gate, up):
        return gate * up


def test_another_part_can_replace_the_activation():
    torch.manual_seed(0)
    ffn, x = FeedForward(4, 6), torch.randn(3, 4)
    ffn.activation = Product()
    torch.testing.assert_close(ffn(x), ffn.w_down(ffn.w_gate(x) * ffn.w_up(x)))


def test_build_makes_the_module_that_a_spec_describes():
    assert build(Dense(width=6, has_bias=True), 4).w_up.bias.shape == (6,)
    built = build(Dense(width=6), 4)
    assert built.w_gate.bias is None
    assert type(built) is FeedForward
    assert built.w_gate.weight.shape == built.w_up.weight.shape == (6, 4)
    assert built.w_down.weight.shape == (4, 6)


def test_a_spec_whose_module_is_not_registered_is_refused():
    @record
    class Sparse(FeedForwardSpec):
        n_experts: int

    with pytest.raises(ValueError, match=r"a feed-forward must be one of Dense.*; got .*Sparse\("
                                         r"n_experts=8\)\. Register its module with"):
        build(Sparse(n_experts=8), 4)


def test_a_record_below_dense_is_another_kind_and_builds_nothing_by_itself():
    @record
    class Wider(Dense):
        pass

    with pytest.raises(ValueError, match="a feed-forward must be one of Dense.*; got .*Wider"):
        build(Wider(width=8), 4)

import torch
from torch.nn import functional as F

from llama_from_scratch.model.feed_forward import FeedForward


def test_feed_forward_equals_the_formula_channel_by_channel():
    torch.manual_seed(0)
    ffn, x = FeedForward(4, 6), torch.randn(3, 4)
    for n in range(3):
        gate = [sum(w * v for w, v in zip(row, x[n].tolist())) for row in ffn.w_gate.weight.tolist()]
        up = [sum(w * v for w, v in zip(row, x[n].tolist())) for row in ffn.w_up.weight.tolist()]
        hidden = torch.tensor([g / (1 + torch.tensor(-g).exp().item()) * u for g, u in zip(gate, up)])
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

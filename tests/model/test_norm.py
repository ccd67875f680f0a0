import math

import pytest
import torch
from torch.nn import functional as F

from llama_from_scratch.model.norm import AddNorm, HeadNorm, RMSNorm


def make(dim=8, eps=1e-5, dtype=torch.float32):
    norm = RMSNorm(dim, eps=eps).to(dtype)
    torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    return norm


def test_norm_equals_the_formula_written_as_a_loop():
    torch.manual_seed(0)
    norm, x = make(), torch.randn(2, 3, 8)
    for b in range(2):
        for t in range(3):
            values = x[b, t].tolist()
            size = math.sqrt(sum(v * v for v in values) / 8 + 1e-5)
            weights = norm.weight.tolist()
            expected = torch.tensor([v / size * w for v, w in zip(values, weights, strict=True)])
            torch.testing.assert_close(norm(x)[b, t], expected, rtol=1e-6, atol=1e-6)


def test_scaling_the_input_leaves_the_output_unchanged_when_eps_is_negligible():
    torch.manual_seed(0)
    norm, x = make(eps=1e-12), torch.randn(4, 8)
    torch.testing.assert_close(norm(100 * x), norm(x))


def test_eps_keeps_a_zero_token_at_zero():
    assert torch.equal(make()(torch.zeros(1, 8)), torch.zeros(1, 8))


def test_output_and_gradients_equal_torch_rms_norm():
    torch.manual_seed(0)
    norm, x = make(), torch.randn(5, 8, requires_grad=True)
    fake_loss = torch.randn(5, 8)
    our_output, their_output = norm(x), F.rms_norm(x, (8,), norm.weight, 1e-5)
    torch.testing.assert_close(our_output, their_output)
    ours, theirs = (torch.autograd.grad((out * fake_loss).sum(), [x, norm.weight])
                    for out in (our_output, their_output))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_normalized_in_fp32_and_cast_before_the_weight(dtype):
    torch.manual_seed(0)
    norm, x = make(64, dtype=dtype), (300 * torch.randn(50, 64)).to(dtype)  # 300^2 overflows fp16
    wide = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(norm(x), wide.to(dtype) * norm.weight)
    other_order = (wide * norm.weight.float()).to(dtype)
    assert not torch.equal(norm(x), other_order), "the test must tell the two orders apart"


def test_fresh_weights_are_ones_again():
    norm = make()
    norm.init_weights()
    assert torch.equal(norm.weight, torch.ones(8)) and norm.weight.requires_grad


def test_add_norm_returns_the_norm_of_the_sum_and_the_sum():
    torch.manual_seed(0)
    norm, (x, addition) = make(), torch.randn(2, 5, 8)
    normed, total = AddNorm()(x, addition, norm)
    assert torch.equal(total, x + addition)
    assert torch.equal(normed, norm(x + addition))
    assert not torch.allclose(normed, norm(x)) and not list(AddNorm().parameters())


def test_heads_are_normed_each_alone_by_the_formula_written_as_a_loop():
    torch.manual_seed(0)
    norm, x = HeadNorm(eps=1e-5), torch.randn(2, 3, 4, 8) * torch.tensor([1.0, 5, 0.1, 40])[:, None]
    found = norm(x)
    for b, t, h in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        values = x[b, t, h].tolist()
        size = math.sqrt(sum(v * v for v in values) / 8 + 1e-5)
        torch.testing.assert_close(found[b, t, h], torch.tensor([v / size for v in values]))
    assert not list(norm.parameters())


def test_the_norm_of_some_heads_does_not_depend_on_how_many_there_are():
    """So ranks that hold some of the heads compute what one process computes."""
    torch.manual_seed(0)
    norm, x = HeadNorm(eps=1e-5), torch.randn(2, 3, 4, 8)
    assert torch.equal(norm(x)[:, :, 1:3], norm(x[:, :, 1:3]))
    whole = F.rms_norm(x.flatten(-2), (32,), eps=1e-5).view_as(x)
    assert not torch.allclose(norm(x), whole, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_of_low_precision_are_normed_in_fp32(dtype):
    torch.manual_seed(0)
    x = (300 * torch.randn(2, 5, 4, 64)).to(dtype)
    expected = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(HeadNorm(eps=1e-5)(x), expected.to(dtype))

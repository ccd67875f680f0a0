import math

import pytest
import torch
from torch import nn

from llama_from_scratch.model.adapted import AdaptedLinear, LowRank, adapters
from llama_from_scratch.model.costs import matmul_flops
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear

HOW = LowRank(rank=3, alpha=6.0)


def made(base=None, how=HOW, *, is_trained=True, seed=0):
    """An adapted layer of 5 inputs and 4 outputs; a trained one adds something."""
    torch.manual_seed(seed)
    layer = AdaptedLinear(nn.Linear(5, 4) if base is None else base, how)
    layer.init_weights(generator=torch.Generator().manual_seed(seed))
    if is_trained:
        nn.init.normal_(layer.w_b)
    return layer


def test_a_new_adapter_changes_no_bit():
    layer, x = made(is_trained=False), torch.randn(2, 3, 5)
    assert torch.equal(layer(x), layer.base(x))


def test_the_result_is_the_formula_number_by_number():
    layer, x = made().double(), torch.randn(7, 5, dtype=torch.float64)
    w, bias, a, b = (t.tolist() for t in (
        layer.base.weight, layer.base.bias, layer.w_a, layer.w_b))
    expected = [[bias[d] + sum(w[d][f] * row[f] for f in range(5))
                 + 6.0 / 3 * sum(b[d][r] * sum(a[r][f] * row[f] for f in range(5))
                                 for r in range(3))
                 for d in range(4)] for row in x.tolist()]
    torch.testing.assert_close(layer(x), torch.tensor(expected, dtype=torch.float64))


def test_gradients_are_those_of_one_whole_matrix():
    layer, x = made().double(), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    whole = (layer.base.weight + layer.delta()).detach().requires_grad_()
    y = torch.randn(7, 4, dtype=torch.float64)
    (layer(x) * y).sum().backward()
    (gradient,) = torch.autograd.grad((x.detach() @ whole.T * y).sum(), whole)
    torch.testing.assert_close(layer.w_a.grad, 2.0 * layer.w_b.T @ gradient)
    torch.testing.assert_close(layer.w_b.grad, 2.0 * gradient @ layer.w_a.T)
    torch.testing.assert_close(x.grad, y @ whole.detach())


@pytest.mark.parametrize(("rank", "is_stable", "scale"),
                         [(4, False, 16 / 4), (4, True, 16 / 2), (9, True, 16 / 3)])
def test_scale_is_alpha_over_the_rank_or_over_its_root(rank, is_stable, scale):
    assert LowRank(rank=rank, alpha=16, is_rank_stabilized=is_stable).scale == pytest.approx(scale)


def test_first_numbers_have_a_variance_of_one_over_the_inputs_and_follow_from_the_seed():
    layer = AdaptedLinear(nn.Linear(400, 30), LowRank(rank=20, alpha=1))
    layer.init_weights(generator=torch.Generator().manual_seed(1))
    # 8,000 numbers: the standard error of their standard deviation is 0.8 %.
    assert layer.w_a.std().item() * math.sqrt(400) == pytest.approx(1, abs=0.04)
    assert not layer.w_b.any()
    again = AdaptedLinear(nn.Linear(400, 30), LowRank(rank=20, alpha=1))
    again.init_weights(generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.w_a, layer.w_a)


@pytest.mark.parametrize(("dtype", "expected"), [
    (torch.bfloat16, torch.float32), (torch.float32, torch.float32),
    (torch.float64, torch.float64)])
def test_adapters_have_fp32_at_least_and_results_the_dtype_of_the_base(dtype, expected):
    layer, x = made(nn.Linear(5, 4).to(dtype)), torch.randn(2, 5).to(dtype)
    assert layer.w_a.dtype == layer.w_b.dtype == expected
    assert layer(x).dtype == dtype
    wide = x.to(expected) @ (layer.base.weight.to(expected) + layer.delta()).T
    tolerance = {torch.bfloat16: 3e-2}.get(dtype, 1e-5)  # of sums in 8 bits
    torch.testing.assert_close(layer(x).to(expected), wide + layer.base.bias.to(expected),
                               rtol=tolerance, atol=tolerance)


def test_an_adapter_is_computed_under_autocast():
    layer, x = made(), torch.randn(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("quantized", [
    lambda plain: Int8Linear.from_linear(plain), lambda plain: Int4Linear.from_linear(
        plain, group=32)])
def test_a_quantized_base_can_have_an_adapter_which_learns(quantized):
    torch.manual_seed(0)
    base = quantized(nn.Linear(32, 8))
    layer, x = made(base), torch.randn(3, 32, requires_grad=True)
    expected = x @ (base.dequantized() + layer.delta()).T + base.bias
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert layer.w_a.grad.any() and layer.w_b.grad.any() and x.grad.any()


def test_the_single_weight_of_an_adapted_layer_is_refused_and_its_bias_is_the_base_s():
    layer = made()
    with pytest.raises(ValueError, match=r"no single weight.*tune.lora.merge"):
        _ = layer.weight
    assert layer.bias is layer.base.bias


def test_operations_of_an_adapter_are_counted():
    assert matmul_flops(made(), 0) == 2 * (4 * 5 + 3 * (5 + 4))


def test_adapters_are_found_by_name():
    inner = made()
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": inner}), "c": nn.Linear(2, 2)})
    assert adapters(model) == {"a.b": inner}


@pytest.mark.parametrize(("change", "message"), [
    (dict(rank=0), "LowRank.rank must be an int above 0; got 0"),
    (dict(rank=2.5), "LowRank.rank must be an int above 0"),
    (dict(rank=True), "LowRank.rank must be an int above 0"),
    (dict(alpha=0), "LowRank.alpha must be a number above 0"),
    (dict(alpha=float("nan")), "LowRank.alpha must be a number above 0"),
    (dict(alpha=float("inf")), "LowRank.alpha is used in fp32"),
    (dict(is_rank_stabilized=1), "must be True or False"),
])
def test_settings_that_mean_no_adapter_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LowRank(**dict(rank=4, alpha=8.0) | change)

import copy

import pytest
import torch
import transformers
from llama4_twin import assert_near

from llama_from_scratch.config import Experts
from llama_from_scratch.model import feed_forward
from llama_from_scratch.model.moe.layer import MoE, RoutedExperts

D = 8
SIZES = [dict(n_experts=4, n_active=1), dict(n_experts=4, n_active=2),
         dict(n_experts=7, n_active=3), dict(n_experts=1, n_active=1),
         dict(n_experts=16, n_active=16)]


def make(*, n_experts=4, n_active=2, width=12, shared_width=12, dtype=torch.float32):
    torch.manual_seed(0)
    moe = MoE(D, Experts(n_experts=n_experts, n_active=n_active, width=width,
                         shared_width=shared_width))
    with torch.no_grad():
        for weight in moe.parameters():
            weight.normal_(std=0.6)
    return moe.to(dtype)


def silu(x):
    return x / (1 + torch.exp(-x))


def by_loop(moe, x):
    """Token by token and expert by expert, as the formula has it."""
    rows = []
    for token in x.reshape(-1, D):
        logits = moe.router.directions.weight @ token
        shared = moe.shared
        total = shared.w_down.weight @ (silu(shared.w_gate.weight @ token)
                                        * (shared.w_up.weight @ token))
        for e in logits.argsort(descending=True)[: moe.n_active]:
            scaled = token / (1 + torch.exp(-logits[e]))
            hidden = silu(scaled @ moe.experts.w_gate[e]) * (scaled @ moe.experts.w_up[e])
            total = total + hidden @ moe.experts.w_down[e]
        rows.append(total)
    return torch.stack(rows).view_as(x)


def gradients(moe, x, result, fake):
    names = [name for name, _ in moe.named_parameters()]
    found = torch.autograd.grad((result * fake).sum(), [x, *moe.parameters()], allow_unused=True)
    return dict(zip(["x", *names], found, strict=True))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("n_tokens", [1, 3, 11])
def test_a_layer_equals_a_plain_loop_over_tokens_with_all_gradients(sizes, n_tokens):
    """The number of experts differs from the number of tokens, and no score is 1."""
    moe = make(**sizes, dtype=torch.float64)
    x = torch.randn(n_tokens, D, dtype=torch.float64, requires_grad=True)
    fake = torch.randn_like(x)
    ours, expected = moe(x), by_loop(moe, x)
    torch.testing.assert_close(ours, expected)
    found, wanted = gradients(moe, x, ours, fake), gradients(moe, x, expected, fake)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], msg=lambda text, n=name: f"{n}: {text}")


def twin_of(moe):
    config = transformers.Llama4TextConfig(
        hidden_size=D, intermediate_size=moe.experts.w_up.shape[2],
        num_local_experts=moe.n_experts, num_experts_per_tok=moe.n_active)
    twin = transformers.models.llama4.modeling_llama4.Llama4TextMoe(config)
    shared, experts = moe.shared, moe.experts
    twin.load_state_dict({
        "router.weight": moe.router.directions.weight,
        "experts.gate_up_proj": torch.cat([experts.w_gate, experts.w_up], -1),
        "experts.down_proj": experts.w_down, "shared_expert.gate_proj.weight": shared.w_gate.weight,
        "shared_expert.up_proj.weight": shared.w_up.weight,
        "shared_expert.down_proj.weight": shared.w_down.weight})
    return twin


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_layer_equals_the_layer_of_transformers(sizes):
    moe, x = make(**sizes), torch.randn(3, 5, D)
    assert_near(moe(x), twin_of(moe)(x)[0].view_as(x), "the result")


def test_every_shape_of_batch_is_the_same_tokens():
    moe, x = make(), torch.randn(2, 3, 5, D)
    flat = moe(x.reshape(-1, D))
    assert torch.equal(moe(x), flat.view_as(x))
    assert moe(x[0, 0, 0]).shape == (D,)
    torch.testing.assert_close(moe(x[0, 0, 0]), flat[0])


def test_an_empty_batch_gives_an_empty_result():
    assert make()(torch.randn(0, 5, D)).shape == (0, 5, D)


def test_batched_equals_one_by_one_and_in_any_order():
    moe, x = make(dtype=torch.float64), torch.randn(11, D, dtype=torch.float64)
    together = moe(x)
    torch.testing.assert_close(torch.stack([moe(token) for token in x]), together)
    order = torch.randperm(11)
    torch.testing.assert_close(moe(x[order]), together[order])


def test_the_layer_does_not_change_its_input():
    moe, x = make(), torch.randn(3, 5, D)
    before = x.clone()
    moe(x)
    assert torch.equal(x, before)


def test_scaling_the_input_of_an_expert_is_not_scaling_its_output():
    """f(s x) != s f(x), because of silu and the product; a matrix alone would not tell them apart.
    """
    moe, x = make(), torch.randn(5, D)
    scaled_in, scaled_out = (moe.experts(0.5 * x, [5, 0, 0, 0]),
                             0.5 * moe.experts(x, [5, 0, 0, 0]))
    assert (scaled_in - scaled_out).abs().max() > 0.1 * scaled_out.abs().max()


def test_an_expert_that_nobody_chose_has_a_gradient_of_zero_and_its_weights_are_not_read():
    moe, x = make(n_experts=6, n_active=1), torch.randn(2, D, requires_grad=True)
    chosen = set(moe.router(x).experts.flatten().tolist())
    others = [e for e in range(6) if e not in chosen]
    with torch.no_grad():
        for weight in moe.experts.parameters():
            weight[others] = float("nan")
    result = moe(x)
    result.sum().backward()
    assert result.isfinite().all() and x.grad.isfinite().all()
    for weight in moe.experts.parameters():
        assert weight.grad is not None and not weight.grad[others].any()
        assert all(weight.grad[e].any() for e in chosen)


def test_the_activation_is_one_call_for_all_experts_and_can_be_replaced():
    moe, x, calls = make(), torch.randn(9, D), []
    expected = moe(x)
    plain = moe.experts.activation

    class Counted(torch.nn.Module):
        def forward(self, gate, up):
            calls.append(gate.shape)
            return plain(gate, up)

    moe.experts.activation = Counted()
    assert torch.equal(moe(x), expected) and calls == [(18, 12)]


def test_a_router_that_diverged_is_refused():
    moe, x = make(), torch.randn(3, D)
    x[1] = float("nan")
    with pytest.raises(ValueError, match=r"between 0 and 1; got NaN for 2 of 6\. Did train"):
        moe(x)
    with torch.no_grad():
        moe.router.directions.weight[0] = float("nan")
    with pytest.raises(ValueError, match="a router's scores must be numbers"):
        moe(torch.randn(3, D))


def test_infinite_logits_are_scores_of_1():
    moe = make(n_active=1)
    with torch.no_grad():
        moe.router.directions.weight.fill_(0.0)[2, 0] = float("inf")
    x = torch.ones(3, D)
    assert moe(x).isfinite().all() and torch.equal(moe.router(x).scores, torch.ones(3, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near_fp32(dtype):
    moe, x = make(), torch.randn(9, D)
    low = copy.deepcopy(moe).to(dtype)
    found, wide = low(x.to(dtype)), copy.deepcopy(low).float()
    assert found.dtype == dtype
    # the choice must be the same one, so the wide model has the rounded weights and tokens
    assert_near(found.float(), wide(x.to(dtype).float()), "the result", within=2**-6)


def test_fresh_experts_are_small_in_what_they_add_to_the_stream():
    torch.manual_seed(0)
    moe = MoE(64, Experts(n_experts=4, n_active=1, width=96, shared_width=96))
    moe.init_weights(n_additions=2)
    sizes = {name: float(weight.detach().std()) for name, weight in moe.experts.named_parameters()}
    assert sizes["w_gate"] == pytest.approx(0.5 / 64 ** 0.5, rel=0.05)
    assert sizes["w_up"] == pytest.approx(0.5 / 64 ** 0.5, rel=0.05)
    assert sizes["w_down"] == pytest.approx(0.5 / (96 * 2) ** 0.5, rel=0.05)
    assert moe.router.directions.weight.detach().std() == pytest.approx(0.5 / 8, rel=0.2)


def test_a_spec_of_experts_is_built_as_this_layer():
    spec = Experts(n_experts=3, n_active=2, width=5, shared_width=7)
    moe = feed_forward.build(spec, D)
    assert type(moe) is MoE and type(moe.experts) is RoutedExperts
    assert {name: tuple(weight.shape) for name, weight in moe.named_parameters()} == {
        "router.directions.weight": (3, D), "experts.w_gate": (3, D, 5), "experts.w_up": (3, D, 5),
        "experts.w_down": (3, 5, D), "shared.w_gate.weight": (7, D), "shared.w_up.weight": (7, D),
        "shared.w_down.weight": (D, 7)}

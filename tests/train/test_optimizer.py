import dataclasses

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.optimizer import AdamW, Group, clip_gradients, decay_groups


def make(seed=0):
    torch.manual_seed(seed)
    return Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=64, max_seq_len=32))


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for i, p in enumerate(model.parameters()):
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10.0 ** (i % 5 - 3)


def both(dtype, *, decay=0.1, betas=(0.9, 0.95), eps=1e-8, n_steps=20):
    """Ours and torch's AdamW on the same gradients, for steps of changing learning rate."""
    ours, theirs = make().to(dtype), make().to(dtype)
    mine = AdamW(decay_groups(ours, weight_decay=decay), beta1=betas[0], beta2=betas[1], eps=eps)
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    norms = [p for p in theirs.parameters() if p.ndim == 1]
    reference = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                   {"params": norms, "weight_decay": 0.0}],
                                  lr=1.0, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for step in range(n_steps):
        set_gradients(ours, step), set_gradients(theirs, step)
        for group in reference.param_groups:
            group["lr"] = 0.01 / (step + 1)
        mine.step(lr=0.01 / (step + 1)), reference.step()
    return ours, theirs


def gap(ours, theirs):
    return max(((a - b).abs().max() / b.abs().max()).item()
               for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_twenty_steps_equal_torchs_adamw_with_its_groups():
    assert gap(*both(torch.float64)) < 1e-14  # a few roundings of fp64, 1.1e-16 each
    assert gap(*both(torch.float32)) < 1e-6


@pytest.mark.parametrize("change", [
    dict(decay=0.0), dict(betas=(0.8, 0.95)), dict(betas=(0.9, 0.99)), dict(eps=1e-3)])
def test_the_comparison_notices_every_setting(change):
    assert gap(*both(torch.float64, **change)) > 1e-5


@pytest.mark.parametrize("has_biases", [False, True])
def test_matrices_decay_and_norms_and_biases_do_not(has_biases):
    model = Llama(dataclasses.replace(make().config, has_qkv_bias=has_biases,
                                      has_wo_bias=has_biases, has_ffn_bias=has_biases))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    AdamW(decay_groups(model, weight_decay=0.5)).step(lr=0.1)
    for name, p in model.named_parameters():
        is_vector = "norm" in name or "bias" in name
        torch.testing.assert_close(p.detach(), before[name] * (1.0 if is_vector else 0.95),
                                   msg=name)


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none():
    model = make()
    model.tok_embeddings.weight.requires_grad_(False)
    names = [name for group in decay_groups(model, weight_decay=0.1) for name in group.params]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert "tok_embeddings.weight" not in names


def test_the_first_step_is_one_learning_rate_long_whatever_the_gradient():
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.tensor([1e-4, -1e-2, 1.0, -100.0])
    AdamW([Group(params={"p": p}, weight_decay=0.0)]).step(lr=0.1)
    torch.testing.assert_close(p.detach(), torch.tensor([-0.1, 0.1, -0.1, 0.1]), rtol=1e-3, atol=0)


def test_saved_state_goes_on_bit_for_bit():
    straight, stopped = make(), make()
    a = AdamW(decay_groups(straight, weight_decay=0.1))
    b = AdamW(decay_groups(stopped, weight_decay=0.1))
    for step in range(6):
        if step == 3:
            state = {name: tensor.clone() for name, tensor in b.state_dict().items()}
            b = AdamW(decay_groups(stopped, weight_decay=0.1))
            b.load_state_dict(state)
        for model, optimizer in ((straight, a), (stopped, b)):
            set_gradients(model, step)
            optimizer.step(lr=0.01)
    assert all(torch.equal(p, q)
               for p, q in zip(straight.parameters(), stopped.parameters(), strict=True))


def test_state_of_other_parameters_is_refused_and_named():
    optimizer = AdamW(decay_groups(make(), weight_decay=0.1))
    state = optimizer.state_dict()
    del state["mean.norm.weight"]
    with pytest.raises(ValueError, match=r"same parameters; mean.norm.weight differ"):
        optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match="norm.weight"):
        optimizer.load_state_dict(optimizer.state_dict() | {"mean.norm.weight": torch.zeros(3)})


def test_a_parameter_without_gradient_and_one_in_two_groups_are_refused():
    model = make()
    with pytest.raises(ValueError, match="tok_embeddings.weight.* got none. Call backward first"):
        AdamW(decay_groups(model, weight_decay=0.1)).step(lr=0.1)
    group = decay_groups(model, weight_decay=0.1)[0]
    with pytest.raises(ValueError, match="each in one group"):
        AdamW([group, group])
    with pytest.raises(ValueError, match="at least one parameter"):
        AdamW([])


def length(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()


def test_clipping_returns_the_length_and_scales_only_what_is_longer():
    model = make()
    set_gradients(model, 0)
    before = length(model)
    direction = model.norm.weight.grad / before
    assert clip_gradients(model.parameters(), max_norm=2 * before).item() == pytest.approx(
        before, rel=1e-5)
    assert length(model) == before
    assert clip_gradients(model.parameters(), max_norm=before / 2).item() == pytest.approx(
        before, rel=1e-5)
    assert length(model) == pytest.approx(before / 2, rel=1e-5)
    torch.testing.assert_close(model.norm.weight.grad, direction * before / 2, rtol=1e-5, atol=0)


def test_clipping_agrees_with_torchs():
    ours, theirs = make(), make()
    set_gradients(ours, 1), set_gradients(theirs, 1)
    norm = clip_gradients(ours.parameters(), max_norm=1.0)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_are_reported_and_left_alone(value):
    model = make()
    set_gradients(model, 0)
    model.norm.weight.grad[3] = value
    before = model.tok_embeddings.weight.grad.clone()
    assert not clip_gradients(model.parameters(), max_norm=1.0).isfinite()
    assert torch.equal(model.tok_embeddings.weight.grad, before)


def test_clipping_without_gradients_is_refused():
    with pytest.raises(ValueError, match="Call backward first"):
        clip_gradients(make().parameters(), max_norm=1.0)

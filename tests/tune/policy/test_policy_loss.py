import math

import pytest
import torch

from llama_from_scratch.tune.policy.advantages import advantages
from llama_from_scratch.tune.policy.policy_loss import (
    NORMALIZERS,
    Counts,
    gains,
    is_clipped,
    k3,
    normalized,
    policy_loss,
)

LENGTHS, WIDTH, MOST = [1, 3, 2], 4, 6
WRITTEN = torch.tensor([[t < n for t in range(WIDTH)] for n in LENGTHS])
COUNTS = Counts(n_answers=3, n_tokens=6, max_tokens=MOST)


def drawn(seed=0):
    """Log-probabilities now, when drawn and of a reference, and advantages."""
    draw = torch.Generator().manual_seed(seed)
    now, old, reference = (-torch.rand(3, WIDTH, generator=draw, dtype=torch.float64) * 3
                           for _ in range(3))
    return now.requires_grad_(), old, reference, torch.tensor([1.5, -2.0, 0.5]).double()


def slow(now, old, reference, advantage, *, normalizer, clip_low, clip_high, beta):
    """The loss as the papers write it, one token after the other, in plain numbers."""
    sums = []
    for b, n in enumerate(LENGTHS):
        total = 0.0
        for t in range(n):
            q = math.exp(now[b][t] - old[b][t])
            low = -math.inf if clip_low is None else 1 - clip_low
            high = math.inf if clip_high is None else 1 + clip_high
            gain = min(q * advantage[b], min(max(q, low), high) * advantage[b])
            r = math.exp(reference[b][t]) / math.exp(now[b][t])
            total += gain - beta * (r - 1 - math.log(r))
        sums.append(total)
    return -{
        "token": sum(sums) / sum(LENGTHS), "constant": sum(sums) / (len(sums) * MOST),
        "sequence": sum(s / n for s, n in zip(sums, LENGTHS, strict=True)) / len(sums),
    }[normalizer]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("clip_low, clip_high", [(None, None), (0.2, 0.28), (None, 0.2)])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_loss_equals_the_formula_token_by_token(normalizer, clip_low, clip_high, beta):
    now, old, reference, advantage = drawn()
    how = dict(normalizer=normalizer, clip_low=clip_low, clip_high=clip_high, beta=beta)
    found = policy_loss(now, old, advantage, WRITTEN, counts=COUNTS, reference=reference, **how)
    expected = slow(now.tolist(), old.tolist(), reference.tolist(), advantage.tolist(), **how)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_at_ratio_1_the_clip_is_inert_and_the_gradient_is_advantage_times_log_p():
    now, _, _, advantage = drawn()
    [expected] = torch.autograd.grad(
        -(advantage[:, None] * now * WRITTEN).sum() / COUNTS.n_tokens, now)
    for clip in (None, 1e-6, 0.2):
        loss = policy_loss(now, now.detach(), advantage, WRITTEN, normalizer="token",
                           counts=COUNTS, clip_low=clip, clip_high=clip)
        [found] = torch.autograd.grad(loss, now)
        torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("ratio, advantage, is_active", [
    (1.5, 1.0, True), (1.5, -1.0, False), (0.5, 1.0, False), (0.5, -1.0, True),
    (1.1, 1.0, False), (0.9, -1.0, False),
])
def test_the_clip_acts_only_on_the_side_to_which_the_advantage_pushes(ratio, advantage, is_active):
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([advantage], dtype=torch.float64)
    clip = dict(clip_low=0.2, clip_high=0.28)
    gain = gains(log_ratio, weight, **clip)
    [slope] = torch.autograd.grad(gain.sum(), log_ratio)
    assert (slope.item() == 0) == is_active
    assert is_clipped(log_ratio, weight, **clip).item() == is_active
    edge = 1.28 if advantage > 0 else 0.8
    assert gain.item() == pytest.approx((edge if is_active else ratio) * advantage)


def test_the_two_limits_are_two():
    log_ratio, up, down = torch.tensor([[0.25]]).log1p(), torch.ones(1), -torch.ones(1)
    assert is_clipped(log_ratio, up, clip_low=0.2, clip_high=0.2).all()
    assert not is_clipped(log_ratio, up, clip_low=0.2, clip_high=0.28).any()
    assert not is_clipped(log_ratio, up, clip_low=0.2).any()
    low = torch.tensor([[-0.25]]).log1p()
    assert is_clipped(low, down, clip_low=0.2).all() and not is_clipped(low, down).any()


def test_k3_is_never_negative_and_its_mean_over_p_is_the_divergence_from_the_reference():
    draw = torch.Generator().manual_seed(0)
    p, p0 = (torch.randn(50, generator=draw, dtype=torch.float64).log_softmax(-1) for _ in "ab")
    found = k3(p[None], p0[None])[0]
    assert (found >= 0).all() and (k3(p[None], p[None]) == 0).all()
    divergence = (p.exp() * (p - p0)).sum()
    assert (p.exp() * found).sum().item() == pytest.approx(divergence.item(), abs=1e-12)
    assert abs(((p0.exp()) * (p0 - p)).sum().item() - divergence.item()) > 0.01, "not symmetric"


def test_the_penalty_pulls_toward_the_reference():
    now = torch.tensor([[-1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-0.5, -2.0]], dtype=torch.float64)
    loss = policy_loss(now, now.detach(), torch.zeros(1).double(), torch.ones(1, 2).bool(),
                       normalizer="token", counts=Counts(n_answers=1, n_tokens=2, max_tokens=2),
                       beta=1.0, reference=reference)
    [slope] = torch.autograd.grad(loss, now)
    assert slope[0, 0] < 0 < slope[0, 1], "a step against it makes the first likelier"


def test_normalizers_agree_at_equal_lengths_up_to_a_factor():
    values = torch.arange(12.0).view(3, 4)
    whole = torch.ones(3, 4, dtype=torch.bool)
    counts = Counts(n_answers=3, n_tokens=12, max_tokens=4)
    found = [normalized(values, whole, by=by, counts=counts).item() for by in NORMALIZERS]
    assert found == pytest.approx([values.mean().item()] * 3)


def test_normalizers_weigh_tokens_of_long_answers_differently():
    ones = torch.ones(3, WIDTH, dtype=torch.float64, requires_grad=True)
    slopes = {by: torch.autograd.grad(normalized(ones, WRITTEN, by=by, counts=COUNTS), ones)[0]
              for by in NORMALIZERS}
    for b, n in enumerate(LENGTHS):
        for t in range(n):
            assert slopes["token"][b, t].item() == pytest.approx(1 / 6)
            assert slopes["sequence"][b, t].item() == pytest.approx(1 / (3 * n))
            assert slopes["constant"][b, t].item() == pytest.approx(1 / (3 * MOST))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_more_padding_changes_nothing_and_what_is_not_written_gets_exactly_0(normalizer):
    now, old, reference, advantage = drawn()
    how = dict(normalizer=normalizer, counts=COUNTS, beta=0.1)
    loss = policy_loss(now, old, advantage, WRITTEN, reference=reference, **how)
    [slope] = torch.autograd.grad(loss, now)
    assert (slope[~WRITTEN] == 0).all() and (slope[WRITTEN] != 0).all()

    def wider(x):
        return torch.nn.functional.pad(x, (0, 3), value=0)

    again = policy_loss(wider(now), wider(old), advantage, wider(WRITTEN),
                        reference=wider(reference), **how)
    assert again.item() == pytest.approx(loss.item(), abs=1e-14)


def test_a_huge_ratio_in_the_padding_does_no_harm():
    now, old, _, advantage = drawn()
    old = torch.where(WRITTEN, old, -1e6)
    loss = policy_loss(now, old, advantage, WRITTEN, normalizer="token", counts=COUNTS)
    [slope] = torch.autograd.grad(loss, now)
    assert loss.isfinite()
    assert slope.isfinite().all() and (slope[~WRITTEN] == 0).all()


def test_advantages_have_no_gradient():
    now, old, _, _ = drawn()
    rewards = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = policy_loss(now, old, advantages(rewards)[0], WRITTEN, normalizer="token",
                       counts=COUNTS)
    loss.backward()
    assert rewards.grad is None and now.grad is not None


def test_equal_rewards_have_exactly_no_gradient_even_with_a_deviation_of_0():
    now, old, _, _ = drawn()
    advantage = advantages(torch.full((1, 3), 0.1, dtype=torch.float64), is_scaled=True)[0]
    loss = policy_loss(now, old, advantage, WRITTEN, normalizer="sequence", counts=COUNTS,
                       clip_low=0.2, clip_high=0.2)
    [slope] = torch.autograd.grad(loss, now)
    assert (slope == 0).all()


def test_a_penalty_without_a_reference_is_refused():
    now, old, _, advantage = drawn()
    with pytest.raises(ValueError, match="beta=0.1 holds the model close to a reference"):
        policy_loss(now, old, advantage, WRITTEN, normalizer="token", counts=COUNTS, beta=0.1)

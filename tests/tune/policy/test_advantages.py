import pytest
import torch

from llama_from_scratch.tune.policy.advantages import BASELINES, EPSILON, advantages, are_equal

REWARDS = torch.tensor([[1.0, 0.0, 3.0, 0.5], [2.0, 2.0, 2.0, 5.0]], dtype=torch.float64)


def test_advantages_equal_a_slow_loop():
    for baseline in BASELINES:
        found = advantages(REWARDS, baseline=baseline).tolist()
        for own, got in zip(REWARDS.tolist(), found, strict=True):
            for j, reward in enumerate(own):
                others = own[:j] + own[j + 1 :]
                expected = {"none": 0.0, "mean": sum(own) / 4, "others": sum(others) / 3}[baseline]
                assert got[j] == pytest.approx(reward - expected, abs=1e-12)


def test_leaving_one_out_is_the_mean_times_n_over_n_minus_1():
    torch.testing.assert_close(advantages(REWARDS, baseline="others"),
                               advantages(REWARDS, baseline="mean") * 4 / 3)


@pytest.mark.parametrize("baseline", ["mean", "others"])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_adding_a_constant_to_one_group_changes_no_advantage(baseline, is_scaled):
    how = dict(baseline=baseline, is_scaled=is_scaled)
    moved = REWARDS + torch.tensor([[100.0], [0.0]])
    torch.testing.assert_close(advantages(moved, **how), advantages(REWARDS, **how))
    assert not torch.allclose(advantages(moved, baseline="none"),
                              advantages(REWARDS, baseline="none"))


@pytest.mark.parametrize("baseline", ["mean", "others"])
def test_advantages_of_a_group_sum_to_0(baseline):
    torch.testing.assert_close(advantages(REWARDS, baseline=baseline).sum(1),
                               torch.zeros(2, dtype=torch.float64))


def test_scaled_advantages_have_the_deviation_1_whatever_the_unit_of_the_reward():
    found = advantages(REWARDS, is_scaled=True)
    torch.testing.assert_close(found.std(1), torch.ones(2, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(advantages(50 * REWARDS, is_scaled=True), found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("baseline", ["mean", "others"])
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -7.7])
def test_groups_of_equal_rewards_get_exactly_0(baseline, is_scaled, reward):
    rewards = torch.full((2, 7), reward)
    assert (advantages(rewards, baseline=baseline, is_scaled=is_scaled) == 0).all()


def test_nearly_equal_rewards_are_not_blown_up():
    rewards = torch.tensor([[1.0, 1.0 + 1e-7, 1.0, 1.0]], dtype=torch.float64)
    assert advantages(rewards, is_scaled=True).abs().max() < 1e-7 / EPSILON


def test_which_groups_are_equal():
    rewards = torch.tensor([[1.0, 1.0], [1.0, 1.0001], [0.0, 0.0]])
    assert are_equal(rewards).tolist() == [True, False, True]


@pytest.mark.parametrize("how, message", [
    (dict(baseline="mean"), "baseline='mean' compares .* at least 2; got 1. Draw more answers"),
    (dict(baseline="others"), "baseline='others' compares"),
    (dict(baseline="none", is_scaled=True), "is_scaled=True compares"),
])
def test_a_group_of_one_has_nothing_to_be_compared_with(how, message):
    with pytest.raises(ValueError, match=message):
        advantages(torch.ones(3, 1), **how)
    assert advantages(torch.ones(3, 1), baseline="none").tolist() == [[1.0]] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(bad):
    rewards = REWARDS.clone()
    rewards[1, 2] = bad
    with pytest.raises(ValueError, match=f"answer 2 to prompt 1 got {bad}"):
        advantages(rewards)

import dataclasses
import itertools
import math

import pytest
import tiny_rewards
import torch
from tiny_rewards import CONFIG, PROMPTS, STOPS, TOKENIZER, answer, gradient, weights

from llama_from_scratch.train.loop import Diverged
from llama_from_scratch.train.optimizer import AdamW, decay_groups
from llama_from_scratch.tune.policy import policy_update
from llama_from_scratch.tune.policy.advantages import advantages
from llama_from_scratch.tune.policy.answer_log_probs import answer_log_probs, drawn_log_probs
from llama_from_scratch.tune.policy.policy_loss import Counts, policy_loss
from llama_from_scratch.tune.policy.policy_update import learn
from llama_from_scratch.tune.policy.rollout import Rollout, draw


class Noted:
    """An optimizer that takes plain steps and keeps every gradient."""

    def __init__(self, model):
        self.model, self.gradients = model, []

    def zero_grad(self):
        self.model.zero_grad()

    @torch.no_grad()
    def step(self, *, lr):
        self.gradients.append(gradient(self.model))
        for p in self.model.parameters():
            if p.grad is not None:
                p -= lr * p.grad

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def drawn(model, config=CONFIG, *, reward=tiny_rewards.share_of_letters):
    return draw(model, PROMPTS, TOKENIZER, ids=PROMPTS, reward=reward, stop_ids=STOPS,
                config=config)


def updates(config=CONFIG, *, rollout=None, lr=0.1, model=None, **options):
    """The updates, their gradients and the weights after them."""
    config = dataclasses.replace(config, max_grad_norm=1e9)
    model = tiny_rewards.make() if model is None else model
    noted = Noted(model)
    rollout = drawn(tiny_rewards.make(), config) if rollout is None else rollout
    made = learn(model, rollout, optimizer=noted, config=config, lr=lr, **options)
    return made, noted.gradients, weights(model)


def hand_made(model, rewards, *answers, **more):
    """A rollout of one prompt, drawn with the model's own log-probabilities."""
    with torch.no_grad():
        log_probs = answer_log_probs(model, [PROMPTS[0]] * len(answers), answers)
    answers = [dataclasses.replace(each, log_probs=tuple(row[: len(each.ids)].tolist()))
               for each, row in zip(answers, log_probs, strict=True)]
    return Rollout(prompts=[PROMPTS[0]] * len(answers), answers=answers,
                   advantages=advantages(torch.tensor([rewards]), **more)[0], reward=0.0,
                   share_equal=0.0, share_cut=0.0, n_tokens=1.0, n_groups=1)


# --- the gradient is that of the expected reward --------------------------------------------------

# All that a bandit with two tokens can do in two pulls: 1 ends, 0 goes on.
OUTCOMES = [answer(1), answer(0, 1), answer(0, 0, is_finished=False)]
EARNED = [1.0, 3.0, -0.5]


def bandit():
    torch.manual_seed(0)
    return tiny_rewards.make(vocab_size=2).double()


def expected_gradient(model):
    """The gradient of minus the sum of p(y) r(y) over everything that can happen."""
    log_probs = answer_log_probs(model, [[0, 1, 1]] * 3, OUTCOMES).sum(1)
    assert log_probs.exp().sum().item() == pytest.approx(1)
    (-log_probs.exp() * torch.tensor(EARNED).double()).sum().backward()
    found = gradient(model)
    model.zero_grad()
    return found


@pytest.mark.parametrize("baseline, factor", [("none", 1), ("others", 1), ("mean", 1 / 2)])
def test_the_mean_gradient_over_all_groups_of_a_bandit_is_that_of_the_expected_reward(
        baseline, factor):
    model = bandit()
    expected, total = expected_gradient(model), 0.0
    with torch.no_grad():
        log_probs = answer_log_probs(model, [[0, 1, 1]] * 3, OUTCOMES)
    chances = log_probs.sum(1).exp().tolist()
    for pair in itertools.product(range(3), repeat=2):
        rewards = torch.tensor([[EARNED[i] for i in pair]]).double()
        answers = [OUTCOMES[i] for i in pair]
        now = answer_log_probs(model, [[0, 1, 1]] * 2, answers)
        is_written = torch.tensor([[t < len(each.ids) for t in range(now.shape[1])]
                                   for each in answers])
        loss = policy_loss(
            now, now.detach(), advantages(rewards, baseline=baseline)[0], is_written,
            normalizer="constant", counts=Counts(n_answers=2, n_tokens=3, max_tokens=1))
        loss.backward()
        total = total + chances[pair[0]] * chances[pair[1]] * gradient(model)
        model.zero_grad()
    torch.testing.assert_close(total, factor * expected, atol=1e-12, rtol=1e-9)


def test_sampled_groups_give_the_gradient_of_the_expected_reward_too():
    model = bandit().float()
    config = dataclasses.replace(CONFIG, n_prompts=1, n_answers=4000, max_tokens=2, baseline="mean",
                                 normalizer="constant", max_grad_norm=1e9)
    worth = {(1,): EARNED[0], (0, 1): EARNED[1], (0, 0): EARNED[2]}

    def reward(prompt, text, is_finished):
        return worth[tuple(map(ord, text)) + (1,) * is_finished]

    found = draw(model, [[0, 1, 1]], TOKENIZER, ids=[[0, 1, 1]], reward=reward,
                 stop_ids=frozenset({1}), config=config)
    _, [got], _ = updates(config, rollout=found, model=model)
    expected = expected_gradient(bandit()) / 2
    cosine = torch.cosine_similarity(got.double(), expected, dim=0)
    assert cosine > 0.99 and got.norm().item() == pytest.approx(expected.norm().item(), rel=0.2)


# --- what changes nothing -------------------------------------------------------------------------

@pytest.mark.parametrize("normalizer", ["token", "sequence", "constant"])
@pytest.mark.parametrize("n_minibatches", [1, 3])
def test_leaving_out_answers_without_advantage_is_exact(normalizer, n_minibatches):
    def reward(prompt, text, is_finished):
        return float(prompt[1] % 2) * len(text)

    config = dataclasses.replace(CONFIG, normalizer=normalizer, n_minibatches=n_minibatches)
    rollout = drawn(tiny_rewards.make(), config, reward=reward)
    all_in = dataclasses.replace(config, skips_zeros=False)
    (short, some, one), (long, every, other) = (
        updates(each, rollout=rollout) for each in (config, all_in))
    assert short.n_rows < long.n_rows == 16
    torch.testing.assert_close(torch.stack(some), torch.stack(every), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    if n_minibatches == 1:
        torch.testing.assert_close(some[0], whole_gradient(rollout, normalizer), atol=1e-6, rtol=0)


def whole_gradient(rollout, normalizer):
    """The gradient of all answers of a rollout in one row each, the idle ones among them."""
    model, answers = tiny_rewards.make(), rollout.answers
    now = answer_log_probs(model, rollout.prompts, answers, shares_prompts=False)
    n_B = torch.tensor([len(each.ids) for each in answers])
    gain_B = (now * rollout.advantages[:, None]).sum(1)
    (-{"token": gain_B.sum() / n_B.sum(), "sequence": (gain_B / n_B).mean(),
       "constant": gain_B.mean() / CONFIG.max_tokens}[normalizer]).backward()
    return gradient(model)


@pytest.mark.parametrize("change", [
    dict(answers_at_once=3), dict(shares_prompts=False), dict(answers_at_once=1)])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_how_many_answers_go_together_changes_nothing(change, beta):
    config = dataclasses.replace(CONFIG, n_epochs=2, n_minibatches=2, beta=beta,
                                 normalizer="sequence")
    rollout = drawn(tiny_rewards.make(), config)
    how = dict(rollout=rollout, reference=tiny_rewards.make(1) if beta else None)
    one, first, _ = updates(config, **how)
    other, second, _ = updates(dataclasses.replace(config, **change), **how)
    torch.testing.assert_close(torch.stack(first), torch.stack(second), atol=1e-6, rtol=1e-4)
    assert one.kl == pytest.approx(other.kl, abs=1e-5) and one.n_rows == other.n_rows
    assert (one.kl > 0) == (beta > 0)


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_equal_rewards_change_no_weight(is_scaled, n_epochs):
    config = dataclasses.replace(CONFIG, is_scaled=is_scaled, n_epochs=n_epochs)
    rollout = drawn(tiny_rewards.make(), config, reward=lambda *_: 0.1)
    for each in (config, dataclasses.replace(config, skips_zeros=False)):
        made, gradients, after = updates(each, rollout=rollout)
        assert gradients == [] and torch.equal(after, weights(tiny_rewards.make()))
        assert (made.n_rows, made.ratio_min, made.ratio_max, made.grad_norm) == (0, 1, 1, 0)


def test_an_empty_rollout_makes_no_update():
    config = dataclasses.replace(CONFIG, n_rounds=2)
    rollout = drawn(tiny_rewards.make(), config, reward=lambda *_: 0.1)
    made, gradients, _ = updates(config, rollout=rollout)
    assert rollout.answers == [] and gradients == [] and made.n_rows == 0


def test_adding_a_constant_to_all_rewards_changes_no_gradient_with_a_baseline_only():
    found = {}
    for baseline, added in itertools.product(("mean", "none"), (0.0, 3.0)):
        config = dataclasses.replace(CONFIG, baseline=baseline)
        rollout = drawn(tiny_rewards.make(), config, reward=lambda *told, more=added: (
            more + tiny_rewards.share_of_letters(*told)))
        _, [found[baseline, added]], _ = updates(config, rollout=rollout)
    torch.testing.assert_close(found["mean", 0.0], found["mean", 3.0], atol=1e-6, rtol=1e-4)
    assert (found["none", 0.0] - found["none", 3.0]).norm() > found["none", 0.0].norm()


def test_what_a_tool_wrote_gets_no_gradient_and_does_not_count():
    model = tiny_rewards.make()
    plain = hand_made(model, [1.0, 0.0], answer(7, 201), answer(8, 201))
    read = answer(7, 201, 40, 41, is_written=(True, True, False, False))
    tool = hand_made(model, [1.0, 0.0], read, answer(8, 201))
    (_, [one], _), (_, [other], _) = (updates(rollout=each) for each in (plain, tool))
    torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


# --- ratio, clip and minibatches ------------------------------------------------------------------

def test_the_ratio_is_1_at_the_first_update_and_the_clip_is_inert_there():
    plain, [one], _ = updates()
    clipped, [other], _ = updates(dataclasses.replace(CONFIG, clip_low=1e-4, clip_high=1e-4))
    assert 0 < plain.mismatch < 1e-5 and abs(plain.ratio_min - 1) < 1e-5 > plain.ratio_max - 1
    assert clipped.share_clipped == 0
    torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


def test_in_later_epochs_the_ratio_is_to_the_model_that_drew_the_answers():
    config = dataclasses.replace(CONFIG, n_epochs=2)
    model = tiny_rewards.make()
    rollout = drawn(model, config)
    made, gradients, _ = updates(config, rollout=rollout, lr=1.0)
    assert len(gradients) == 2
    # The same by hand: one step, then the log-probabilities again.
    with torch.no_grad():
        at = 0
        for p in model.parameters():
            p -= gradients[0][at : at + p.numel()].view_as(p)
            at += p.numel()
        now = answer_log_probs(model, rollout.prompts, rollout.answers)
    ratios = (now - drawn_log_probs(rollout.answers)).exp()
    moved = rollout.advantages != 0
    assert made.ratio_max == pytest.approx(ratios[moved].max().item(), rel=1e-4)
    assert made.ratio_min == pytest.approx(ratios[moved].min().item(), rel=1e-4)
    assert made.ratio_max > 1.1 and made.mismatch < 1e-5


def test_the_clip_stops_what_has_moved_far_enough():
    free = dataclasses.replace(CONFIG, n_epochs=8)
    tight = dataclasses.replace(free, clip_low=0.05, clip_high=0.05)
    rollout = drawn(tiny_rewards.make())
    (loose, _, _), (held, gradients, _) = (
        updates(each, rollout=rollout, lr=1.0) for each in (free, tight))
    assert loose.share_clipped == 0 < held.share_clipped < 1
    assert held.ratio_max < loose.ratio_max
    assert gradients[-1].norm() < gradients[0].norm() / 2


def test_minibatches_have_every_answer_once_in_each_epoch_in_another_order(monkeypatch):
    seen, plain = [], policy_update.answer_log_probs

    def noted(model, prompts, answers, **how):
        seen.append([rollout.answers.index(each) for each in answers])
        return plain(model, prompts, answers, **how)

    config = dataclasses.replace(CONFIG, n_epochs=2, n_minibatches=4, skips_zeros=False,
                                 normalizer="constant")
    rollout = drawn(tiny_rewards.make())
    assert len(set(rollout.answers)) == 16
    monkeypatch.setattr(policy_update, "answer_log_probs", noted)
    made, gradients, _ = updates(config, rollout=rollout)
    assert [len(part) for part in seen] == [4] * 8 and len(gradients) == 8
    for epoch in (seen[:4], seen[4:]):
        assert sorted(i for part in epoch for i in part) == list(range(16))
    assert seen[:4] != seen[4:] and made.n_rows == 16
    updates(config, rollout=rollout, step=1)
    assert seen[8:12] != seen[:4]


def test_a_step_against_the_gradient_makes_what_earned_more_likelier():
    model = tiny_rewards.make()
    rollout = hand_made(model, [1.0, 0.0], answer(7, 9, 201), answer(8, 201))
    updates(rollout=rollout, model=model)
    after = answer_log_probs(model, rollout.prompts, rollout.answers).sum(1)
    before = drawn_log_probs(rollout.answers).sum(1)
    assert after[0] > before[0] and after[1] < before[1]


def test_gradients_are_clipped_to_their_longest_length():
    model = tiny_rewards.make()
    noted = Noted(model)
    made = learn(model, drawn(model), optimizer=noted, lr=0.0,
                 config=dataclasses.replace(CONFIG, max_grad_norm=1e-3))
    assert noted.gradients[0].norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert made.grad_norm > 1e-3


def test_the_penalty_is_0_at_the_reference_and_pulls_back_to_it():
    config = dataclasses.replace(CONFIG, beta=1.0)
    equal = drawn(tiny_rewards.make(), config, reward=lambda *_: 1.0)
    same, [gradient_], _ = updates(config, rollout=equal, reference=tiny_rewards.make())
    assert same.kl == pytest.approx(0, abs=1e-9) and gradient_.norm() < 1e-5
    other = tiny_rewards.make(1)
    away, _, _ = updates(config, rollout=equal, reference=other)
    model = tiny_rewards.make()
    for _ in range(5):
        updates(config, rollout=equal, model=model, reference=other, checks_mismatch=False)
    with torch.no_grad():
        distances = [(answer_log_probs(each, equal.prompts, equal.answers)
                      - answer_log_probs(other, equal.prompts, equal.answers)).abs().mean()
                     for each in (tiny_rewards.make(), model)]
    assert away.kl > 0 and distances[1] < distances[0]


# --- refusals -------------------------------------------------------------------------------------

def test_another_temperature_in_the_sampler_is_found_at_the_first_update():
    config = dataclasses.replace(CONFIG, temperature=0.5)
    rollout = drawn(tiny_rewards.make(), config)
    with pytest.raises(ValueError, match="the same log-probability, up to 0.0001; at the first "
                                         "update they differ by"):
        updates(CONFIG, rollout=rollout)
    updates(config, rollout=rollout)
    updates(CONFIG, rollout=rollout, checks_mismatch=False)


def test_a_penalty_needs_a_reference():
    with pytest.raises(ValueError, match="beta=0.1 holds the model close to a reference"):
        updates(dataclasses.replace(CONFIG, beta=0.1))


def test_a_loss_that_is_not_finite_never_reaches_the_weights():
    model = tiny_rewards.make()
    rollout = drawn(model)
    broken = dataclasses.replace(rollout, advantages=rollout.advantages * math.inf)
    optimizer = AdamW(decay_groups(model, weight_decay=0.0))
    with pytest.raises(Diverged, match="at step 7, where the learning rate is 0.1. Lower peak_lr"):
        learn(model, broken, optimizer=optimizer, config=CONFIG, lr=0.1, step=7)
    assert torch.equal(weights(model), weights(tiny_rewards.make()))

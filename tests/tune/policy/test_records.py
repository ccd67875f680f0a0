import dataclasses
import math

import pytest

from llama_from_scratch.tune.policy.records import METHODS, ReinforceConfig, ReinforceHistory


@pytest.mark.parametrize("name, terms", [
    ("reinforce", dict(baseline="none", is_scaled=False, clip_low=None, beta=0)),
    ("rloo", dict(baseline="others", is_scaled=False, clip_low=None, beta=0)),
    ("grpo", dict(baseline="mean", is_scaled=True, normalizer="sequence", clip_high=0.2)),
    ("dr-grpo", dict(baseline="mean", is_scaled=False, normalizer="constant")),
    ("dapo", dict(is_scaled=True, normalizer="token", clip_low=0.2, clip_high=0.28, beta=0)),
])
def test_a_method_is_a_row_of_terms(name, terms):
    found = dataclasses.asdict(METHODS[name])
    assert found | terms == found
    assert METHODS["grpo"].beta > 0 and METHODS["dapo"].n_rounds > 1 == METHODS["grpo"].n_rounds
    assert METHODS["dapo"].soft_tokens > 0


@pytest.mark.parametrize("change, message", [
    (dict(n_answers=1), "baseline='mean' compares .* at least 2; got 1"),
    (dict(n_answers=1, baseline="none", is_scaled=True), "is_scaled=True compares"),
    (dict(n_steps=0), "n_steps must be finite and at least 1; got 0"),
    (dict(n_prompts=0), "n_prompts must be"), (dict(max_tokens=0), "max_tokens must be"),
    (dict(beta=-0.1), "beta must be finite and at least 0; got -0.1"),
    (dict(beta=math.nan), "beta must be"), (dict(temperature=0.0), "temperature must be above 0"),
    (dict(peak_lr=0.0), "peak_lr must be above 0"),
    (dict(clip_low=0.0), "clip_low must be above 0"),
    (dict(clip_low=1.0), "clip_low is below 1; got 1.0"),
    (dict(soft_tokens=49), "at most max_tokens=48; got 49"),
    (dict(n_minibatches=129), "got n_minibatches=129 for 128 answers"),
    (dict(n_rounds=2, n_answers=1, baseline="none"), "Set n_rounds=1"),
    (dict(n_warmup=40), "shorter than the run; got n_warmup=40 of 40"),
    (dict(final_lr_ratio=1.5), "final_lr_ratio must be between 0 and 1"),
    (dict(max_cut_reward=math.nan), "or None for no limit; got nan"),
    (dict(max_cut_reward=math.inf), "or None for no limit; got inf"),
    (dict(n_answer=4), "no field 'n_answer'; did you mean 'n_answers'"),
])
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**change)


def test_a_group_of_one_needs_no_baseline():
    assert ReinforceConfig(n_answers=1, baseline="none").n_answers == 1


def test_the_history_of_no_step_has_no_reward():
    assert ReinforceHistory(steps=(), is_complete=False).rewards == []

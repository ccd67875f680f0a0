"""Mistakes that readers make in chapter 54."""

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the gradient of log p ---------------------------------------------------------------------


def _one_at(logits: Tensor, action: int) -> Tensor:
    return torch.eye(len(logits))[action]


@listed("54.1", of="score_function")
def only_the_one(logits: Tensor, action: int) -> Tensor:
    """the probabilities are not subtracted: all other actions become less likely too"""
    return _one_at(logits, action)


@listed("54.1", of="score_function")
def turned_around(logits: Tensor, action: int) -> Tensor:
    """the sign is turned: this makes the action less likely"""
    return logits.softmax(-1) - _one_at(logits, action)


@listed("54.1", of="score_function")
def of_the_probability(logits: Tensor, action: int) -> Tensor:
    """this is the gradient of p, not of log p: it has the probability as a factor"""
    p = logits.softmax(-1)
    return p[action] * (_one_at(logits, action) - p)


@listed("54.1", of="score_function")
def of_the_logits(logits: Tensor, action: int) -> Tensor:
    """the logits are subtracted: first turn them into probabilities"""
    return _one_at(logits, action) - logits


# --- 2: advantages --------------------------------------------------------------------------------


def _scaled(found: Tensor, deviation: Tensor, is_scaled: bool) -> Tensor:
    return found / deviation if is_scaled else found


@listed("54.2", of="group_advantages")
def mean_of_the_batch(rewards: Tensor, is_scaled: bool) -> Tensor:
    """the mean of all prompts is subtracted: each row is a group of its own"""
    return _scaled(rewards - rewards.mean(), rewards.std(1, keepdim=True) + 1e-4, is_scaled)


@listed("54.2", of="group_advantages")
def without_baseline(rewards: Tensor, is_scaled: bool) -> Tensor:
    """no mean is subtracted: an advantage compares an answer with its group"""
    return _scaled(rewards, rewards.std(1, keepdim=True) + 1e-4, is_scaled)


@listed("54.2", of="group_advantages")
def always_scaled(rewards: Tensor, is_scaled: bool) -> Tensor:
    """`is_scaled` has no effect: the deviation divides only with it"""
    return _scaled(rewards - rewards.mean(1, keepdim=True),
                   rewards.std(1, keepdim=True) + 1e-4, True)


@listed("54.2", of="group_advantages")
def never_scaled(rewards: Tensor, is_scaled: bool) -> Tensor:
    """nothing is divided: with `is_scaled`, the deviation of the group divides"""
    return rewards - rewards.mean(1, keepdim=True)


@listed("54.2", of="group_advantages")
def without_epsilon(rewards: Tensor, is_scaled: bool) -> Tensor:
    """nothing is added to the deviation: it is 0 for equal rewards, and 0 / 0 is not a number"""
    return _scaled(rewards - rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True),
                   is_scaled)


@listed("54.2", of="group_advantages")
def deviation_of_n(rewards: Tensor, is_scaled: bool) -> Tensor:
    """the deviation divides by n: `std` divides by n - 1 by default"""
    return _scaled(rewards - rewards.mean(1, keepdim=True),
                   rewards.std(1, keepdim=True, correction=0) + 1e-4, is_scaled)


# --- 3: the clip ----------------------------------------------------------------------------------


@listed("54.3", of="clipped_gain")
def larger_of_both(ratio: float, advantage: float, low: float, high: float) -> float:
    """the larger of both counts: it is the smaller one"""
    within = min(max(ratio, 1 - low), 1 + high)
    return max(ratio * advantage, within * advantage)


@listed("54.3", of="clipped_gain")
def only_clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    """the ratio is always clipped: then a token that went the wrong way gets no gradient back"""
    return min(max(ratio, 1 - low), 1 + high) * advantage


@listed("54.3", of="clipped_gain")
def never_clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    """nothing is clipped: compare with the gain of the ratio within its limits"""
    return ratio * advantage


@listed("54.3", of="clipped_gain")
def limits_swapped(ratio: float, advantage: float, low: float, high: float) -> float:
    """the limits are swapped: `low` belongs below 1 and `high` above"""
    within = min(max(ratio, 1 - high), 1 + low)
    return min(ratio * advantage, within * advantage)


# --- 4: the penalty -------------------------------------------------------------------------------


@listed("54.4", of="penalty")
def models_swapped(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """model and reference are swapped: the ratio is p0 / p"""
    difference = log_p - log_p0
    return difference.exp() - 1 - difference


@listed("54.4", of="penalty")
def plain_difference(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """this is log p - log p0: it has the same mean, but can be negative"""
    return log_p - log_p0


@listed("54.4", of="penalty")
def without_the_one(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """the 1 is not subtracted: the penalty is 0 where both models agree"""
    difference = log_p0 - log_p
    return difference.exp() - difference


@listed("54.4", of="penalty")
def logarithm_added(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """the logarithm is added: it is subtracted, so that the slope is 0 where both agree"""
    difference = log_p0 - log_p
    return difference.exp() - 1 + difference


# --- 5: normalizers -------------------------------------------------------------------------------


def _weights(lengths: list[int], *, sequence: list[float], token: float, constant: float,
             by: str) -> list[float]:
    return sequence if by == "sequence" else [token if by == "token" else constant] * len(lengths)


@listed("54.5", of="token_weights")
def without_the_answers(lengths: list[int], by: str, max_tokens: int) -> list[float]:
    """with "sequence" only the length divides: the number of answers divides too"""
    n = len(lengths)
    return _weights(lengths, sequence=[1 / length for length in lengths],
                    token=1 / sum(lengths), constant=1 / (n * max_tokens), by=by)


@listed("54.5", of="token_weights")
def padding_counted(lengths: list[int], by: str, max_tokens: int) -> list[float]:
    """with "token" the padding is counted: only tokens that were written count"""
    n = len(lengths)
    return _weights(lengths, sequence=[1 / (n * length) for length in lengths],
                    token=1 / (n * max(lengths)), constant=1 / (n * max_tokens), by=by)


@listed("54.5", of="token_weights")
def constant_without_answers(lengths: list[int], by: str, max_tokens: int) -> list[float]:
    """with "constant" only the longest length divides: the number of answers divides too"""
    n = len(lengths)
    return _weights(lengths, sequence=[1 / (n * length) for length in lengths],
                    token=1 / sum(lengths), constant=1 / max_tokens, by=by)


@listed("54.5", of="token_weights")
def longest_of_the_batch(lengths: list[int], by: str, max_tokens: int) -> list[float]:
    """with "constant" the longest answer counts: it is the longest that is allowed"""
    n = len(lengths)
    return _weights(lengths, sequence=[1 / (n * length) for length in lengths],
                    token=1 / sum(lengths), constant=1 / (n * max(lengths)), by=by)

"""Common mistakes of readers in chapter 09."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: what differs ------------------------------------------------------------------------------


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any], *, absent: Any) -> dict[str, tuple]:
    return {name: (old.get(name, absent), new.get(name, absent)) for name in {**old, **new}}


@listed("09.1", of="what_differs")
def names_of_old_only(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """only the names in `old` are compared: a setting that only `new` has differs, too"""
    pairs = _pairs(old, new, absent="absent")
    return {name: pairs[name] for name in old if pairs[name][0] != pairs[name][1]}


@listed("09.1", of="what_differs")
def names_of_both_only(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """only the names that both have are compared: a setting that one of them lacks differs, too"""
    pairs = _pairs(old, new, absent="absent")
    return {name: pairs[name] for name in old if name in new and pairs[name][0] != pairs[name][1]}


@listed("09.1", of="what_differs")
def new_before_old(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """the values of a pair are exchanged: the value in `old` comes first"""
    return {name: (after, before)
            for name, (before, after) in _pairs(old, new, absent="absent").items()
            if before != after}


@listed("09.1", of="what_differs")
def none_is_absent(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """`get(name)` is compared, so an absent setting looks like one whose value is None"""
    pairs = _pairs(old, new, absent="absent")
    return {name: pairs[name] for name, (before, after) in _pairs(old, new, absent=None).items()
            if before != after}


@listed("09.1", of="what_differs")
def equal_ones_too(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """settings that are equal are in the result: only those that differ belong there"""
    return _pairs(old, new, absent="absent")


# --- 2: how many seeds ----------------------------------------------------------------------------


@listed("09.2", of="seeds_needed")
def one_side_without_luck(difference: float, spread: float) -> int:
    """only one of the two means has luck: the variances of both means add up"""
    return max(2, math.ceil(4 * (spread / difference) ** 2))


@listed("09.2", of="seeds_needed")
def once_the_luck(difference: float, spread: float) -> int:
    """the difference is as large as the spread of luck: it must be twice as large"""
    return max(2, math.ceil(2 * (spread / difference) ** 2))


@listed("09.2", of="seeds_needed")
def rounded_down(difference: float, spread: float) -> int:
    """the number is rounded down: with one seed less the difference does not count"""
    return max(2, math.floor(8 * (spread / difference) ** 2))


@listed("09.2", of="seeds_needed")
def not_squared(difference: float, spread: float) -> int:
    """the ratio is not squared: four times as many seeds are needed to halve the luck"""
    return max(2, math.ceil(math.sqrt(8) * spread / difference))


@listed("09.2", of="seeds_needed")
def ratio_upside_down(difference: float, spread: float) -> int:
    """the ratio is upside down: a small difference needs many seeds, a large one needs few"""
    return max(2, math.ceil(8 * (difference / spread) ** 2))


@listed("09.2", of="seeds_needed")
def one_seed_is_enough(difference: float, spread: float) -> int:
    """one seed is allowed: a single run has no spread, so at least 2 are needed"""
    return math.ceil(8 * (spread / difference) ** 2)


# --- 3: a running mean ----------------------------------------------------------------------------


@listed("09.3", of="running_mean")
def begins_at_zero(values: Sequence[float], decay: float) -> list[float]:
    """the mean begins at 0 and is not corrected, so the first means are too low"""
    return _mixed(values, decay, mean=0.0)


@listed("09.3", of="running_mean")
def begins_at_the_first(values: Sequence[float], decay: float) -> list[float]:
    """the mean begins at the first value, which then has more weight than the later ones"""
    return _mixed(values, decay, mean=values[0])


@listed("09.3", of="running_mean")
def decay_for_the_new(values: Sequence[float], decay: float) -> list[float]:
    """`decay` is the weight of the new value: it belongs to the values so far"""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = (1 - decay) * total + value, (1 - decay) * weight + 1
        means.append(total / weight)
    return means


@listed("09.3", of="running_mean")
def looks_ahead(values: Sequence[float], decay: float) -> list[float]:
    """later values take part in a mean: the mean after a step knows only the steps before it"""
    return _running(values[::-1], decay)[::-1]


@listed("09.3", of="running_mean")
def equal_weights(values: Sequence[float], decay: float) -> list[float]:
    """all values so far have the same weight: older values have less"""
    return _running(values, 1.0)


@listed("09.3", of="running_mean")
def divided_by_the_count(values: Sequence[float], decay: float) -> list[float]:
    """the sum is divided by the number of values: divide it by the sum of the weights"""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total = decay * total + value
        means.append(total / (i + 1))
    return means


def _running(values: Sequence[float], decay: float) -> list[float]:
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means


def _mixed(values: Sequence[float], decay: float, *, mean: float) -> list[float]:
    means = []
    for value in values:
        mean = decay * mean + (1 - decay) * value
        means.append(mean)
    return means


# --- 4: the paired t ------------------------------------------------------------------------------


def _differences(old: Sequence[float], new: Sequence[float]) -> np.ndarray:
    return np.array(new) - np.array(old)


@listed("09.4", of="paired_t")
def divided_by_n(old: Sequence[float], new: Sequence[float]) -> float:
    """the spread divides by n instead of n - 1: NumPy's `std` needs `ddof=1` for that"""
    d = _differences(old, new)
    return float(d.mean() / (d.std() / math.sqrt(len(d))))


@listed("09.4", of="paired_t")
def without_root_of_n(old: Sequence[float], new: Sequence[float]) -> float:
    """the spread of one difference is used: the spread of their mean is smaller by a root of n"""
    d = _differences(old, new)
    return float(d.mean() / d.std(ddof=1))


@listed("09.4", of="paired_t")
def divided_by_root(old: Sequence[float], new: Sequence[float]) -> float:
    """the spread is multiplied by the root of n instead of divided by it"""
    d = _differences(old, new)
    return float(d.mean() / (d.std(ddof=1) * math.sqrt(len(d))))


@listed("09.4", of="paired_t")
def old_minus_new(old: Sequence[float], new: Sequence[float]) -> float:
    """`new` is subtracted from `old`: a lower loss must give a negative t"""
    d = -_differences(old, new)
    return float(d.mean() / (d.std(ddof=1) / math.sqrt(len(d))))


@listed("09.4", of="paired_t")
def not_paired(old: Sequence[float], new: Sequence[float]) -> float:
    """it is the t of section 4, which does not pair: take the spread of the differences"""
    n, m = len(old), len(new)
    squares = n * np.var(old) + m * np.var(new)
    error = math.sqrt(squares / (n + m - 2) * (1 / n + 1 / m))
    return float((np.mean(new) - np.mean(old)) / error)


# --- 5: FLOPs so far ------------------------------------------------------------------------------


def _totals(per_token: int, tokens_of_steps: Sequence[int]) -> list[int]:
    return [per_token * sum(tokens_of_steps[: i + 1]) for i in range(len(tokens_of_steps))]


@listed("09.5", of="flops_so_far")
def forward_only(n_params: int, tokens_of_steps: Sequence[int]) -> list[int]:
    """only the forward pass is counted: backward costs twice as much in addition"""
    return _totals(2 * n_params, tokens_of_steps)


@listed("09.5", of="flops_so_far")
def one_for_each_weight(n_params: int, tokens_of_steps: Sequence[int]) -> list[int]:
    """one FLOP is counted for a weight and a token: it is a multiplication and an addition"""
    return _totals(3 * n_params, tokens_of_steps)


@listed("09.5", of="flops_so_far")
def backward_like_forward(n_params: int, tokens_of_steps: Sequence[int]) -> list[int]:
    """backward is counted as much as forward: it costs twice as much"""
    return _totals(4 * n_params, tokens_of_steps)


@listed("09.5", of="flops_so_far")
def of_each_step(n_params: int, tokens_of_steps: Sequence[int]) -> list[int]:
    """the FLOPs of each step alone are returned: each entry is the total up to its step"""
    return [6 * n_params * n_tokens for n_tokens in tokens_of_steps]


@listed("09.5", of="flops_so_far")
def before_the_step(n_params: int, tokens_of_steps: Sequence[int]) -> list[int]:
    """each entry is the total before its step: the FLOPs of the step belong to it, too"""
    return [6 * n_params * sum(tokens_of_steps[:i]) for i in range(len(tokens_of_steps))]

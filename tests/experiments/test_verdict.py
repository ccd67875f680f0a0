"""The verdict on synthetic runs: with no difference, with a known one, and with too few seeds."""

import functools
import math
import re

import numpy as np
import pytest
from scipy import stats

from llama_from_scratch.experiments import verdict
from llama_from_scratch.experiments.verdict import judge, spread

N_DRAWS = 200
SIZES = ((2, 2), (3, 3), (1, 5), (5, 1))


@functools.cache
def rate(n, m, *, difference=0.0, ratio=1.0):
    """Percent of 200 draws that are judged different; `ratio`: how much more the changed spread."""
    random = np.random.default_rng(0)
    found = 0
    for _ in range(N_DRAWS):
        baseline = random.standard_normal(n).tolist()
        changed = (difference + ratio * random.standard_normal(m)).tolist()
        found += judge(baseline, changed).is_different
    return 100 * found / N_DRAWS


@pytest.mark.parametrize("n, m", SIZES)
def test_false_alarms_are_within_the_binomial_limits_of_five_percent(n, m):
    low, high = stats.binom.interval(0.95, N_DRAWS, verdict.LEVEL)
    assert low <= rate(n, m) * N_DRAWS / 100 <= high


def test_a_difference_of_five_spreads_is_nearly_always_found_with_three_seeds_each():
    assert rate(3, 3, difference=5) >= 98


def test_the_rates_in_the_docstring_are_the_measured_ones():
    rows = re.findall(r"(\d) \+ (\d) +([\d.]+) % +([\d.]+) % +([\d.]+) %", verdict.__doc__)
    stated = {(int(n), int(m)): tuple(map(float, rates)) for n, m, *rates in rows}
    measured = {(n, m): (rate(n, m), rate(n, m, difference=5), rate(n, m, ratio=3))
                for n, m in SIZES}
    assert stated == measured


@pytest.mark.parametrize("baseline, changed", [
    ([3.1, 3.2, 3.15], [3.0, 3.05, 3.02]), ([1.0, 2.0], [1.5, 1.9]), ([2.0, 2.1, 1.9, 2.2], [2.6])])
def test_p_value_and_interval_are_those_of_an_independent_t_test(baseline, changed):
    found = judge(baseline, changed, level=0.1)
    if len(changed) > 1:
        theirs = stats.ttest_ind(changed, baseline)
        interval = theirs.confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.high - found.difference == pytest.approx(found.needed)
    assert (abs(found.difference) > found.needed) == found.is_different


def test_lower_and_higher():
    low = judge([3.0, 3.01, 2.99], [2.0, 2.01, 1.99])
    assert low.is_different and low.is_lower and low.short == "lower"
    assert low.words.startswith("lower: -1 (95 % interval -1.02 to -0.977), more than the spread")
    high = judge([2.0, 2.01, 1.99], [3.0, 3.01, 2.99])
    assert high.is_different and not high.is_lower and high.short == "higher"


def test_one_changed_run_is_judged_against_several_seeds():
    assert judge([3.0, 3.01, 2.99], [2.0]).is_lower
    assert not judge([3.0, 3.01, 2.99], [3.005]).is_different


def test_one_seed_each_gets_no_verdict():
    found = judge([3.0], [1.0])
    assert not found.is_judged and not found.is_different and math.isnan(found.p_value)
    assert found.words.startswith("one seed each says nothing about the spread; run more: seeds=3")


def test_few_seeds_say_how_large_a_difference_would_have_counted():
    found = judge([3.0, 3.1], [3.2, 3.3])
    assert found.needed == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(0.005))
    assert "With 2 + 2 seeds, only a difference of 0.304 would have counted" in found.words
    assert "counted" not in judge([3.0, 3.1, 3.0], [3.2, 3.0, 3.1]).words, "three seeds each"


def test_a_smaller_level_needs_a_larger_difference():
    assert judge([3.0, 3.1, 3.05], [3.2, 3.18, 3.17]).is_different
    strict = judge([3.0, 3.1, 3.05], [3.2, 3.18, 3.17], level=0.05 / 8)
    assert not strict.is_different and "99.38 % interval" in strict.words


def test_runs_that_end_with_equal_numbers():
    same = judge([3.3, 3.3, 3.3], [3.3, 3.3, 3.3])
    assert not same.is_different and same.p_value == 1
    other = judge([3.3, 3.3], [3.1, 3.1])
    assert other.is_lower and "check that the seed has an effect" in other.words
    assert spread([3.3] * 3) == 0


def test_spread_of_one_value_is_unknown():
    assert math.isnan(spread([3.0])) and spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("baseline, changed, level, words", [
    ([], [1.0], 0.05, "baseline needs the final value of at least one run; got none"),
    ([1.0], [math.nan], 0.05, "changed needs finite values; got nan. Leave diverged runs out"),
    ([1.0], [math.inf, 1.0], 0.05, "changed needs finite values; got inf"),
    ([1.0], [1.0], 5.0, "level is a probability between 0 and 1, such as 0.05; got 5.0")])
def test_what_cannot_be_judged_is_refused(baseline, changed, level, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        judge(baseline, changed, level=level)


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(ValueError, match="package scipy, which is not installed.*pip install"):
        judge([1.0, 2.0], [1.5])

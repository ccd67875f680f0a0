import itertools
import math

import pytest

from llama_from_scratch.train.schedule import learning_rate


def rate(step, **changes):
    return learning_rate(step, **dict(n_steps=100, peak=2.0, n_warmup=10) | changes)


def test_the_warm_up_climbs_in_equal_steps_to_the_peak():
    climb = [rate(step) for step in range(11)]
    assert climb == pytest.approx([2.0 * (step + 1) / 11 for step in range(11)])
    assert max(rate(step) for step in range(100)) == climb[10] == 2.0


def test_the_last_step_has_a_tenth_of_the_peak_and_the_middle_the_mean():
    assert rate(99) == pytest.approx(0.2)
    assert rate(99, final_ratio=0.0) == pytest.approx(0.0)
    assert rate(10 + 89 // 2, n_steps=99) == pytest.approx(1.1), "half way down the cosine"
    assert rate(40) == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * 30 / 89)) / 2))


def test_after_the_warm_up_the_rate_only_falls():
    rates = [rate(step) for step in range(10, 100)]
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_a_run_of_one_step_and_one_without_warm_up_have_a_rate():
    assert rate(0, n_steps=1, n_warmup=0) == 2.0
    assert rate(0, n_warmup=0) == 2.0


def test_a_step_outside_the_run_or_a_warm_up_as_long_as_it_is_refused():
    with pytest.raises(ValueError, match="from 0 to 99; got 100"):
        rate(100)
    with pytest.raises(ValueError, match="shorter than the run; got 100 of 100"):
        rate(0, n_warmup=100)

"""Differences of two runs, made on purpose."""

import dataclasses

import pytest

from llama_from_scratch.train.difference import Difference, differences_of
from llama_from_scratch.train.records import Evaluation, Step

SEEN = Evaluation(loss=2.0, bits_per_byte=1.5, n_targets=9, n_bytes=20)
STEPS = [Step(step=i, loss=5.0 - i, lr=1e-3 * (i + 1), grad_norm=1.0, n_tokens=96, time_s=0.1 * i,
              validation=SEEN if i == 2 else None) for i in range(4)]


def changed(i, **fields):
    return [dataclasses.replace(step, **fields) if step.step == i else step for step in STEPS]


def test_equal_runs_have_no_difference_whatever_time_they_took():
    assert list(differences_of(STEPS, [dataclasses.replace(s, time_s=9.0) for s in STEPS])) == []


@pytest.mark.parametrize(("fields", "name"), [
    (dict(loss=3.0 + 5e-16), "loss"), (dict(grad_norm=2.0), "grad_norm"), (dict(lr=1.0), "lr"),
    (dict(n_tokens=97), "n_tokens"), (dict(validation=None), "validation loss"),
    (dict(validation=dataclasses.replace(SEEN, bits_per_byte=2.0)), "validation bits_per_byte"),
    (dict(validation=dataclasses.replace(SEEN, n_bytes=21)), "validation n_bytes")])
def test_every_number_is_compared_bit_for_bit(fields, name):
    for a, b in ((STEPS, changed(2, **fields)), (changed(2, **fields), STEPS)):
        found = list(differences_of(a, b))
        assert (found[0].step, found[0].name) == (2, name)


def test_a_tolerance_is_relative_to_the_larger_value():
    other = changed(1, loss=4.0 * (1 + 1e-6))
    (found,) = differences_of(STEPS, other, tolerance=5e-7)
    assert found.size == pytest.approx(1e-6, rel=1e-3)
    assert list(differences_of(STEPS, other, tolerance=2e-6)) == []
    assert Difference(step=0, name="loss", first=0.0, second=0.0).size == 0


def test_steps_that_only_one_run_has_are_named():
    (found,) = differences_of(STEPS, STEPS[:3], tolerance=1.0)
    assert str(found) == ("step 3: loss is 2.0 in the first run and missing in the second "
                          "(relative difference inf)")


@pytest.mark.parametrize("tolerance", [-1e-9, float("inf"), float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match="a tolerance is a relative difference, from 0 on; got"):
        list(differences_of(STEPS, STEPS, tolerance=tolerance))

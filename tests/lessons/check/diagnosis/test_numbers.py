"""One wrong number and the right one: what makes one of the other."""

import math

import pytest

from llama_from_scratch.lessons.check.diagnosis.numbers import related


@pytest.mark.parametrize(("mine", "expected", "words"), [
    (524_288, 262_144, "exactly twice"), (131_072, 262_144, "exactly half"),
    (21, 7, "exactly 3 times"), (7, 21, "exactly 1/3"),
    (0.25, 4, "reciprocal"), (4.0, 0.25, "reciprocal"),
    (8 * 1234, 1234, "bits"), (1234, 8 * 1234, "bytes"),
    (25.0, 0.25, "percentage"), (-3.5, 3.5, "sign"),
    (1000 * 1.7, 1.7, "1000 times"), (1.7, 1.7e9, "1/1000³"), (2**30, 10**9, "units of 1000³"),
    (10.0, 100.0 * 0 + math.exp(10.0), "logarithm"), (math.exp(1.5), 1.5, "exponential"),
    (49.0, 7.0, "exactly 7 times"), (6.25, 2.5, "square of"),
    (1.5811388300841898, 2.5, "square root"),
    (0.3, 0.7, "one minus"), (2.772588722239781, 4.0, "in nats, and bits"),
    (100, 101, "one too few"), (102, 101, "one too many"), (2.501, 2.5, "without rounding"),
])
def test_relation_is_said_in_words(mine, expected, words):
    assert words in related(mine, expected)


@pytest.mark.parametrize(("mine", "expected"), [
    (3.7, 2.9), (1.0, 1.0), (0, 5), (5, 0), (math.nan, 1.0), (math.inf, 1.0), (True, 2), (3j, 2),
])
def test_unrelated_numbers_have_no_rule(mine, expected):
    assert related(mine, expected) is None

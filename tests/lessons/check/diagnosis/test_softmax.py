"""Mistakes around a softmax."""

import pytest
from mistakes import assert_named, cases_of, random, scores_TS

from llama_from_scratch.lessons.check.diagnosis import softmax
from llama_from_scratch.lessons.check.diagnosis.catalog import diagnose


@pytest.mark.parametrize("case", cases_of(softmax))
def test_typical_mistake_is_named(case):
    assert_named(case)


def test_softmax_of_other_scores_over_another_axis_gets_no_diagnosis():
    assert diagnose(random(6, 6, seed=9).softmax(0), scores_TS.softmax(1)) is None

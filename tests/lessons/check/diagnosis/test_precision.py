"""Values rounded to a smaller format."""

import pytest
from mistakes import assert_named, cases_of, x_BTHK

from llama_from_scratch.lessons.check.diagnosis import precision
from llama_from_scratch.lessons.check.diagnosis.catalog import diagnose


@pytest.mark.parametrize("case", cases_of(precision))
def test_typical_mistake_is_named(case):
    assert_named(case)


def test_small_difference_is_never_called_more_than_a_matter_of_precision():
    almost = x_BTHK * (1 + 1e-5)
    assert diagnose(almost, x_BTHK) is None
    assert "bfloat16" in diagnose((x_BTHK.round(decimals=1)).bfloat16(),
                                  x_BTHK.round(decimals=1).double())

"""Numbers wrong by a rule."""

import pytest
from mistakes import assert_named, cases_of

from llama_from_scratch.lessons.check.diagnosis import factors


@pytest.mark.parametrize("case", cases_of(factors))
def test_typical_mistake_is_named(case):
    assert_named(case)

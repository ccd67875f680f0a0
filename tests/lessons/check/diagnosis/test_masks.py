"""Wrong masks, and values that are not finite."""

import pytest
from mistakes import assert_named, cases_of

from llama_from_scratch.lessons.check.diagnosis import masks


@pytest.mark.parametrize("case", cases_of(masks))
def test_typical_mistake_is_named(case):
    assert_named(case)

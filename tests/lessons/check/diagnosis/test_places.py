"""Numbers in the wrong places."""

import pytest
from mistakes import assert_named, cases_of

from llama_from_scratch.lessons.check.diagnosis import places


@pytest.mark.parametrize("case", cases_of(places))
def test_typical_mistake_is_named(case):
    assert_named(case)

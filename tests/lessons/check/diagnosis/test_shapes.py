"""Values in another shape."""

import pytest
from mistakes import assert_named, cases_of

from llama_from_scratch.lessons.check.diagnosis import shapes


@pytest.mark.parametrize("case", cases_of(shapes))
def test_typical_mistake_is_named(case):
    assert_named(case)

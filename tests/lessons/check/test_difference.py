"""What a failure says: where two values differ, how much, and why."""

import math

import numpy as np
import pytest
import torch
from failing_checks import message, x_BHTS
from torch import nn

from llama_from_scratch.lessons import check


def test_failure_shows_shapes_with_letters_place_count_largest_and_cause():
    wrong = x_BHTS * 4
    wrong[0, 0, 0] = x_BHTS[0, 0, 0]
    wrong[1, 1, 1, 1] += 0.1
    assert message(check.equal, wrong, x_BHTS, name="scores_BHTS").splitlines() == [
        "scores_BHTS is not what it should be.",
        "         yours                  expected",
        "  shape  (B=2, H=4, T=5, S=5)   (B=2, H=4, T=5, S=5)",
        f"  first difference at [0, 0, 1, 0]: yours {wrong[0, 0, 1, 0]:.6g}, expected "
        f"{x_BHTS[0, 0, 1, 0]:.6g}",
        f"  195 of 200 values differ, the largest difference is {(wrong - x_BHTS).abs().max():.4g} "
        f"at {((wrong - x_BHTS).abs() == (wrong - x_BHTS).abs().max()).nonzero()[0].tolist()}",
    ]
    assert ("likely cause: every value is 4 times the "
            "expected" in message(check.equal, x_BHTS * 4, x_BHTS))
    assert "axis 1 (H) and axis 2 (T) are swapped" in message(check.equal, x_BHTS.transpose(1, 2),
                                                              x_BHTS, name="scores_BHTS")


@pytest.mark.parametrize(("mine", "expected", "words"), [
    (None, x_BHTS, "must be a tensor, but yours is None. Did you forget `return`?"),
    ([1, 2], torch.tensor([1, 2]), "must be a tensor, but yours is a list of 2: [1, 2]. "
                                   "Convert it with `torch.tensor(...)`"),
    (np.zeros(2), torch.zeros(2), "`torch.from_numpy(...)`"),
    (print, x_BHTS, "yours is the function print. Call it"),
    (nn.Linear, x_BHTS, "yours is the class Linear. Call it"),
    (nn.Linear(2, 2), x_BHTS, "yours is the module Linear. Call it"),
    (x_BHTS, 3.0, "must be a number, but yours is a float32 tensor of shape (2, 4, 5, 5). Sum or"),
    (3.0, x_BHTS, "must be a tensor, but yours is 3.0."),
    (torch.tensor([1, 2]), [1, 2], "`.tolist()`"), (b"a", "a", "`.decode("),
    ("a", b"a", "`.encode("),
    ({1}, [1], "must be a sequence"),
    (x_BHTS[0], x_BHTS, "shape  (4, 5, 5)"),
    (torch.tensor([1, 0]), torch.tensor([True, False]), "the type is int64 and should be bool"),
    (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), "has the right values, but the type is"),
    (x_BHTS.bfloat16(), x_BHTS, "dtype  bfloat16"), (2, 3, "your result is 2, but should be 3."),
    (math.e / math.log(2), math.e, "likely cause: 1/ln 2 times"),
    (1.0, math.nan, "should be nan"), (math.nan, 1.0, "is nan"),
    ("hello", "hallo", "it should be. The first difference is at character 1:\n"),
    (b"a", b"bc", "Yours has 1 byte and should have 2. The first difference is at byte 0"),
    ([1], [1, 2], "your result has 1 entry, but should have 2;"),
    ("hell", "hello", "4 characters and should have 5. The first difference is at character 4"),
    ([1, 2, 4], [1, 2, 3], "your result[2] is 4, but should be 3"),
    ([1, 2], [1, 2, 3], "the first 2 are right, then 3 is missing"),
    ([1, 2, 3], [1, 2], "then 3 is too many"),
    ([2, 5, 10], [1, 4, 9], "every value is 1 too large"),
    ([1, 1], [1, None], "[1] must be None"),
    ({"a": [1]}, {"a": [2]}, "your result['a'][0] is 1, but should be 2"),
    ({"a": 1}, {"b": 1}, "has the wrong keys. Missing: ['b']. Not expected: ['a']."),
    ({1}, {2}, "your result is {1}, but should be {2}"), (1.0001, 1.0, "is 1.0001"),
    (1e-7, 2e-7, "is 1e-07"),
    (1e-7 * x_BHTS, 2e-7 * x_BHTS, "1/2 of the expected"),
])
def test_wrong_value_is_told_in_words(mine, expected, words):
    assert words in message(check.equal, mine, expected)


def test_one_entry_of_a_list_is_not_explained_by_a_factor_of_its_own():
    said = message(check.equal, [2, 5, 6, 7], [4, 5, 6, 7])
    assert "is 2" in said and "half" not in said
    assert "every value is 2 times" in message(check.equal, [8, 10, 12, 15], [4, 5, 6, 7.5])

"""Each diagnosis against the mistakes that the others know: the whole confusion matrix."""

import pytest
import torch
from mistakes import ALSO_TRUE, CASES, K, random, with_row, x_BTHK

from llama_from_scratch.lessons.check.diagnosis.catalog import DIAGNOSES


@pytest.mark.parametrize("case", [case for case, (own, *_) in CASES.items() if case != "float32"])
def test_no_other_diagnosis_speaks(case):
    own, mine, expected, _ = CASES[case]
    speaking = [d.__name__ for d in DIAGNOSES if d(mine, expected)]
    assert speaking[0] == own
    assert set(speaking[1:]) <= ALSO_TRUE.get(own, set())


@pytest.mark.parametrize("mine", [random(2, 5, 4, K, seed=9),
                                  x_BTHK + 0.1 * random(2, 5, 4, K, seed=9), x_BTHK.square(),
                                  with_row(x_BTHK, (0, 3), 0.5), x_BTHK.abs(), x_BTHK.cumsum(1)])
def test_what_no_rule_explains_gets_no_diagnosis(mine):
    assert [d.__name__ for d in DIAGNOSES if d(mine, x_BTHK)] == []


@pytest.mark.parametrize("case", [case for case, (own, *_) in CASES.items()
                                  if own not in ("lower_precision", "not_finite")])
def test_one_wrong_value_more_silences_the_diagnosis(case):
    own, mine, expected, _ = CASES[case]
    if mine.dtype == torch.bool or not mine.ndim:
        pytest.skip("a mask with one more hole is still a wrong mask; a number has no second value")
    spoilt = mine.clone()
    where = mine.isfinite() & (expected.isfinite() if mine.shape == expected.shape else True)
    place = tuple(where.nonzero()[where.sum() // 2].tolist())
    spoilt[place] = spoilt[place] * 1.37 + 3
    found = {d.__name__ for d in DIAGNOSES if d(spoilt, expected)}
    assert own not in found


def test_every_diagnosis_has_a_case():
    assert {own for own, *_ in CASES.values()} == {d.__name__ for d in DIAGNOSES}

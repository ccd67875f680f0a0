"""Too little evidence for an equality that is no accident."""

import math

import pytest
import torch
from mistakes import random

from llama_from_scratch.lessons.check.diagnosis.catalog import diagnose


@pytest.mark.parametrize(("mine", "expected"), [
    (torch.tensor(3.0), torch.tensor(1.5)), (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])),
    (torch.zeros(0), torch.zeros(3)),
    (torch.zeros(4, 4), torch.eye(4)),
    (torch.tensor([True, False, True]), torch.tensor([True, True, False])),
    (torch.tensor([5, 5, 7]), torch.tensor([5, 7, 5])),
    (torch.tensor([5, 5, 7, 9, 9]), torch.tensor([5, 7, 5, 9, 9])),
    (torch.full((3, 3), math.nan), random(3, 3) > 0),
])
def test_too_little_evidence_gets_no_diagnosis_of_order_or_scale(mine, expected):
    found = str(diagnose(mine, expected))
    assert not any(word in found for word in ("times", "order", "place"))

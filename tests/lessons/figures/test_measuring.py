import pytest
import torch
from torch import nn

from llama_from_scratch.lessons.figures.measuring import axes, shapes_of


def test_shapes_are_those_of_the_run_and_nothing_stays_behind():
    part = nn.Sequential()
    part.add_module("up", nn.Linear(4, 6))
    with shapes_of(part) as seen:
        part(torch.zeros(2, 4))
    assert seen == {"up in": [(2, 4)], "up out": [(2, 6)]}
    assert not part.up._forward_hooks


def test_each_axis_has_its_letter():
    assert axes("BT", (2, 3)) == {"B": 2, "T": 3}
    with pytest.raises(ValueError, match="longer"):
        axes("B", (2, 3))

"""The table of all operations is complete: each is compared, and timed by a part that exists."""

import pytest
import torch

from llama_from_scratch.kernels.trial import gpu
from llama_from_scratch.kernels.trial.operations import OPERATIONS


def test_names_are_different_and_every_operation_belongs_to_a_part():
    names = [each.name for each in OPERATIONS]
    assert len({*names}) == len(names)
    assert {each.part for each in OPERATIONS} <= {part.name for part in gpu.PARTS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_all_ways_give_outputs_of_the_same_shapes(operation):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    for size in operation.sizes[:2]:
        inputs = operation.inputs(size, draw)
        shapes = [[y.shape for y in way(*inputs)] for way in (operation.exact, operation.plain)]
        assert shapes[0] == shapes[1] and shapes[0]
        there, back = operation.traffic(size)
        assert there > 0 and (back > 0) == bool(operation.gradient_names)

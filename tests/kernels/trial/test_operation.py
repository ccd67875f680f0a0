"""The record of an operation and its rivals."""

import torch

from llama_from_scratch.kernels.trial.operation import Rival
from llama_from_scratch.kernels.trial.pointwise import POINTWISE


def test_a_rival_without_preparation_gets_the_inputs_themselves():
    x = torch.ones(3)
    rival = Rival(name="double", way=lambda x, y: (2 * x,))
    assert rival.prepare(x, x)[0] is x and rival.way(*rival.prepare(x, x))[0].equal(2 * x)


def test_an_operation_is_limited_by_memory_unless_it_counts_operations():
    assert all(each.operations is None and each.part == "memory-bound" for each in POINTWISE)

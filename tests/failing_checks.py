"""What the tests of the checks share: the words of a failure, and functions to be checked."""

import pytest
import torch

from llama_from_scratch.lessons.check import CheckFailed

x_BHTS = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def message(function, *args, **settings):
    with pytest.raises(CheckFailed) as failed:
        function(*args, **settings)
    return str(failed.value)


def double(x):
    return 2 * x


def random_inputs(generator):
    return torch.randn(3, 4, generator=generator), 0.5


def scaled(x_TS, scale):
    return x_TS * scale


def deep_inside(x):
    return x.no_such_thing


def raises(x):
    return deep_inside(x)

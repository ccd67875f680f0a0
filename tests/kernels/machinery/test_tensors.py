"""What kernels may read, which tensors they refuse, and how large the emulated GPU pretends to
be."""

import pytest
import torch

from llama_from_scratch.kernels.machinery.tensors import (
    EMULATED_PROCESSORS,
    aligned,
    n_processors,
    require_cuda,
)


def test_a_tensor_without_gaps_at_a_multiple_of_16_bytes_is_passed_on_as_it_is():
    x = torch.randn(3, 8)
    assert aligned(x) is x and aligned(x[2:]).data_ptr() == x[2:].data_ptr()


@pytest.mark.parametrize("view", [
    lambda x: x.flatten()[1:], lambda x: x.t(), lambda x: x[:, ::2], lambda x: x[:1].expand(5, 8)])
def test_any_other_tensor_is_copied_to_where_a_kernel_can_read_it(view):
    x = view(torch.randn(4, 8))
    found = aligned(x)
    assert torch.equal(found, x) and found.is_contiguous() and found.data_ptr() % 16 == 0


def test_a_tensor_of_the_cpu_is_refused_unless_the_emulator_was_asked_for():
    require_cuda("norm", torch.zeros(1), emulate=True)
    with pytest.raises(ValueError, match=r"norm runs on a CUDA device; .* on cpu.*emulate=True"):
        require_cuda("norm", torch.zeros(1), emulate=False)


def test_the_emulator_has_few_processors():
    assert n_processors(torch.device("cpu")) == EMULATED_PROCESSORS

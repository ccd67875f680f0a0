"""What kernels may read, which tensors they refuse, and how large the emulated GPU pretends to
be."""

import pytest
import torch

from llama_from_scratch.kernels.machinery.tensors import (
    EMULATED_PROCESSORS,
    aligned,
    n_processors,
    require_cuda,
    span,
    with_whole_rows,
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


@pytest.mark.parametrize("view", [
    lambda x: x, lambda x: x[:, 1:], lambda x: x.transpose(0, 1), lambda x: x[..., :3],
    lambda x: x[:, :1].expand(4, 6, 8), lambda x: x[:, ::2, 4:]])
def test_rows_that_a_kernel_can_read_stay_where_they_are(view):
    x = view(torch.randn(4, 6, 8))
    assert with_whole_rows(x) is x


@pytest.mark.parametrize("view", [
    lambda x: x.flatten()[1:-7].view(23, 8), lambda x: x.transpose(1, 2), lambda x: x[..., ::2],
    lambda x: torch.cat([x, x[..., :1]], -1)[..., :-1], lambda x: x[..., :1].expand(4, 6, 8)])
def test_other_rows_are_copied_to_where_a_kernel_can_read_them(view):
    x = view(torch.randn(4, 6, 8))
    found = with_whole_rows(x)
    assert found is not x and torch.equal(found, x) and found.is_contiguous()


def test_a_span_is_the_memory_from_the_first_number_to_the_last():
    x = torch.arange(4 * 6 * 8.0).view(4, 6, 8)
    part = x[1:3, 2:5, :4]
    assert torch.equal(span(part), torch.arange(64.0, 64 + 48 + 16 + 4))
    assert span(part).data_ptr() == part.data_ptr() and span(x.transpose(0, 2)).shape == (192,)
    assert span(x[:1, :1].expand(4, 6, 8)).shape == (8,) and span(x[:0]).shape == (0,)


def test_a_tensor_of_the_cpu_is_refused_unless_the_emulator_was_asked_for():
    require_cuda("norm", torch.zeros(1), emulate=True)
    with pytest.raises(ValueError, match=r"norm runs on a CUDA device; .* on cpu.*emulate=True"):
        require_cuda("norm", torch.zeros(1), emulate=False)


def test_the_emulator_has_few_processors():
    assert n_processors(torch.device("cpu")) == EMULATED_PROCESSORS

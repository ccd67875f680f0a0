import pytest
import torch

from llama_from_scratch.model.moe.grouped import grouped_product

COUNTS = [3, 0, 1, 5, 0]


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(sum(COUNTS), 6, dtype=dtype, requires_grad=True)
    return x, torch.randn(len(COUNTS), 6, 7, dtype=dtype, requires_grad=True)


def by_loop(x, weight, counts):
    numbers = [e for e, n in enumerate(counts) for _ in range(n)]
    return torch.stack([row @ weight[e] for row, e in zip(x, numbers, strict=True)])


def test_each_row_meets_the_matrix_of_its_group_forward_and_backward():
    x, weight = inputs()
    fake = torch.randn(len(x), 7, dtype=x.dtype)
    ours, expected = grouped_product(x, weight, counts=COUNTS), by_loop(x, weight, COUNTS)
    torch.testing.assert_close(ours, expected)
    found, wanted = (torch.autograd.grad((y * fake).sum(), [x, weight]) for y in (ours, expected))
    torch.testing.assert_close(found, wanted)


def test_gradients_equal_finite_differences():
    x, weight = inputs()
    assert torch.autograd.gradcheck(lambda x, w: grouped_product(x, w, counts=COUNTS), (x, weight))


def test_a_matrix_without_rows_has_a_gradient_of_zero_and_is_not_read():
    x, weight = inputs()
    with torch.no_grad():
        weight[1] = weight[4] = float("nan")
    y = grouped_product(x, weight, counts=COUNTS)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert not weight.grad[[1, 4]].any() and weight.grad[[0, 2, 3]].abs().amin((1, 2)).gt(0).all()


@pytest.mark.parametrize("is_trained", [(True, False), (False, True)])
def test_a_gradient_that_is_not_asked_for_is_not_computed(is_trained):
    x, weight = inputs()
    x.requires_grad_(is_trained[0])
    weight.requires_grad_(is_trained[1])
    grouped_product(x, weight, counts=COUNTS).sum().backward()
    assert [each.grad is not None for each in (x, weight)] == list(is_trained)


def test_the_sum_of_all_results_has_a_gradient_too():
    """A sum's gradient is one number in every place, without memory of its own."""
    x, weight = inputs()
    found = torch.autograd.grad(grouped_product(x, weight, counts=COUNTS).sum(), [x, weight])
    expected = torch.autograd.grad(by_loop(x, weight, COUNTS).sum(), [x, weight])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_autocast_decides_the_dtype_as_it_does_for_other_products():
    x, weight = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = grouped_product(x, weight, counts=COUNTS)
        expected = by_loop(x, weight, COUNTS)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2**-7, atol=2**-7)
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32 and weight.grad.any()


def test_no_rows_give_no_results():
    weight = torch.randn(3, 6, 7, requires_grad=True)
    y = grouped_product(torch.randn(0, 6), weight, counts=[0, 0, 0])
    y.sum().backward()
    assert y.shape == (0, 7) and not weight.grad.any()


@pytest.mark.parametrize("counts", [[3, 0, 1, 5], [3, 0, 1, 4, 0], [3, 0, 1, 6, -1]], ids=str)
def test_counts_that_do_not_fit_are_refused(counts):
    x, weight = inputs()
    with pytest.raises(ValueError, match="each of the 5 matrices needs a number of rows"):
        grouped_product(x, weight, counts=counts)

"""The error policy: what it lets pass, what it catches, and what it refuses to compare."""

import pytest
import torch

from llama_from_scratch.kernels.trial.tolerance import (
    FORWARD_CAPS,
    GRADIENT_CAPS,
    Verdict,
    judge,
    step_of,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def answers(dtype: torch.dtype, *, n: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
    exact = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return exact, exact.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_is_the_distance_to_the_next_number(dtype):
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    info = torch.finfo(dtype)
    x = torch.cat([torch.tensor([1.0, 1.5, 2.0, 3.9, 1000.0, info.smallest_normal,
                                 info.smallest_normal / 4, 0.0], dtype=dtype),
                   torch.rand(100, generator=torch.Generator().manual_seed(0)).to(dtype)])
    neighbour = (x.view(bits) + 1).view(dtype)
    assert torch.equal(step_of(x), neighbour.double() - x.double())
    assert torch.equal(step_of(-x), step_of(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rounded_exact_answer_and_eager_itself_pass(dtype):
    exact, stored = answers(dtype)
    eager = stored + step_of(stored).to(dtype)
    assert judge(stored, exact=exact, eager=eager).is_ok
    verdict = judge(stored, exact=exact, eager=stored)
    assert verdict.is_ok and verdict.ratio == 1 and str(verdict).startswith("ok")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_gradient", [False, True])
def test_two_steps_beyond_the_factor_pass_and_a_quarter_more_does_not(dtype, is_gradient):
    exact = torch.ones(8, dtype=torch.float64)
    step = torch.finfo(dtype).eps
    eager = (exact + 4 * step).to(dtype)
    n_allowed = (12 if is_gradient else 8) + 2
    result = (exact + n_allowed * step).to(dtype)
    assert judge(result, exact=exact, eager=eager, is_gradient=is_gradient).is_ok
    result[3] += step
    verdict = judge(result, exact=exact, eager=eager, is_gradient=is_gradient)
    assert not verdict.is_ok and "element 3" in verdict.complaint


def test_error_is_judged_element_by_element():
    exact = torch.tensor([1000.0, 1.0], dtype=torch.float64)
    result = torch.tensor([1000.0, 1.001])
    assert not judge(result, exact=exact, eager=exact.float()).is_ok
    assert judge(torch.tensor([1000.0001, 1.0]), exact=exact, eager=exact.float()).is_ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cap_holds_even_where_eager_is_poor(dtype):
    exact, _ = answers(dtype)
    poor = (exact * (1 + 8 * FORWARD_CAPS[dtype])).to(dtype)
    poor[0] += 0.5
    within_poor = (exact * (1 + 4 * GRADIENT_CAPS[dtype])).to(dtype)
    verdict = judge(within_poor, exact=exact, eager=poor)
    assert not verdict.is_ok and "whole tensor" in verdict.complaint
    assert judge(within_poor[:8], exact=exact[:8],
                 eager=poor[:8]).is_ok, "a few numbers have no average"


def test_gradients_have_the_wider_cap():
    exact, _ = answers(torch.bfloat16, n=4096)
    eager = exact.to(torch.bfloat16) + torch.tensor(0.1).bfloat16()
    result = (exact * 1.0045).to(torch.bfloat16)
    assert not judge(result, exact=exact, eager=eager).is_ok
    assert judge(result, exact=exact, eager=eager, is_gradient=True).is_ok


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_single_non_finite_element_is_caught(wrong):
    exact, result = answers(torch.float32)
    result[77] = wrong
    verdict = judge(result, exact=exact, eager=exact.float())
    assert not verdict.is_ok and "element 77" in verdict.complaint


def test_nan_of_eager_excuses_nothing():
    exact, result = answers(torch.float32)
    eager = torch.full_like(result, float("nan"))
    assert judge(result, exact=exact, eager=eager).is_ok
    assert not judge(result + 1e-3, exact=exact, eager=eager).is_ok
    assert not judge(eager, exact=exact, eager=eager).is_ok


def test_infinity_is_demanded_where_the_exact_answer_overflows():
    exact = torch.tensor([1e6, -1e6, float("nan"), 1.0], dtype=torch.float64)
    eager = exact.half()
    assert judge(eager, exact=exact, eager=eager).is_ok
    for at, wrong in [(0, 65504.0), (1, float("inf")), (2, 0.0), (2, 0.5), (0, float("nan"))]:
        result = eager.clone()
        result[at] = wrong
        assert not judge(result, exact=exact, eager=eager).is_ok


def test_zeros_must_be_exact_or_tiny():
    exact = torch.zeros(100, dtype=torch.float64)
    assert judge(torch.zeros(100), exact=exact, eager=torch.zeros(100)).is_ok
    verdict = judge(torch.full((100,), 1e-6), exact=exact, eager=torch.zeros(100))
    assert not verdict.is_ok and verdict.ratio == float("inf")


def test_empty_tensors_pass():
    empty = torch.zeros(0, 5)
    nothing = Verdict(error=0.0, eager_error=0.0, relative_error=0.0, complaint="")
    assert judge(empty, exact=empty.double(), eager=empty) == nothing


def test_result_that_requires_grad_is_judged_all_the_same():
    exact, result = answers(torch.float32)
    assert judge(result.requires_grad_(), exact=exact, eager=exact.float()).is_ok


def test_incomparable_tensors_are_refused():
    x = torch.ones(4, 5)
    with pytest.raises(ValueError, match="same shape.*broadcasting"):
        judge(x, exact=x[:1].double(), eager=x)
    with pytest.raises(ValueError, match="exact must be float64"):
        judge(x, exact=x, eager=x)
    with pytest.raises(ValueError, match="have the result's dtype"):
        judge(x, exact=x.double(), eager=x.bfloat16())
    with pytest.raises(ValueError, match="one of"):
        judge(x.int(), exact=x.double(), eager=x.int())

import math

import pytest
import torch

from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.model.temperature import Tempered, Unscaled, query_scales

TUNING = TemperatureTuning(floor=8192, strength=0.1)


def scale(position, tuning=TUNING):
    return query_scales(torch.tensor([[position]]), tuning).item()


@pytest.mark.parametrize("k", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1])
def test_scales_equal_the_formula_with_whole_numbers_around_each_multiple_of_the_floor(k, offset):
    position = k * TUNING.floor + offset
    expected = 1 + 0.1 * math.log(1 + (position + 1) // TUNING.floor)
    assert scale(position) == pytest.approx(expected, rel=1e-6)


def test_nothing_changes_before_the_floor_and_then_queries_grow_in_steps():
    assert scale(0) == scale(8190) == 1.0
    assert scale(8191) == scale(2 * 8192 - 2) == pytest.approx(1 + 0.1 * math.log(2))
    assert scale(2 * 8192 - 1) > scale(2 * 8192 - 2)


def test_the_quotient_is_right_where_fp32_cannot_hold_the_position():
    """Above 2^24, a position in fp32 is rounded, here up to the next multiple of the floor."""
    tuning = TemperatureTuning(floor=3, strength=1.0)
    position = 3 * 2**24 + 1  # position + 1 divided by 3 is 2^24 and two thirds
    exact = 1 + math.log(1 + (position + 1) // 3)
    steps = torch.log1p(torch.tensor(float((position + 1) // 3)))
    assert query_scales(torch.tensor([[position]]), tuning).item() == 1 + steps.item()
    assert scale(position, tuning) == pytest.approx(exact, rel=1e-6)
    # the whole-number part itself, seen through a floor of 1 step
    near = torch.tensor([[2**24 + 1]])
    assert torch.div(near + 1, 2**24 + 2, rounding_mode="floor").item() == 1
    assert torch.floor((near.float() + 1) / (2**24 + 2)).item() == 0
    assert scale(2**24 + 1, TemperatureTuning(floor=2**24 + 2, strength=1.0)) > 1.6


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_positions_may_have_any_integer_dtype_and_shape(dtype):
    positions = torch.tensor([[0, 8191, 20000], [5, 6, 7]], dtype=dtype)
    scales = query_scales(positions, TUNING)
    assert scales.dtype == torch.float32 and scales.shape == (2, 3)
    for row, numbers in zip(scales.tolist(), positions.tolist(), strict=True):
        assert row == pytest.approx([scale(number) for number in numbers])


def test_every_head_of_a_query_is_multiplied_and_the_direction_stays():
    torch.manual_seed(0)
    q, positions = torch.randn(2, 3, 4, 5), torch.tensor([[0, 8191, 100_000]])
    found = Tempered(TUNING)(q, positions)
    for t, position in enumerate(positions[0].tolist()):
        torch.testing.assert_close(found[:, t], q[:, t] * scale(position))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_product_is_computed_in_fp32_and_has_the_dtype_of_the_queries(dtype):
    torch.manual_seed(0)
    q, positions = torch.randn(1, 2, 1, 8).to(dtype), torch.tensor([[8191, 3 * 8192]])
    scales = query_scales(positions, TUNING)[..., None, None]
    found = Tempered(TUNING)(q, positions)
    wide = q if dtype == torch.float64 else q.float()
    assert found.dtype == dtype and torch.equal(found, (wide * scales).to(dtype))


def test_without_positions_it_refuses_and_its_replacement_does_not():
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"the position of each token; got none\. Give Block"):
        Tempered(TUNING)(q, None)
    assert Unscaled()(q, None) is q and Unscaled()(q, torch.tensor([[10**6, 5]])) is q
    assert "floor=8192" in repr(Tempered(TUNING))

"""Rounding to a grid: error bounds, exact cases, and the search for a range."""

import pytest
import torch

from llama_from_scratch.compress.rounding import SHRINKS, round_to
from llama_from_scratch.model.grid import KINDS, WeightGrid


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


GRIDS = [WeightGrid(bits=bits, group=group, kind=kind) for bits in (2, 3, 4, 8) for kind in KINDS
         for group in (None, 32, 20) if kind != "normal" or bits == 4]


def steps_of(found, row):
    of = torch.arange(row) // (found.grid.group or row)
    return found.scales.float().abs()[:, of]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_error_is_at_most_half_a_step(grid):
    weight = draw(7, 90)
    found = round_to(weight, grid)
    step = steps_of(found, 90)
    off = (found.values() - weight).abs()
    if grid.kind == "normal":
        widest = (grid.levels()[1:] - grid.levels()[:-1]).max() / 2
        assert (off <= step * widest * 1.01).all()
    elif grid.kind == "signed":
        # one number reaches further down than up, so a weight at the other end may be cut by a step
        assert (off <= step * 1.01).all() and (off <= step * 0.501).float().mean() > 0.7
    elif grid.kind == "minimum":
        assert (off <= step * 1.01).all() and (off <= step * 0.501).float().mean() > 0.7
    else:
        # the range ends at a whole step, up to the rounding of the scale to fp16
        assert (off <= step * (0.5 + 2**grid.bits * 2**-11)).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_rounding_twice_changes_nothing(grid):
    found = round_to(draw(5, 64), grid)
    once, again = found.values(), round_to(found.values(), grid).values()
    if grid.has_zeros:  # a new scale in fp16 may move a zero point by one
        assert ((once - again).abs() <= 1.01 * steps_of(found, 64)).all()
        assert torch.allclose(once, again, rtol=2e-3, atol=1e-6) or grid.bits == 8
    else:
        assert torch.allclose(once, again, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("weight", [
    torch.zeros(3, 40), torch.full((3, 40), 0.3), torch.full((3, 40), -0.3),
    torch.eye(3, 40)], ids=["zeros", "constant", "negative", "single"])
def test_special_groups_are_exact(grid, weight):
    if (grid.kind == "symmetric" and grid.bits == 2) or weight.max() <= 0 <= weight.min():
        assert torch.equal(round_to(torch.zeros(3, 40), grid).values(), torch.zeros(3, 40))
        return
    assert torch.allclose(round_to(weight, grid).values(), weight, atol=1.2e-3)


def test_the_signed_extreme_is_exact_and_uses_the_lowest_number():
    weight = torch.tensor([[0.1, -0.05, 0.7, -0.6], [-0.8, 0.05, 0.7, 0.1]])
    found = round_to(weight, WeightGrid(bits=4, group=None))
    assert found.numbers[0, 2] == 0 and found.numbers[1, 0] == 0
    assert found.values()[0, 2].item() == pytest.approx(0.7, rel=1e-3)
    assert found.scales[0, 0] < 0 < found.scales[1, 0]


def test_rows_can_be_exchanged_and_scaled_by_powers_of_two():
    weight, order = draw(6, 64), torch.tensor([3, 1, 5, 0, 2, 4])
    for grid in GRIDS:
        whole = round_to(weight, grid)
        assert torch.equal(round_to(weight[order], grid).numbers, whole.numbers[order])
        assert torch.equal(round_to(weight * 8, grid).numbers, whole.numbers)


def test_groups_run_along_a_row_and_the_last_one_may_be_short():
    weight = torch.ones(2, 50)
    weight[:, 48:] = 100.0
    found = round_to(weight, WeightGrid(bits=4, group=16))
    assert found.scales.shape == (2, 4)
    assert torch.allclose(found.values(), weight, rtol=1e-3)


def test_the_scale_is_rounded_before_the_weights_are_divided():
    weight = draw(400, 32, seed=3)
    found = round_to(weight, WeightGrid(bits=8, group=None, kind="symmetric"))
    nearest = (weight / found.scales.float()).round().clamp(-127, 127) + 128
    assert torch.equal(found.numbers.float(), nearest)


@pytest.mark.parametrize("grid", [WeightGrid(bits=3), WeightGrid(bits=4, kind="symmetric"),
                                  WeightGrid(bits=2, kind="minimum"),
                                  WeightGrid(bits=4, kind="normal")], ids=str)
def test_a_searched_range_is_never_worse_and_mostly_better(grid):
    weight = draw(30, 128)
    plain, clipped = (((round_to(weight, grid, is_clipped=each).values() - weight) ** 2)
                      .unflatten(1, (-1, 32)).sum(-1) for each in (False, True))
    assert (clipped <= plain + 1e-12).all() and (clipped < plain).float().mean() > 0.5
    assert SHRINKS[0] == 1.0


def test_importance_moves_the_error_to_columns_that_count_little():
    weight = draw(40, 32)
    counts = torch.ones(32)
    counts[:4] = 100.0
    grid = WeightGrid(bits=2)
    even, uneven = (((round_to(weight, grid, is_clipped=True, importance=each).values() - weight)
                     ** 2)[:, :4].sum() for each in (None, counts))
    assert uneven < even


@pytest.mark.parametrize(("weight", "more", "words"), [
    (torch.ones(3), {}, "must be a matrix"), (torch.ones(2, 2, dtype=torch.int32), {}, "matrix"),
    (torch.ones(0, 4), {}, "matrix"), (torch.tensor([[float("nan"), 1.0]]), {}, "1 of 2 that are"),
    (torch.tensor([[1e6, 1.0]]), {}, "65,504; got a weight of 1e"),
    (torch.ones(2, 4), {"importance": torch.ones(4)}, "Set is_clipped=True"),
    (torch.ones(2, 4), {"importance": torch.ones(3), "is_clipped": True}, r"\(3,\) for 4 columns"),
    (torch.ones(2, 4), {"importance": -torch.ones(4), "is_clipped": True}, "none below 0")])
def test_bad_input_is_refused(weight, more, words):
    import inspect

    with pytest.raises(ValueError, match=words):
        inspect.unwrap(round_to)(weight, WeightGrid(bits=4), **more)

"""Who writes what: every element once, and no rank much more than another."""

import random

import pytest
import torch

from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.shard_file import About
from llama_from_scratch.parallel.writers import Holding, holdings, plan

WHOLE = Region.whole((8, 6))


def held(*regions, dtype=torch.float32):
    return [{} if region is None else {"x": Holding(region=region, dtype=dtype)}
            for region in regions]


def spans(made):
    return [(each["x"].region.first, each["x"].region.n) if "x" in each else None for each in made]


def test_copies_are_divided_by_size():
    shapes = {"a": (100,), "b": (60,), "c": (50,), "d": (10,)}
    everything = {name: Holding(region=Region.whole(shape), dtype=torch.float32)
                  for name, shape in shapes.items()}
    made = plan([everything] * 3)
    assert [sorted(each) for each in made] == [["a"], ["b"], ["c", "d"]]


def test_slices_and_spans_stay_with_the_ranks_that_hold_them():
    halves = [WHOLE.part(axis=1, part=part, n_parts=2) for part in (0, 1)]
    made = plan(held(halves[0].span(0, 9), halves[0].span(9, 15), halves[1]))
    assert [each["x"].region for each in made] == [
        halves[0].span(0, 9), halves[0].span(9, 15), halves[1]]
    copied = plan(held(*halves, *halves))  # two replicas
    assert sum("x" in each for each in copied) == 2


def test_copies_with_other_borders_are_cut_where_they_end():
    """A tied embedding at both ends of a pipeline, each divided by its own group of ranks."""
    made = plan(held(WHOLE.span(0, 20), WHOLE.span(20, 28), WHOLE.span(0, 30), WHOLE.span(30, 18)))
    assert spans(made) == [None, (30, 18), (0, 30), None]
    made = plan(held(WHOLE.span(0, 20), WHOLE.span(10, 30), WHOLE.span(25, 23)))
    assert spans(made) == [(0, 20), (20, 20), (40, 8)]


@pytest.mark.parametrize("seed", range(20))
def test_any_spans_that_cover_a_tensor_are_written_once(seed):
    draw = random.Random(seed)
    regions = []
    for _ in range(4):  # replicas, each cut by itself
        cuts = sorted({0, 48, *(draw.randrange(49) for _ in range(draw.randrange(5)))})
        regions += [WHOLE.span(a, b - a) for a, b in zip(cuts, cuts[1:], strict=False)]
    draw.shuffle(regions)
    made = sorted(span for span in spans(plan(held(*regions, None))) if span)
    assert [first for first, _ in made] == [0, *(first + n for first, n in made[:-1])]
    assert sum(made[-1]) == 48


def test_what_nobody_holds_is_refused_with_its_name():
    with pytest.raises(ValueError, match="of x, the pieces have 40 of its 48 elements"):
        plan(held(WHOLE.span(0, 20), WHOLE.span(28, 20)))


def test_ranks_that_describe_a_tensor_differently_are_named():
    with pytest.raises(ValueError, match=r"x is \(8, 6\) in torch.float32 on rank 0, \(8, 6\) in "
                       "torch.bfloat16 on rank 1. Give all ranks the same model"):
        plan(held(WHOLE) + held(WHOLE, dtype=torch.bfloat16))


def test_a_state_of_another_shape_than_its_parameter_is_refused():
    about = {"optimizer.row.x": About(shape=(8,), dtype=torch.float32)}
    with pytest.raises(ValueError, match="got 8 for 48 of optimizer.row.x. A state of the "):
        holdings(about, {"optimizer.row.x": WHOLE})

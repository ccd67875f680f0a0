"""Regions compared with lists of all elements, which they never make."""

import random

import pytest
import torch

from llama_from_scratch.checkpoint.sharded.region import Region, TensorBox, copy, do_overlap


def drawn(draw, shape):
    """A random span of a random box."""
    starts = tuple(draw.randrange(n // 2 + 1) for n in shape)
    sizes = tuple(draw.randrange(n // 2, n - start + 1)
                  for n, start in zip(shape, starts, strict=True))
    n_box = torch.Size(sizes).numel()
    first = draw.randrange(n_box // 2 + 1)
    return Region(shape=shape, starts=starts, sizes=sizes, first=first,
                  n=draw.randrange(n_box - first + 1))


def elements(region):
    """The numbers of all elements of a region, in its order: the slow way."""
    every = torch.arange(torch.Size(region.shape).numel()).view(region.shape)
    return region.box.within(every, TensorBox(starts=(0,) * len(region.shape), sizes=region.shape)
                             ).flatten()[region.first : region.first + region.n]


@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (3, 4, 5), (2, 3, 1, 4)])
def test_the_boxes_of_a_span_hold_its_elements_in_order(shape):
    draw = random.Random(0)
    for _ in range(100):
        region = drawn(draw, shape)
        boxes = list(region.boxes())
        found = [elements(Region(shape=shape, starts=box.starts, sizes=box.sizes, first=0, n=box.n))
                 for box in boxes]
        assert torch.cat([torch.zeros(0, dtype=torch.int64), *found]).equal(elements(region))
        assert len(boxes) <= max(2 * len(shape) - 1, 1)


@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (3, 4, 5)])
def test_what_two_regions_share_is_copied_to_its_place(shape):
    draw, n_shared = random.Random(1), 0
    for _ in range(300):
        wanted, given = drawn(draw, shape), drawn(draw, shape)
        target = torch.full((wanted.n,), -1)
        n = copy(target, wanted, elements(given), given)
        shared = torch.isin(elements(wanted), elements(given))
        assert target.equal(torch.where(shared, elements(wanted), -1))
        assert n == shared.sum() and do_overlap(wanted, given) == (n > 0)
        n_shared += n
    assert n_shared > 100 or not shape


def test_parts_of_parts_are_boxes():
    whole = Region.whole((8, 6))
    part = whole.part(axis=0, part=1, n_parts=2).part(axis=1, part=2, n_parts=3)
    assert (part.starts, part.sizes, part.n) == ((4, 4), (4, 2), 8)
    assert elements(part.span(1, 2)).tolist() == [29, 34]


@pytest.mark.parametrize(("starts", "sizes", "span"), [
    ((0, 1), (4, 6), (0, 24)), ((0,), (4,), (0, 4)), ((-1, 0), (2, 2), (0, 4)),
    ((0, 0), (2, 2), (3, 2)), ((0, 0), (2, 2), (-1, 2))])
def test_what_is_not_inside_of_the_tensor_is_refused(starts, sizes, span):
    with pytest.raises(ValueError, match="a piece is a span of a box inside of its tensor; got"):
        Region(shape=(4, 6), starts=starts, sizes=sizes, first=span[0], n=span[1])

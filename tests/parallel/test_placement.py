"""Slices of logical tensors: parts cover the whole once, and what cannot be cut is refused."""

import pytest
import torch

from llama_from_scratch.parallel.placement import Slice


@pytest.mark.parametrize("axis", (0, 1, 2))
@pytest.mark.parametrize("n_parts", (1, 2, 4))
def test_the_parts_joined_are_the_whole(axis, n_parts):
    whole = torch.arange(4 * 8 * 4).view(4, 8, 4)
    parts = [Slice(axis=axis, part=part, n_parts=n_parts).of(whole) for part in range(n_parts)]
    assert torch.equal(torch.cat(parts, dim=axis), whole)
    assert {Slice(axis=axis, n_parts=n_parts).whole_shape(tuple(part.shape))
            for part in parts} == {(4, 8, 4)}


def test_a_part_is_a_view():
    whole = torch.zeros(4)
    Slice(part=1, n_parts=2).of(whole).fill_(1)
    assert whole.tolist() == [0, 0, 1, 1]


def test_without_arguments_it_is_the_whole():
    whole = torch.zeros(3, 2)
    assert Slice().of(whole).shape == (3, 2) and Slice().whole_shape((3, 2)) == (3, 2)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"part": 2, "n_parts": 2}, "part=2, n_parts=2"), ({"part": -1, "n_parts": 2}, "part=-1"),
    ({"n_parts": 0}, "n_parts=0"), ({"n_copies": 0}, "n_copies=0"), ({"axis": -1}, "axis=-1")])
def test_a_part_that_does_not_exist_is_refused(wrong, message):
    with pytest.raises(ValueError) as caught:
        Slice(**wrong)
    assert message in str(caught.value)


def test_a_length_that_does_not_divide_is_refused_and_nothing_is_cut_off():
    with pytest.raises(ValueError) as caught:
        Slice(axis=1, n_parts=3).of(torch.zeros(2, 7))
    assert "axis 1 of (2, 7) has 7 elements for 3 parts" in str(caught.value)

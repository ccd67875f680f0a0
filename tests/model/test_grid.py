"""Grids: their values, their bits, and how numbers are packed into bytes."""

import pytest
import torch

from llama_from_scratch.model.grid import WeightGrid, normal_levels, pack_bits, unpack_bits, values


def test_levels_of_each_kind():
    assert WeightGrid(bits=3).levels().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert WeightGrid(bits=2, kind="symmetric").levels().tolist() == [-2, -1, 0, 1]
    assert WeightGrid(bits=2, kind="minimum").levels().tolist() == [0, 1, 2, 3]
    assert torch.equal(WeightGrid(bits=4, kind="normal").levels(), normal_levels())


def test_normal_levels_are_the_published_ones():
    published = [-1.0, -0.6961928, -0.5250730, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
                 0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    assert torch.allclose(normal_levels(), torch.tensor(published), atol=2e-6)


@pytest.mark.parametrize(("grid", "row", "bits"), [
    (WeightGrid(bits=4, group=32), 128, 4.5), (WeightGrid(bits=4, group=None), 128, 4 + 16 / 128),
    (WeightGrid(bits=4, group=32, kind="minimum"), 64, 4 + 24 / 32),
    (WeightGrid(bits=3, group=64), 352, 3 + 16 * 6 / 352)])
def test_bits_count_scales_and_zeros(grid, row, bits):
    assert grid.bits_per_weight(row) == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("row", [1, 8, 13, 352])
def test_packing_and_unpacking_return_the_numbers(bits, row):
    numbers = torch.randint(0, 2**bits, (5, row), generator=torch.Generator().manual_seed(bits),
                            dtype=torch.uint8)
    packed = pack_bits(numbers, bits=bits)
    assert packed.shape == (5, -(-row * bits // 8)) and packed.dtype == torch.uint8
    assert torch.equal(unpack_bits(packed, bits=bits, row=row), numbers)


def test_the_lowest_bits_come_first():
    numbers = torch.tensor([[1, 2, 15]], dtype=torch.uint8)
    assert pack_bits(numbers, bits=4).tolist() == [[1 + 2 * 16, 15]]
    assert pack_bits(numbers[:, :2], bits=3).tolist() == [[1 + 2 * 8]]


def test_values_use_the_scale_and_the_zero_of_their_own_group():
    numbers = torch.tensor([[0, 1, 2, 3, 3]], dtype=torch.uint8)
    scales = torch.tensor([[0.5, 2.0, 1.0]], dtype=torch.float16)
    zeros = torch.tensor([[1, 0, 3]], dtype=torch.uint8)
    grid = WeightGrid(bits=2, group=2, kind="minimum")
    assert values(numbers, scales, zeros, grid=grid).tolist() == [[-0.5, 0.0, 4.0, 6.0, 0.0]]


@pytest.mark.parametrize(("wrong", "words"), [
    (dict(bits=1), "2 to 8 bits; got 1"), (dict(bits=4.0), "2 to 8 bits"),
    (dict(bits=9), "2 to 8 bits"), (dict(bits=4, group=0), "at least 1 weight"),
    (dict(bits=4, kind="round"), "symmetric, signed, minimum, normal; got 'round'"),
    (dict(bits=3, kind="normal"), "4 bits; got 3")])
def test_bad_grids_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        WeightGrid(**wrong)


def test_a_number_of_too_many_bits_is_refused():
    with pytest.raises(ValueError, match="below 8; got 9"):
        pack_bits(torch.tensor([[9]], dtype=torch.uint8), bits=3)

"""How a tensor is described to the TMA, on the emulator and on a GPU, and what it cannot copy."""

import struct

import pytest
import torch

from llama_from_scratch.kernels.machinery.tensor_map import N_BYTES, TensorMap

BOX = (1, 8, 1, 64)


def zeros(*shape, dtype=torch.bfloat16):
    return torch.zeros(shape, dtype=dtype)


def fields(x, box=BOX):
    """Base, sizes, strides in bytes, box, axes and bytes of an element, as the emulator reads."""
    base, *rest = struct.unpack_from("=Q4Q3Q4I2I", TensorMap(tensor=x, box=box).readable())
    return base, rest[:4], rest[4:7], rest[7:11], rest[11:]


def test_the_emulator_reads_sizes_strides_and_box_innermost_first():
    x = zeros(2, 9, 3, 128)[:, 1:8]
    assert fields(x, (2, 4, 1, 64)) == (
        x.data_ptr(), [128, 3, 7, 2], [256, 768, 9 * 768], [64, 1, 4, 2], [4, 2])
    assert TensorMap(tensor=x, box=BOX).sizes == (128, 3, 7, 2)
    assert len(TensorMap(tensor=x, box=BOX).readable()) == N_BYTES


@pytest.mark.parametrize("x", [
    zeros(1, 9, 1, 64).as_strided((1, 9, 1, 64), (1, 64, 3, 1)),
    zeros(4, 9, 1, 64)[1:2].as_strided((1, 9, 1, 64), (7, 64, 13, 1))], ids=["first", "view"])
def test_the_stride_of_an_axis_with_one_element_may_be_any_number(x):
    _, sizes, strides, *_ = fields(x)
    assert sizes == [64, 1, 9, 1] and strides[1] == 128, "of the tokens, the one that is used"
    assert all(stride % 16 == 0 and stride >= 128 for stride in strides)


@pytest.mark.parametrize("x, box, message", [
    (zeros(8, 1, 64), BOX, "a tensor map needs 4 axes"),
    (zeros(1, 8, 1, 64), (8, 64), r"4 axes.* with a box of \(8, 64\)"),
    (zeros(1, 8, 1, 64, dtype=torch.float32), BOX, "torch.bfloat16, torch.float16; got "
                                                   "torch.float32"),
    (zeros(1, 0, 1, 64), BOX, "no empty one.* shape .1, 0, 1, 64"),
    (zeros(1, 8, 1, 64), (1, 257, 1, 64), "1 to 256 elements along each axis"),
    (zeros(1, 8, 1, 64), (1, 0, 1, 64), "1 to 256 elements"),
    (zeros(1, 8, 1, 64), (1, 8, 1, 32), "rows of 128 bytes; got .1, 8, 1, 32"),
    (zeros(1, 8, 1, 65)[..., 1:], BOX, "rows without gaps that begin at multiples of 16 bytes"),
    (zeros(1, 8, 1, 68)[..., :64], BOX, r"multiples of 16 .* strides \(544, 68, 68, 1\)"),
    (zeros(1, 8, 64, 2).mT, BOX, r"rows without gaps .* strides \(1024, 128, 1, 2\)"),
    (zeros(1, 8, 1, 128)[..., ::2], BOX, r"rows without gaps .* Pass tensor.contiguous\(\)")])
def test_what_the_tma_cannot_copy_is_refused_with_the_rule(x, box, message):
    with pytest.raises(ValueError, match=message):
        TensorMap(tensor=x, box=box)


def test_a_cache_s_view_is_described_without_a_copy():
    cache = zeros(2, 100, 4, 128)
    view = cache[:, :37]
    assert fields(view, (1, 16, 1, 64))[:3] == (
        cache.data_ptr(), [128, 4, 37, 2], [256, 1024, 100 * 1024])

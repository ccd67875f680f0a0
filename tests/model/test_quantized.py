"""Weights of 8 and 4 bits: how far they are from the original weights, and what is refused."""

import inspect

import pytest
import torch
from llama4_twin import assert_near, loud_llama4, random_ids, toy
from torch import nn

from llama_from_scratch.model.moe import MoE
from llama_from_scratch.model.quantized import (
    SHIFTS,
    Int4Linear,
    Int8Linear,
    dequantize_int4,
    dequantize_int8,
    pack_int4,
    quantize_int4,
    quantize_int8,
    unpack_int4,
)

unchecked = inspect.unwrap(quantize_int8)  # without the tests' shape checks, as users call it
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_weight_is_within_half_a_step_of_its_8_bit_number(dtype):
    weight = draw(5, 77, dtype=dtype)
    numbers, scale = quantize_int8(weight)
    assert numbers.dtype == torch.int8 and scale.dtype == dtype and scale.shape == (5,)
    off = (numbers.double() * scale.double()[:, None] - weight.double()).abs()
    # the largest number may be cut off by as much as the scale was rounded
    slack = 127 * scale.double()[:, None] * torch.finfo(dtype).eps
    assert (off <= 0.5 * scale.double()[:, None] + slack).all()
    assert (numbers.abs().amax(1) == 127).all()


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_weight_is_within_half_a_step_of_its_4_bit_number(dtype, is_symmetric):
    weight = draw(3, 256, dtype=dtype) + 0.7
    words, scale, minimum = quantize_int4(weight, group=32, is_symmetric=is_symmetric)
    assert words.shape == (3, 32) and scale.shape == (3, 8) and (minimum is None) == is_symmetric
    numbers = unpack_int4(words).double().unflatten(1, (8, 32))
    wide = scale.double()[..., None]
    start = -8 * wide if is_symmetric else minimum.double()[..., None]
    off = (numbers * wide + start - weight.double().unflatten(1, (8, 32))).abs()
    slack = 15 * wide * torch.finfo(dtype).eps + start.abs() * torch.finfo(dtype).eps
    assert (off <= 0.5 * wide + slack).all()


def test_a_minimum_halves_the_error_of_weights_that_are_all_positive():
    weight = draw(4, 128).abs() + 1
    errors = [(dequantize_int4(*quantize_int4(weight, group=128, is_symmetric=is_symmetric))
               - weight).square().mean().sqrt() for is_symmetric in (True, False)]
    assert errors[1] < 0.5 * errors[0]


def test_smaller_groups_have_smaller_errors():
    weight = draw(16, 256, seed=3)
    weight[:, 5] *= 20   # a channel that is larger than all others
    error = {group: (dequantize_int4(*quantize_int4(weight, group=group)) - weight).norm()
             for group in (32, 128)}
    assert error[32] < 0.7 * error[128]


def test_words_are_packed_as_documented_and_unpacked_again():
    numbers = torch.arange(16).repeat(2, 2)
    words = pack_int4(numbers)
    assert words.dtype == torch.int32 and torch.equal(unpack_int4(words), numbers.int())
    word = words[0, 1].item() % 2**32
    assert [word >> SHIFTS[j] & 15 for j in range(8)] == list(range(8, 16))
    # neighbors are half a word apart, so that one mask takes a pair
    assert all(SHIFTS[j + 1] - SHIFTS[j] == 16 for j in (0, 2, 4, 6))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_zeros_and_of_tiny_numbers_stay_finite(dtype):
    weight = torch.zeros(2, 32, dtype=dtype)
    weight[1] = torch.finfo(dtype).tiny
    assert torch.equal(dequantize_int8(*quantize_int8(weight))[0], weight[0])
    for is_symmetric in (True, False):
        found = dequantize_int4(*quantize_int4(weight, group=32, is_symmetric=is_symmetric))
        assert torch.equal(found[0], weight[0]) and found.isfinite().all()


def test_the_range_of_a_group_may_exceed_what_its_dtype_holds():
    weight = torch.tensor([[-6e4, 6e4] * 16], dtype=torch.float16)
    words, scale, minimum = quantize_int4(weight, group=32, is_symmetric=False)
    assert scale.isfinite().all()
    found = unpack_int4(words).double() * scale.double() + minimum.double()
    torch.testing.assert_close(found, weight.double(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("make", [
    Int8Linear.from_linear, lambda linear: Int4Linear.from_linear(linear, group=32),
    lambda linear: Int4Linear.from_linear(linear, group=64, is_symmetric=False)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_layer_computes_with_its_dequantized_weight_and_returns_from_a_checkpoint(make, has_bias):
    torch.manual_seed(0)
    linear = nn.Linear(128, 5, bias=has_bias)
    layer, x = make(linear), draw(2, 3, 128)
    expected = x @ layer.dequantized().T + (linear.bias.detach() if has_bias else 0)
    torch.testing.assert_close(layer(x), expected)
    assert (layer(x) - linear(x)).norm() < 0.2 * linear(x).norm()
    assert not list(layer.parameters()) and layer.out_features == 5 and layer.in_features == 128

    again = make(nn.Linear(128, 5, bias=has_bias))
    assert again.load_state_dict(layer.state_dict()) and torch.equal(again(x), layer(x))
    narrow = layer.to(torch.bfloat16)
    assert narrow(x.bfloat16()).dtype == torch.bfloat16 and narrow.scale.dtype == torch.bfloat16


def test_empty_layers_have_the_names_and_shapes_of_made_ones():
    linear = nn.Linear(128, 5, dtype=torch.bfloat16)
    pairs = [(Int8Linear(128, 5, has_bias=True, dtype=torch.bfloat16),
              Int8Linear.from_linear(linear)),
             (Int4Linear(128, 5, group=32, has_bias=True, is_symmetric=False, dtype=torch.bfloat16),
              Int4Linear.from_linear(linear, group=32, is_symmetric=False))]
    for empty, made in pairs:
        shapes = [{name: (x.shape, x.dtype) for name, x in layer.state_dict().items()}
                  for layer in (empty, made)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("call, message", [
    (lambda: unchecked(torch.ones(3)), r"must be a matrix of floating-point numbers; got "
                                           r"\(3,\) of torch.float32"),
    (lambda: unchecked(torch.ones(2, 2, dtype=torch.int64)), "of torch.int64"),
    (lambda: quantize_int8(torch.tensor([[1.0, torch.nan]])), "must be finite; got 1 of 2 that"),
    (lambda: quantize_int4(torch.ones(2, 96), group=64), "rows must be whole groups; got a group "
                                                         "of 64 and rows of 96"),
    (lambda: quantize_int4(torch.ones(2, 96), group=24), "must be a multiple of 32.*got a group of "
                                                         "24"),
    (lambda: quantize_int4(torch.ones(2, 96), group=0), "got a group of 0"),
    (lambda: Int4Linear(100, 2, group=32), "rows of 100"),
])
def test_weights_that_cannot_be_quantized_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@torch.inference_mode()
def test_the_linear_layers_of_a_llama_4_may_be_of_8_bits():
    """The matrices of its routed experts are no linear layers, and stay as they are."""
    model, ids = loud_llama4(toy(step=2)), random_ids(2, 9)
    expected = model(ids)
    for block in model.layers:
        ffn = block.feed_forward
        dense = ffn.shared if isinstance(ffn, MoE) else ffn
        for name in ("w_gate", "w_up", "w_down"):
            setattr(dense, name, Int8Linear.from_linear(getattr(dense, name)))
    assert_near(model(ids), expected, "the logits", within=0.1)
    assert not torch.equal(model(ids), expected)

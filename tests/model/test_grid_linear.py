"""Layers with packed weights compute what their unpacked weights do."""

import copy

import pytest
import torch
from torch import nn

from llama_from_scratch.compress.rounding import round_to
from llama_from_scratch.model.grid import WeightGrid
from llama_from_scratch.model.grid_linear import (
    GridEmbedding,
    GridLinear,
    GridWeight,
    rounded_tokens,
)


def packed(weight, grid):
    found = round_to(weight, grid)
    return found, GridWeight(found.numbers, found.scales, found.zeros, grid=grid)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [
    WeightGrid(bits=4), WeightGrid(bits=3, group=20),
    WeightGrid(bits=8, group=None, kind="symmetric"),
    WeightGrid(bits=2, kind="minimum"), WeightGrid(bits=4, group=64, kind="normal")], ids=str)
def test_the_product_is_that_of_the_unpacked_weights(grid):
    found, weight = packed(draw(7, 90), grid)
    layer = GridLinear(weight, bias=draw(7, seed=1))
    x = draw(2, 3, 90, seed=2)
    assert torch.equal(layer.dequantized(), found.values())
    assert torch.allclose(layer(x), x @ found.values().T + layer.bias, atol=1e-5)
    assert layer(x.bfloat16().float()).dtype == torch.float32


def test_it_stays_packed_and_is_saved_and_loaded():
    _, weight = packed(draw(8, 64), WeightGrid(bits=4))
    assert weight.n_bytes == 8 * 64 // 2 + 8 * 2 * 2
    layer = GridLinear(weight)
    assert not list(layer.parameters())
    assert {name: tuple(each.shape) for name, each in layer.state_dict().items()} == {
        "on_grid.packed": (8, 32), "on_grid.scales": (8, 2)}
    other = GridLinear(packed(draw(8, 64, seed=9), WeightGrid(bits=4))[1])
    other.load_state_dict(layer.state_dict())
    x = draw(3, 64)
    assert torch.equal(other(x), layer(x)) and torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_an_embedding_returns_rows_and_refuses_other_ids():
    found, weight = packed(draw(10, 32), WeightGrid(bits=8, group=None, kind="symmetric"))
    table = GridEmbedding(weight, dtype=torch.bfloat16)
    ids = torch.tensor([[3, 9], [0, 3]])
    assert torch.equal(table(ids), found.values()[ids].bfloat16())
    for wrong in (10, -1):
        with pytest.raises(IndexError):
            table(torch.tensor([[wrong]]))


def test_each_token_has_a_scale_of_its_own():
    x = torch.tensor([[[1.0, -0.5, 0.004], [100.0, -50.0, 0.4]], [[0.0, 0.0, 0.0]] * 2])
    found = rounded_tokens(x, bits=8)
    assert torch.allclose(found[0, 1], found[0, 0] * 100, rtol=1e-6)
    assert torch.equal(found[1], torch.zeros(2, 3))
    assert (found[0] - x[0]).abs().max() <= 100 / 127 / 2 * 1.001
    numbers = found[0, 0] / (1.0 / 127)
    assert torch.allclose(numbers, numbers.round(), atol=1e-4) and numbers[0].round() == 127


def test_rounded_inputs_change_the_product_as_stated():
    found, weight = packed(draw(7, 64), WeightGrid(bits=4))
    layer, x = GridLinear(weight, input_bits=4), draw(5, 64, seed=3)
    assert torch.allclose(layer(x), rounded_tokens(x, bits=4) @ found.values().T, atol=1e-5)
    assert not torch.allclose(layer(x), GridLinear(weight)(x), atol=1e-2)
    assert "inputs of 4 bits" in repr(layer) and isinstance(layer, nn.Module)

"""The verb: which layers are rounded, what the new model computes, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from llama_from_scratch import bundled, compress, load
from llama_from_scratch.compress.rounding import round_to
from llama_from_scratch.generate import generate
from llama_from_scratch.model.grid import WeightGrid
from llama_from_scratch.model.grid_linear import GridEmbedding
from llama_from_scratch.model.quantized import Int8Linear
from llama_from_scratch.tune import lora


@pytest.fixture(scope="module")
def mini():
    return load(bundled.path("mini"), dtype=torch.float32)


def ids():
    return torch.randint(0, 1000, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", compress.SCHEMES)
def test_each_scheme_computes_what_its_rounded_weights_do(mini, name):
    model, _ = mini
    scheme = compress.SCHEMES[name]
    found = compress.quantize(model, name)
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        for layer_name, layer in by_hand.named_modules():
            grid = scheme.ends if layer_name == "output" else scheme.blocks
            if type(layer) is nn.Linear and grid is not None:
                layer.weight.copy_(round_to(layer.weight, grid, is_clipped=scheme.is_clipped)
                                   .values())
    assert by_hand.output.weight is by_hand.tok_embeddings.weight
    if scheme.input_bits is None:
        assert torch.allclose(found(ids()), by_hand(ids()), atol=1e-4)
    else:
        assert torch.allclose(found.tok_embeddings(ids()), by_hand.tok_embeddings(ids()))
        assert not torch.allclose(found(ids()), by_hand(ids()), atol=1e-3)


def test_the_model_that_is_given_does_not_change_and_norms_are_shared(mini):
    model, _ = mini
    before = {name: p.clone() for name, p in model.named_parameters()}
    logits = model(ids())
    found = compress.quantize(model, "int2")
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert torch.equal(model(ids()), logits) and not torch.allclose(found(ids()), logits, atol=1)
    assert found.norm.weight.data_ptr() == model.norm.weight.data_ptr()
    assert type(found.output) is nn.Linear and found.output.weight is found.tok_embeddings.weight


def test_tied_ends_stay_one_matrix_and_untied_ones_become_two(mini):
    model, _ = mini
    found = compress.quantize(model, "llama-3.2")
    assert isinstance(found.tok_embeddings, GridEmbedding)
    assert found.tok_embeddings.on_grid is found.output.on_grid
    untied = copy.deepcopy(model)
    untied.output.weight = nn.Parameter(untied.output.weight.detach() * 2)
    apart = compress.quantize(untied, "llama-3.2")
    assert apart.tok_embeddings.on_grid is not apart.output.on_grid
    assert compress.n_bytes(apart) > compress.n_bytes(found)


def test_it_writes_texts_and_takes_an_eighth_of_the_bytes(mini):
    model, tokenizer = mini
    found = compress.quantize(model, "int8")
    prompt = [tokenizer.encode("One day")]
    [written], [usual] = (generate(each, prompt, max_tokens=12) for each in (found, model))
    assert written[0] == usual[0] and len(written) == 12
    small = compress.quantize(model, compress.Scheme(blocks=WeightGrid(bits=3),
                                                     ends=WeightGrid(bits=4)))
    assert compress.n_bytes(small) < compress.n_bytes(model) / 8
    assert compress.bits_per_weight(compress.quantize(model, "int4")) == pytest.approx(4.5)
    assert compress.bits_per_weight(compress.quantize(model, "int4-minimum")) == pytest.approx(4.75)


def test_fewer_bits_are_farther_from_the_logits(mini):
    model, _ = mini
    logits = model(ids())
    off = [(compress.quantize(model, name)(ids()) - logits).square().mean().item()
           for name in ("int8", "int4", "int3", "int2")]
    assert off == sorted(off)


def test_other_dtypes_stay(mini):
    model, _ = mini
    found = compress.quantize(copy.deepcopy(model).bfloat16(), "llama-3.2")
    assert found.dtype == torch.bfloat16 and found.tok_embeddings(ids()).dtype == torch.bfloat16
    assert found(ids()).dtype == torch.float32


def test_bad_input_is_refused(mini):
    model, _ = mini
    with pytest.raises(ValueError, match="no scheme is called 'int5'; did you mean"):
        compress.quantize(model, "int5")
    with pytest.raises(ValueError, match="2 to 8 bits, or not: None; got 16"):
        compress.Scheme(blocks=WeightGrid(bits=4), input_bits=16)
    with pytest.raises(ValueError, match="wq is a GridLinear.*only once"):
        compress.quantize(compress.quantize(model), "int8")
    adapted = copy.deepcopy(model)
    lora.add(adapted, rank=1)
    with pytest.raises(ValueError, match="is a AdaptedLinear"):
        compress.quantize(adapted)
    fast = copy.deepcopy(model)
    fast.layers[0].attention.wq = Int8Linear.from_linear(fast.layers[0].attention.wq)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq is a Int8Linear"):
        compress.quantize(fast)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.layers[1].feed_forward.w_up.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"layers\.1\.feed_forward\.w_up: .*1 of 45056"):
        compress.quantize(broken)
    with pytest.raises(ValueError, match="weights on a grid; got one without"):
        compress.bits_per_weight(model)

import copy

import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.kernels.fuse import fuse
from llama_from_scratch.model.quantized import Int8Linear
from llama_from_scratch.tune import lora
from llama_from_scratch.tune.adapters.bases import digest, linear_layers


def fresh(generation="llama-3", seed=0):
    torch.manual_seed(seed)
    return family.tiny(generation).new_model()


def quantized(model):
    for block in model.layers:
        block.attention.wq = Int8Linear.from_linear(block.attention.wq)
    return model


def test_every_linear_layer_of_a_dense_model_can_have_an_adapter():
    model = fresh()
    names = {f"layers.{i}.{part}" for i in range(len(model.layers)) for part in (
        "attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w_gate",
        "feed_forward.w_up", "feed_forward.w_down")}
    assert linear_layers(model).keys() == names | {"output"}


def test_routers_routed_experts_and_the_embedding_of_patches_have_none():
    for generation in ("llama-4-vision", "llama-3.2-vision"):
        found = linear_layers(fresh(generation))
        assert not any("router" in name or "patch" in name or ".experts." in name
                       for name in found)
        assert "vision.projector" in found
        eyes = "vision.encoder."
        assert any(name.startswith(eyes) and name.endswith(".wq") for name in found)
    assert any(".shared.w_up" in name for name in linear_layers(fresh("llama-4")))


def test_quantized_and_fused_layers_are_linear_too():
    model = quantized(fresh())
    plain = linear_layers(model).keys()
    assert "layers.0.attention.wq" in plain
    fuse(model, emulate=True)
    assert linear_layers(model).keys() == plain


def test_digest_is_of_the_base_whatever_its_adapters_are():
    model = fresh("llama-3.2")
    before = digest(model)
    lora.add(model, rank=2, targets=[*lora.MATRICES, "output"], is_tied_head=True)
    assert digest(model) == before
    for _, p in lora.weights(model):
        torch.nn.init.normal_(p)
    assert digest(model) == before
    assert digest(fresh("llama-3.2", seed=1)) != before


@pytest.mark.parametrize("name", ["norm.weight", "layers.1.feed_forward.w_down.weight",
                                  "tok_embeddings.weight"])
def test_one_changed_bit_of_any_weight_changes_the_digest(name):
    model = fresh()
    other = copy.deepcopy(model)
    weight = other.get_parameter(name).data.flatten()
    weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))
    assert digest(other) != digest(model)


def test_exchanged_weights_change_the_digest():
    model = fresh()
    before = digest(model)
    first, second = model.layers[0].attention, model.layers[1].attention
    first.wq, second.wq = second.wq, first.wq
    assert digest(model) != before


def test_equal_numbers_of_another_shape_or_name_have_another_digest():
    wide, narrow = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    narrow.weight.data = wide.weight.data.view(2, 3)
    named = nn.ModuleDict({"layer": wide})
    assert len({digest(wide), digest(narrow), digest(named)}) == 3


def test_a_checkpoint_in_16_bits_has_one_digest_in_either_dtype():
    model = fresh().to(torch.bfloat16)
    assert digest(copy.deepcopy(model).float()) == digest(model)


def test_the_numbers_of_quantized_layers_count():
    model = quantized(fresh())
    before = digest(model)
    assert before != digest(fresh())
    model.layers[0].attention.wq.numbers[0, 0] += 1
    assert digest(model) != before


def test_with_its_adapters_a_digest_changes_when_one_of_them_does():
    model = fresh()
    lora.add(model, rank=2)
    before, whole = digest(model), digest(model, has_adapters=True)
    assert whole != before
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("w_b")).add_(1)
    assert digest(model) == before and digest(model, has_adapters=True) != whole

"""The sizes of the released encoders, and what a config costs by the arithmetic by hand."""

import dataclasses

import pytest
import torch
from seeing_twin import IMAGE, crosses, loud, pictures
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from vision_twin import LLAMA_3_2_11B, SMALL

from llama_from_scratch import family
from llama_from_scratch.model.costs import PLACES as TEXT_PLACES
from llama_from_scratch.vision.costs import (
    PLACES,
    param_counts,
    seeing_param_counts,
    unwritten_vision,
)
from llama_from_scratch.vision.encoder import VisionModel


@pytest.mark.parametrize(("changes", "encoder", "projector"), [
    (dict(tile_px=560), 863_567_379, 31_461_376),
    (dict(tile_px=448), 836_288_019, 31_461_376),
    (dict(output_dim=8192), 863_567_379, 62_922_752)], ids=["11B", "base 11B", "90B"])
def test_the_released_encoders_have_exactly_their_published_sizes(changes, encoder, projector):
    config = dataclasses.replace(LLAMA_3_2_11B, **changes)
    counts = config.param_counts
    assert counts.pop("projector") == projector
    assert sum(counts.values()) == encoder
    assert config.n_params == encoder + projector


def test_counts_equal_the_arithmetic_by_hand():
    W, F, n, J, ids = SMALL.dim, SMALL.ffn_dim, 1 + 9, 4, 9
    block = 4 * W * W + (2 * W * F + F + W) + 4 * W
    assert param_counts(SMALL) == {
        "embeddings": 3 * 16 * W + W + 2 * (ids * J * W + 1) + n * W + ids * J * n * W + 1,
        "local layers": 5 * block, "global layers": 2 * (block + 2), "norms": 4 * W,
        "projector": (4 * W + 1) * 20}
    assert tuple(param_counts(SMALL)) == PLACES


def test_the_model_without_memory_is_the_one_that_is_built():
    state = torch.get_rng_state()
    found = unwritten_vision(SMALL)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    assert all(parameter.is_meta for parameter in found.parameters())
    built = VisionModel(SMALL)
    assert ({name: p.shape for name, p in found.named_parameters()}
            == {name: p.shape for name, p in built.named_parameters()})
    assert torch.equal(found.encoder.n_tiles, built.encoder.n_tiles), "counts of tiles are there"


def test_changing_the_counts_that_were_returned_changes_no_later_ones():
    counts = SMALL.param_counts
    counts["embeddings"] = 0
    assert SMALL.param_counts["embeddings"] > 0
    with pytest.raises(TypeError, match="does not support item assignment"):
        param_counts(SMALL)["embeddings"] = 0


# --- a text model that sees -----------------------------------------------------------------------

KV_BYTES = {"llama-3.2-11b-vision": (131_072, 134_348_800),
            "llama-3.2-11b-vision-instruct": (131_072, 209_846_272),
            "llama-3.2-90b-vision": (327_680, 524_615_680),
            "llama-3.2-90b-vision-instruct": (327_680, 524_615_680)}


@pytest.mark.parametrize("name", KV_BYTES)
def test_cache_bytes_in_bf16_per_token_of_text_and_per_image(name):
    config = family.config(name)
    assert (config.kv_bytes_per_token(2), config.kv_bytes_per_image(2)) == KV_BYTES[name]


def test_the_cache_of_a_model_holds_the_bytes_that_are_counted():
    model = loud()
    config, images = model.config, pictures([[6, 2]])
    cache = model.new_cache(batch_size=1, max_seq_len=4)
    empty = cache.n_bytes
    with torch.inference_mode():
        model(torch.tensor([[IMAGE, IMAGE, 1]]), images=images, cache=cache)
    assert empty == 4 * config.kv_bytes_per_token(4)
    assert sum(layer.images.n_bytes for layer in cache.layers if hasattr(layer, "images")) == (
        2 * config.kv_bytes_per_image(4))


def test_the_places_of_a_model_that_sees_hold_all_its_parameters():
    model = loud()
    counts = seeing_param_counts(model.config)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert tuple(counts) == (*TEXT_PLACES, "image embeddings", "cross-attention", "projector",
                             "encoder")
    assert counts["cross-attention"] == sum(
        p.numel() for block in crosses(model) for p in block.parameters())


def counted(call, *args, **more):
    """The operations of matrix products that PyTorch counts while a function runs.

    It counts attention only if that is computed in steps.
    """
    with (torch.no_grad(), sdpa_kernel(SDPBackend.MATH),
          FlopCounterMode(display=False) as counter):
        call(*args, **more)
    return counter.get_total_flops()


def test_the_operations_for_an_image_are_those_that_pytorch_counts():
    model, images = loud(), pictures([[6]])
    costs = model.config.image_flops
    pixels, ids = images.pixels.flatten(0, 1), images.aspect_ids.flatten()
    states = model.vision.encoder(pixels, ids)
    encoded = model.vision.projector(states).flatten(1, 2)
    assert costs["encoder"] == counted(model.vision.encoder, pixels, ids)
    assert costs["projector"] == counted(model.vision.projector, states)
    assert costs["keys and values"] == sum(
        counted(block.attention.keys_and_values, encoded) for block in crosses(model))


def test_a_token_that_sees_no_image_costs_what_it_costs_the_text_model():
    config = loud().config
    assert config.flops_per_token(9) == config.text.flops_per_token(9)


def test_a_token_that_sees_an_image_does_not_pay_for_the_images_keys_and_values():
    model = loud()
    config, images = model.config, pictures([[6]])
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    with torch.inference_mode():
        model(torch.tensor([[IMAGE, 1, 2]]), images=images, cache=cache)
        measured = counted(model, torch.tensor([[3]]), cache=cache)
    assert measured == config.flops_per_token(4, config.image_tokens)
    assert measured < config.flops_per_token(4) + config.image_flops["keys and values"]

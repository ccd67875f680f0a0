import dataclasses
import functools

import pytest
import torch
from fusion_twin import IDS, LLAMA_4, TILE, grid_images, loud_fusion
from llama4_twin import toy
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llama_from_scratch.config import FusionLlamaConfig
from llama_from_scratch.vision import fusion_costs
from llama_from_scratch.vision.image_layout import layout

SMALL = dataclasses.replace(TILE, max_tiles=2)


@functools.cache
def small():
    return loud_fusion(toy(max_seq_len=64), SMALL)


def test_the_released_encoder_has_exactly_its_published_size():
    counts = LLAMA_4.param_counts
    assert LLAMA_4.n_params - counts["projector"] == 850_960_896
    assert counts["projector"] == 4096 * 5120
    assert LLAMA_4.n_tokens == 144 and LLAMA_4.head_dim == 88


def test_the_places_of_a_model_that_sees_hold_all_its_parameters():
    model = small()
    counts = model.config.param_counts
    assert sum(counts.values()) == sum(w.numel() for w in model.parameters())
    assert counts["encoder"] + counts["projector"] == sum(
        w.numel() for w in model.vision.parameters())


def test_an_image_of_the_released_size_takes_2467_places_in_the_text():
    config = FusionLlamaConfig.seeing(
        toy(), vision=dataclasses.replace(LLAMA_4, output_dim=32), image_ids=IDS)
    assert config.image_tokens == 17 * 144 + 16 + 3
    assert config.image_tokens == max(len(layout((rows, 16 // rows), ids=IDS, n_tokens=144))
                                      for rows in (1, 2, 4, 8, 16))
    one = dataclasses.replace(config, vision=dataclasses.replace(config.vision, max_tiles=1))
    assert one.image_tokens == 144 + 3


def test_the_operations_of_the_encoder_are_those_that_pytorch_counts():
    model = small()
    images = grid_images((((1, 2),),))
    with (torch.no_grad(), sdpa_kernel(SDPBackend.MATH),  # attention is counted only in steps
          FlopCounterMode(display=False) as counter):
        model.encode(images)
    expected = model.config.image_flops
    assert counter.get_total_flops() == expected["encoder"] + expected["adapter and projector"]


@pytest.mark.parametrize("n_ids", [1, 4, 5, 11])
def test_reading_a_text_costs_what_its_tokens_cost_one_by_one(n_ids):
    config = small().config
    head = 2 * config.dim * config.vocab_size
    expected = sum(config.flops_per_token(i + 1) - head for i in range(n_ids))
    assert fusion_costs.reading_flops(config, n_ids=n_ids) == expected


def test_the_text_model_reads_all_places_of_an_image():
    config = small().config
    assert config.image_flops["text"] == fusion_costs.reading_flops(
        config, n_ids=config.image_tokens)


def test_the_model_without_memory_is_the_one_that_is_built():
    unwritten = fusion_costs.unwritten_tiles(TILE)
    assert all(w.is_meta for w in unwritten.parameters())
    assert {n: w.shape for n, w in unwritten.named_parameters()} == {
        n: w.shape for n, w in loud_fusion().vision.named_parameters()}


def test_changing_the_counts_that_were_returned_changes_no_later_ones():
    small().config.param_counts["encoder"] = 0
    TILE.param_counts["layers"] = 0
    assert small().config.param_counts["encoder"] > 0 < TILE.param_counts["layers"]

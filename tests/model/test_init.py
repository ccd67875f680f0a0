import dataclasses
import math

import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.transformer import Llama


@pytest.mark.parametrize(("width", "n_additions"), [(64, 1), (625, 1), (64, 32)])
def test_numbers_are_as_large_as_the_rule_says(width, n_additions):
    torch.manual_seed(0)
    layer = nn.Linear(width, 2000, bias=False)
    init_linear(layer, n_additions=n_additions)
    expected = 0.5 / math.sqrt(width * n_additions)
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert layer.weight.requires_grad


def test_in_a_model_only_what_writes_to_the_stream_is_smaller():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3"))
    usual, smaller = 0.5 / math.sqrt(64), 0.5 / math.sqrt(64 * 8)
    for block in model.layers:
        attention, ffn = block.attention, block.feed_forward
        for w in (attention.wq, attention.wk, attention.wv, ffn.w_gate, ffn.w_up):
            assert w.weight.std().item() == pytest.approx(usual, rel=0.1)
        assert attention.wo.weight.std().item() == pytest.approx(smaller, rel=0.1)
        width = ffn.w_down.in_features
        assert ffn.w_down.weight.std().item() == pytest.approx(smaller * math.sqrt(64 / width),
                                                               rel=0.1)
        assert (block.attention_norm.weight == 1).all() and (block.ffn_norm.weight == 1).all()
    assert (model.norm.weight == 1).all()


def test_biases_begin_at_zero_and_draw_no_number():
    plain = Llama(family.tiny("llama-3"))
    config = dataclasses.replace(plain.config, has_qkv_bias=True, has_wo_bias=True,
                                 has_ffn_bias=True)
    weights = dict(Llama(config).named_parameters())
    biases = {name: weights.pop(name) for name in list(weights) if name.endswith(".bias")}
    assert len(biases) == 4 * 7 and not any(bias.any() for bias in biases.values())
    model = Llama(config)
    for bias in biases:
        with torch.no_grad():
            model.get_parameter(bias).fill_(1)
    for each in (plain, model):
        torch.manual_seed(0)
        each.init_weights()
    for name, weight in plain.named_parameters():
        assert torch.equal(model.get_parameter(name), weight), name
    assert not any(model.get_parameter(bias).any() for bias in biases)


def test_a_tied_head_is_drawn_once_as_the_embedding():
    tied = Llama(family.tiny("llama-3.2"))
    torch.manual_seed(0)
    tied.init_weights()
    torch.manual_seed(0)
    first_draw = torch.empty(512, 64).normal_(std=0.5 / math.sqrt(64))
    assert torch.equal(tied.output.weight, first_draw), "a second draw would replace the first"
    assert tied.output.weight is tied.tok_embeddings.weight

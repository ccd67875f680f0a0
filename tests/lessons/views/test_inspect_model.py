"""What the hooks catch equals what slow loops compute, and the model is left as it was."""

import dataclasses
import math

import pytest
import torch
from llama4_twin import loud_llama4, random_ids, toy

from llama_from_scratch.config import LayerSpec
from llama_from_scratch.lessons.views.inspect_model import lens, trace
from llama_from_scratch.model.rope import apply_rope
from llama_from_scratch.model.transformer import Llama

IDS = torch.tensor([5, 17, 200, 17, 3, 90, 64])


def inputs_of_attention(model, layer):
    """The normed stream that enters the attention of a layer, and the rotations."""
    x_BTD = model.embed(IDS[None])
    inputs = model.prepare(x_BTD)
    x_BTD = model.run(x_BTD, inputs, layers=slice(layer))
    return model.layers[layer].attention_norm(x_BTD), inputs.rotation


@torch.no_grad()
def weights_by_hand(model, layer, head, *, may_see):
    """softmax(q·k / sqrt(K)) of one head, one score at a time."""
    x_BTD, rotation = inputs_of_attention(model, layer)
    attention, config = model.layers[layer].attention, model.config
    q = attention.wq(x_BTD).view(1, len(IDS), config.n_heads, -1)
    k = attention.wk(x_BTD).view(1, len(IDS), config.n_kv_heads, -1)
    if config.layers[layer].has_rope:
        q, k = apply_rope(q, rotation), apply_rope(k, rotation)
    group = head // (config.n_heads // config.n_kv_heads)
    rows = torch.zeros(len(IDS), len(IDS))
    for t in range(len(IDS)):
        exps = {s: math.exp(float(q[0, t, head] @ k[0, s, group]) / math.sqrt(config.head_dim))
                for s in range(len(IDS)) if may_see(t, s)}
        for s, value in exps.items():
            rows[t, s] = value / sum(exps.values())
    return rows


def causal(t, s):
    return s <= t


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 1), (2, 2), (2, 3)])
def test_weights_equal_a_softmax_by_hand(model, layer, head):
    torch.testing.assert_close(trace(model, IDS).weights[layer, head],
                               weights_by_hand(model, layer, head, may_see=causal))


def test_chunks_and_layers_without_rope_are_obeyed(model):
    layers = (LayerSpec(chunk_size=4), LayerSpec(has_rope=False), LayerSpec())
    mixed = Llama(dataclasses.replace(model.config, layers=layers))
    mixed.load_state_dict(model.state_dict())
    weights = trace(mixed, IDS).weights
    torch.testing.assert_close(
        weights[0, 2],
        weights_by_hand(mixed, 0, 2, may_see=lambda t, s: s <= t and s // 4 == t // 4))
    torch.testing.assert_close(weights[1, 1], weights_by_hand(mixed, 1, 1, may_see=causal))


@torch.no_grad()
def test_weighted_values_are_what_attention_added(model):
    x_BTD, _ = inputs_of_attention(model, 2)
    attention = model.layers[2].attention
    v_TGK = attention.wv(x_BTD).view(len(IDS), 2, -1)
    weights_HTS = trace(model, IDS).weights[2]
    heads = [weights_HTS[h] @ v_TGK[:, h // 2] for h in range(4)]
    torch.testing.assert_close(trace(model, IDS).attention[2],
                               attention.wo(torch.cat(heads, dim=-1)), atol=1e-5, rtol=1e-4)


def test_stream_is_the_embedding_plus_every_addition(model):
    passed = trace(model, IDS)
    assert torch.equal(passed.stream[0], model.tok_embeddings(IDS))
    torch.testing.assert_close(passed.stream[1:], passed.stream[0]
                               + (passed.attention + passed.feed_forward).cumsum(0))


def test_lens_of_the_last_layer_is_the_models_own_answer(model):
    logits_LTV = lens(model, trace(model, IDS).stream)
    assert torch.equal(logits_LTV[-1], model(IDS[None])[0])
    assert not torch.allclose(logits_LTV[-2], logits_LTV[-1], atol=0.1)


def test_model_is_left_as_it_was_also_after_a_refusal(model):
    with pytest.raises(ValueError, match="made for at most 64 tokens"):
        trace(model, torch.zeros(65, dtype=torch.long))
    trace(model, IDS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bf16_model_is_traced_in_fp32(model):
    passed = trace(model.to(torch.bfloat16), IDS)
    assert passed.weights.dtype == passed.stream.dtype == torch.float32
    torch.testing.assert_close(passed.weights.sum(-1), torch.ones(3, 4, 7))


@torch.no_grad()
def test_the_weights_of_a_llama_4_are_those_that_its_attention_used():
    """Applied to the values, they give what each layer of attention added to the stream."""
    model, ids = loud_llama4(toy()), random_ids(13)
    seen = trace(model, ids)
    x = model.embed(ids[None])
    inputs = model.prepare(x)
    for layer, block in enumerate(model.layers):
        normed = block.attention_norm(x)
        values = block.attention.wv(normed).view(13, 2, -1).repeat_interleave(2, 1)
        mixed = torch.einsum("hts,shk->thk", seen.weights[layer], values)
        torch.testing.assert_close(block.attention.wo(mixed.flatten(1)), seen.attention[layer],
                                   rtol=1e-4, atol=1e-5)
        x = model.run(x, inputs, layers=slice(layer, layer + 1))

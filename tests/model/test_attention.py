import dataclasses
import math

import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.model.attention import Attention, SoftmaxAttention, attention
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.kv_cache import Uncached
from llama_from_scratch.model.mask import GivenMask, Visible, plain_tokens
from llama_from_scratch.model.rope import Rope, Rotate, Unrotated

CONFIG = family.tiny("llama-3")


def causal(T):
    return Visible(tokens=plain_tokens(T), n_queries=T)


def last_of(S):
    return Visible(tokens=plain_tokens(S), n_queries=1)


def slow_attention(q, k, v, mask):
    """The definition, one query head at a time, in float64. `mask` (T, S) or all True."""
    B, T, H, K = q.shape
    out = torch.empty_like(q, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            g = h // (H // k.shape[2])
            for t in range(T):
                scores_S = k[b, :, g].double() @ q[b, t, h].double() / math.sqrt(K)
                weights_S = scores_S.masked_fill(~mask[t], -math.inf).softmax(0)
                out[b, t, h] = weights_S @ v[b, :, g].double()
    return out


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6], ids=["MQA", "GQA", "MHA"])
@pytest.mark.parametrize("kind", ["causal", "full", "explicit"])
def test_attention_equals_its_definition(n_kv_heads, kind):
    torch.manual_seed(0)
    T = 5
    q = torch.randn(2, T, 6, 4)
    k, v = torch.randn(2, 2, T, n_kv_heads, 4)
    mask = {"causal": torch.ones(T, T).tril() > 0, "full": torch.ones(T, T) > 0,
            "explicit": torch.rand(T, T) + torch.eye(T) > 0.5}[kind]
    visible = causal(T) if kind == "causal" else GivenMask(mask=mask.expand(2, 1, T, T))
    got, expected = attention(q, k, v=v, visible=visible), slow_attention(q, k, v, mask)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_single_query_reads_the_group_it_belongs_to():
    torch.manual_seed(0)
    q = torch.randn(2, 1, 6, 4)
    k, v = torch.randn(2, 2, 7, 2, 4)
    out = attention(q, k, v=v, visible=last_of(7))
    expected = slow_attention(q, k, v, torch.ones(1, 7).bool())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


def test_query_heads_of_a_group_are_neighbors_not_tiled():
    q, k = torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 2)
    v = torch.tensor([[[[1.0, 1.0], [2.0, 2.0]]]])
    out = attention(q, k, v=v, visible=last_of(1))
    assert out[0, 0, :, 0].tolist() == [1.0, 1.0, 2.0, 2.0]


def test_gradients_equal_those_of_the_plain_formula():
    torch.manual_seed(0)
    q = torch.randn(2, 5, 4, 8, requires_grad=True)
    k, v = (torch.randn(2, 5, 2, 8, requires_grad=True) for _ in range(2))
    scores_BHTS = torch.einsum("bthk,bshk->bhts", q, k.repeat_interleave(2, 2)) / math.sqrt(8)
    weights_BHTS = scores_BHTS.masked_fill(~torch.ones(5, 5).tril().bool(), -math.inf).softmax(-1)
    plain = torch.einsum("bhts,bshk->bthk", weights_BHTS, v.repeat_interleave(2, 2))
    upstream = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * upstream).sum(), [q, k, v])
    got = torch.autograd.grad((attention(q, k, v=v, visible=causal(5)) * upstream).sum(), [q, k, v])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_the_future_changes_nothing():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 6, 2, 4)
    before = attention(q, k, v=v, visible=causal(6))
    k[:, 4:], v[:, 4:] = 100.0, -100.0
    after = attention(q, k, v=v, visible=causal(6))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_bf16_softmax_runs_in_fp32():
    """700 equal keys: summed in bf16, weights of 1/700 stop adding up long before 1."""
    q, k = torch.zeros(1, 1, 1, 8).bfloat16(), torch.zeros(1, 700, 1, 8).bfloat16()
    out = attention(q, k, v=torch.ones(1, 700, 1, 8).bfloat16(), visible=last_of(700))
    torch.testing.assert_close(out.float(), torch.ones(1, 1, 1, 8), rtol=0, atol=2**-8)


@pytest.mark.parametrize("n_queries", [1, 2, 7])
def test_the_part_computes_what_the_function_computes(n_queries):
    torch.manual_seed(0)
    q, (k, v) = torch.randn(2, n_queries, 6, 4), torch.randn(2, 2, 7, 2, 4)
    visible = Visible(tokens=plain_tokens(7), n_queries=n_queries)
    assert torch.equal(SoftmaxAttention()(q, k, v, visible), attention(q, k, v=v, visible=visible))
    assert not list(SoftmaxAttention().parameters())


def inputs_of(T, *, chunk_size=None):
    tokens = plain_tokens(T)
    visible = Visible(tokens=tokens, n_queries=T, chunk_size=chunk_size)
    return BlockInputs(rotation=Rope(CONFIG)(tokens.positions), visible={chunk_size: visible})


def test_a_layer_is_its_formula_around_its_two_parts():
    torch.manual_seed(0)
    layer, x, inputs = Attention(CONFIG, LayerSpec()), torch.randn(2, 5, 64), inputs_of(5)
    q, k, v = ((x @ w.weight.T).view(2, 5, -1, 16) for w in (layer.wq, layer.wk, layer.wv))
    q, k = Rotate()(q, k, inputs.rotation)
    found = attention(q, k, v=v, visible=inputs.visible[None])
    expected = found.reshape(2, 5, 64) @ layer.wo.weight.T
    torch.testing.assert_close(layer(x, inputs, cache=Uncached()), expected, rtol=1e-5, atol=1e-6)


class Mean(nn.Module):
    """Instead of the product of attention: each query gets the mean of all values."""

    def forward(self, q, k, v, visible):
        return v.mean(1, keepdim=True).repeat_interleave(2, 2).expand_as(q)


def test_another_part_can_replace_the_product_of_attention():
    torch.manual_seed(0)
    layer, x = Attention(CONFIG, LayerSpec()), torch.randn(2, 5, 64)
    layer.attend = Mean()
    mean = layer.wv(x).mean(1, keepdim=True).view(2, 1, 2, 16).repeat_interleave(2, 2)
    expected = layer.wo(mean.reshape(2, 1, 64)).expand(2, 5, 64)
    torch.testing.assert_close(layer(x, inputs_of(5), cache=Uncached()), expected)


def test_the_spec_decides_whether_queries_and_keys_are_turned():
    assert type(Attention(CONFIG, LayerSpec()).rotate) is Rotate
    assert type(Attention(CONFIG, LayerSpec(has_rope=False)).rotate) is Unrotated


def test_a_chunked_layer_looks_at_its_own_chunk_alone():
    torch.manual_seed(0)
    layer, x = Attention(CONFIG, LayerSpec(chunk_size=4)), torch.randn(1, 6, 64)
    changed = x.clone()
    changed[:, :4] += 1.0
    before, after = (layer(y, inputs_of(6, chunk_size=4), cache=Uncached()) for y in (x, changed))
    assert torch.equal(before[:, 4:], after[:, 4:])
    assert not torch.allclose(before[:, :4], after[:, :4])


def test_a_layers_cache_has_room_for_its_key_value_heads():
    layer = Attention(CONFIG, LayerSpec())
    cache = layer.new_cache(batch_size=3, max_seq_len=7, dtype=torch.bfloat16, device="cpu")
    assert cache.length == 0
    assert cache.n_bytes == 2 * 3 * 7 * CONFIG.n_kv_heads * CONFIG.head_dim * 2
    wider = Attention(dataclasses.replace(CONFIG, n_kv_heads=4), LayerSpec())
    room = dict(batch_size=3, max_seq_len=7, dtype=torch.bfloat16, device="cpu")
    assert wider.new_cache(**room).n_bytes == 2 * cache.n_bytes


def test_tensors_whose_axes_do_not_belong_together_are_refused():
    q, k = torch.randn(2, 5, 6, 4), torch.randn(2, 5, 2, 4)
    for wrong in (dict(q=q.transpose(1, 2)), dict(k=k[:, :4], v=k[:, :4]), dict(q=q[:, :4]),
                  dict(q=q[:, :, :5]), dict(visible=causal(6))):
        given = dict(q=q, k=k, v=k, visible=causal(5)) | wrong
        with pytest.raises(ValueError, match="G divides H and `visible` has the same T and S"):
            attention(given["q"], given["k"], v=given["v"], visible=given["visible"])

import math

import pytest
import torch

from llama_from_scratch.model.attention import attention
from llama_from_scratch.model.mask import GivenMask, Visible, plain_tokens


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
                scores = [(q[b, t, h].double() @ k[b, s, g].double() / math.sqrt(K)).item() if mask[t, s] else -math.inf
                          for s in range(k.shape[1])]
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                out[b, t, h] = weights @ v[b, :, g].double()
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
    torch.testing.assert_close(out.double(), slow_attention(q, k, v, torch.ones(1, 7).bool()), rtol=1e-5, atol=1e-6)


def test_query_heads_of_a_group_are_neighbours_not_tiled():
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
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.allclose(before[:, 4:], after[:, 4:])


def test_bf16_softmax_runs_in_fp32():
    """700 equal keys: summed in bf16, weights of 1/700 stop adding up long before 1."""
    q, k = torch.zeros(1, 1, 1, 8).bfloat16(), torch.zeros(1, 700, 1, 8).bfloat16()
    out = attention(q, k, v=torch.ones(1, 700, 1, 8).bfloat16(), visible=last_of(700))
    torch.testing.assert_close(out.float(), torch.ones(1, 1, 1, 8), rtol=0, atol=2**-8)

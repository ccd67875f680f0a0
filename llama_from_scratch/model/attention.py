"""Grouped-query attention: every query head asks, and groups of them share one key/value head.

A token's query is compared with the keys of all tokens it may see; the softmax of the scores weighs their values. With
G = H key/value heads this is multi-head attention, with G = 1 multi-query attention; between lies GQA, which shrinks the
KV cache H/G times. Query head h reads key/value head h // (H/G): neighbours share, heads are not tiled.

Notebook 13. Multi-head in Llama 1 and the smaller Llama 2, grouped from Llama 2 70B and Llama 3 on. Sources: Vaswani et
al., arXiv:1706.03762, section 3.2; Shazeer, arXiv:1911.02150 (MQA); Ainslie et al., arXiv:2305.13245 (GQA).
"""

from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.kv_cache import LayerCache, Uncached
from llama_from_scratch.model.mask import Visible
from llama_from_scratch.model.rope import apply_rope


def attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], *, v: Float[Tensor, "B S G K"], visible: Visible
) -> Float[Tensor, "B T H K"]:
    """softmax(q k^T / sqrt(K)) v per head, over the visible keys. The softmax runs in fp32.

    PyTorch's fused kernel computes it without storing the T x S scores; notebook 13 derives the plain formula and asserts
    that both agree.
    """
    q_BHTK, k_BGSK, v_BGSK = (x.transpose(1, 2) for x in (q, k, v))
    out_BHTK = F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=visible.mask, is_causal=visible.is_causal, enable_gqa=True)
    return out_BHTK.transpose(1, 2)


class Attention(nn.Module):
    """x -> queries, keys, values -> RoPE -> cache -> attention -> output projection. No biases."""

    def __init__(self, config: LlamaConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.has_rope = spec.has_rope
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(q_dim, config.dim, bias=False)

    def forward(
        self, x: Float[Tensor, "B T D"], *, rotation: Complex[Tensor, "#B T R"], visible: Visible, cache: LayerCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        q, k, v = (w(x).view(*x.shape[:2], -1, self.head_dim) for w in (self.wq, self.wk, self.wv))
        if self.has_rope:
            q, k = apply_rope(q, rotation), apply_rope(k, rotation)
        keys, values = cache.append(k, v)
        return self.wo(attention(q, keys, v=values, visible=visible).flatten(-2))

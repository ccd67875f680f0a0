"""Grouped-query attention (GQA): groups of query heads share one key/value head.

A token's query is compared with the keys of all tokens that it may see. The softmax of these scores
gives the weights with which their values are added up. With G = H key/value heads this is
multi-head attention, with G = 1 multi-query attention. GQA is between them and makes the KV cache
H/G times smaller. Query head h reads key/value head h // (H/G), so neighboring query heads share.

Notebook 13. Multi-head in Llama 1 and the smaller Llama 2, grouped in Llama 2 70B and from Llama 3.
Sources: Vaswani et al., arXiv:1706.03762, section 3.2; Shazeer, arXiv:1911.02150 (MQA); Ainslie et
al., arXiv:2305.13245 (GQA).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.kv_cache import Appends, LayerCache
from llama_from_scratch.model.mask import CachedRows, Everything, GivenMask, Visible
from llama_from_scratch.model.norm import HeadNorm
from llama_from_scratch.model.rope import Rotate, Unrotated
from llama_from_scratch.model.temperature import Tempered, Unscaled


def attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], *, v: Float[Tensor, "B S G K"],
    visible: Visible | GivenMask,
) -> Float[Tensor, "B T H K"]:
    """Returns softmax(q k^T / sqrt(K)) v per head, over the visible keys; the softmax is in fp32.

    PyTorch's fused kernel computes it without storing the T x S scores. Notebook 13 derives the
    plain formula and checks that both agree.
    Raises ValueError for tensors whose axes do not belong together, such as heads before tokens.
    """
    _refuse_other_shapes(q, k, v, visible)
    return SoftmaxAttention()(q, k, v, visible)


class SoftmaxAttention(nn.Module):
    """`attention` as a module without parameters, so that a kernel or a ring can replace it."""

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"],
        v: Float[Tensor, "B S G K"], visible: Visible | CachedRows | GivenMask | Everything,
    ) -> Float[Tensor, "B T H K"]:
        out_BHTK = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible.mask,
            is_causal=visible.is_causal, enable_gqa=True)
        return out_BHTK.transpose(1, 2)


class Attention(nn.Module):
    """x -> queries, keys, values -> RoPE -> cache -> attention -> output projection.

    Llama 4 adds a norm of queries and keys after RoPE in some layers, and makes the queries of far
    positions larger in layers without RoPE. No published Llama has biases here. Some relatives have
    biases, or heads that are wider or narrower than D / H.
    """

    def __init__(self, config: LlamaConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.head_dim, self.chunk_size = config.head_dim, spec.chunk_size
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_dim, bias=config.has_qkv_bias)
        self.wk = nn.Linear(config.dim, kv_dim, bias=config.has_qkv_bias)
        self.wv = nn.Linear(config.dim, kv_dim, bias=config.has_qkv_bias)
        self.wo = nn.Linear(q_dim, config.dim, bias=config.has_wo_bias)
        self.rotate = Rotate() if spec.has_rope else Unrotated()
        self.q_norm, self.k_norm = (
            HeadNorm(eps=config.norm_eps) if spec.has_qk_norm else nn.Identity() for _ in "qk")
        self.scale_queries = Unscaled() if spec.temperature is None else Tempered(spec.temperature)
        self.attend = SoftmaxAttention()

    def forward(
        self, x: Float[Tensor, "B T D"], inputs: BlockInputs, *,
        cache: Appends,
    ) -> Float[Tensor, "B T D"]:
        B, T, _ = x.shape
        q = self.wq(x).view(B, T, -1, self.head_dim)
        k = self.wk(x).view(B, T, -1, self.head_dim)
        v = self.wv(x).view(B, T, -1, self.head_dim)
        q, k = self.rotate(q, k, inputs.rotation)
        q, k = self.q_norm(q), self.k_norm(k)
        q = self.scale_queries(q, inputs.positions)
        keys, values = cache.append(k, v)
        found = self.attend(q, keys, values, inputs.visible[self.chunk_size])
        return self.wo(found.flatten(-2))

    def new_cache(
        self, *, batch_size: int, max_seq_len: int, dtype: torch.dtype, device: torch.device | str
    ) -> LayerCache:
        """Returns an empty cache for this layer, with (B, max_seq_len, G, K) keys and values."""
        return LayerCache.with_room(
            n_kv_heads=self.wk.out_features // self.head_dim, head_dim=self.head_dim,
            batch_size=batch_size, max_seq_len=max_seq_len, dtype=dtype, device=device)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for w in (self.wq, self.wk, self.wv):
            init_linear(w)
        init_linear(self.wo, n_additions=n_additions)


def _refuse_other_shapes(q: Tensor, k: Tensor, v: Tensor, visible: Visible | GivenMask) -> None:
    got = f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == 4 or k.shape != v.shape:
        raise ValueError(f"q must be (B, T, H, K), and k and v must both be (B, S, G, K); {got}")
    (B, T, H, K), (_, S, G, _) = q.shape, k.shape
    if k.shape[0] != B or k.shape[3] != K or H % G or (T, S) != visible.shape:
        raise ValueError("q must be (B, T, H, K) and k (B, S, G, K), where G divides H and "
                         f"`visible` has the same T and S; {got}, and visible has T, S = "
                         f"{visible.shape}. Put the axis of heads after the axis of tokens: "
                         "x.transpose(1, 2) exchanges them")

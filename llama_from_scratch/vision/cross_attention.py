"""Gated cross-attention: text tokens look at image tokens, through a block before a text layer.

Queries come from the text; keys and values come from the image tokens. Queries and keys are normed
per head, and there is no RoPE, because an image token has no position in the text. Two gates, 0 at
the start, decide how much of the result reaches the residual stream. So a text model to which such
blocks are attached computes the same as before, until training opens the gates.

Notebook 22. Llama 3.2 Vision. Sources: The Llama 3 Herd of Models, arXiv:2407.21783, section 7.2;
llama-models, models/llama3/multimodal/model.py; Alayrac et al., arXiv:2204.14198 (Flamingo).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model import feed_forward
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.inputs import BlockInputs, ImageInputs
from llama_from_scratch.model.kv_cache import LayerCache, Uncached
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Block
from llama_from_scratch.vision.encoder import Gate
from llama_from_scratch.vision.image_cache import ImageCache, LayerCacheWithImages


class CrossAttention(nn.Module):
    """Text x -> queries; image states -> keys, values -> attention -> output projection.

    As many query heads and key/value heads as the text's attention has. No biases, no RoPE.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(q_dim, config.dim, bias=False)
        self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
        self.attend = SoftmaxAttention()

    def forward(
        self, x: Float[Tensor, "B T D"], images: ImageInputs, *, cache: ImageCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        q = self.q_norm(self.wq(x).unflatten(-1, (-1, self.head_dim)))
        if images.states is None:
            keys, values = cache.all()
        else:
            keys, values = cache.append(*self.keys_and_values(images.states))
        found = self._attended(q, keys, values, images.visible).flatten(-2)
        if images.is_blind:
            found = found * images.sees_image[..., None]
        return self.wo(found)

    def _attended(
        self, q: Float[Tensor, "B T H K"], keys: Float[Tensor, "B S G K"],
        values: Float[Tensor, "B S G K"], visible: GivenMask,
    ) -> Float[Tensor, "B T H K"]:
        if q.shape[1] > 1:
            return self.attend(q, keys, values, visible)
        # One token: the queries that share a key head become T queries of one head, so that each
        # key is read once. PyTorch's kernel is three times faster so (6,404 keys, a CPU).
        G = keys.shape[2]
        q_BTGK = q.unflatten(2, (G, -1)).squeeze(1).transpose(1, 2)
        found_BTGK = self.attend(q_BTGK, keys, values, visible)
        return found_BTGK.transpose(1, 2).flatten(1, 2)[:, None]

    def keys_and_values(
        self, states: Float[Tensor, "B S D"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns the normed keys and the values of image tokens: done once per image."""
        k = self.k_norm(self.wk(states).unflatten(-1, (-1, self.head_dim)))
        return k, self.wv(states).unflatten(-1, (-1, self.head_dim))

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        for w in (self.wq, self.wk, self.wv):
            init_linear(w)
        init_linear(self.wo, n_additions=n_additions)
        self.q_norm.init_weights()
        self.k_norm.init_weights()


class CrossBlock(nn.Module):
    """x + gate * cross-attention(norm(x)), then x + gate * feed_forward(norm(x)).

    A token that sees no image is left as it is, but see `ImageInputs.is_blind`.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = CrossAttention(config)
        self.attention_gate = Gate()
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = feed_forward.build(config.feed_forward(LayerSpec()), config.dim)
        self.ffn_gate = Gate()

    def forward(
        self, x: Float[Tensor, "B T D"], images: ImageInputs, *, cache: ImageCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        x = x + self.attention_gate(self.attention(self.attention_norm(x), images, cache=cache))
        sees_BT1 = images.sees_image[..., None]
        return x + self.ffn_gate(self.feed_forward(self.ffn_norm(x)) * sees_BT1)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights and closes the gates; `n_additions` as in `model.init`."""
        self.attention_norm.init_weights()
        self.attention.init_weights(n_additions=n_additions)
        self.ffn_norm.init_weights()
        self.feed_forward.init_weights(n_additions=n_additions)
        self.attention_gate.init_weights()
        self.ffn_gate.init_weights()


class SeeingBlock(Block):
    """A text layer with the very parts of `block`, and a cross-attention block before it.

    Without images it computes what `block` computes.
    """

    def __init__(self, block: Block, config: LlamaConfig) -> None:
        nn.Module.__init__(self)
        for name, part in block.named_children():
            self.add_module(name, part)
        self.cross = CrossBlock(config)

    def without_cross(self) -> Block:
        """Returns a plain text layer with the very parts of this one."""
        block = Block.__new__(Block)
        nn.Module.__init__(block)
        for name, part in self.named_children():
            if name != "cross":
                block.add_module(name, part)
        return block

    def forward(
        self, x: Float[Tensor, "B T D"], inputs: BlockInputs, *, cache: LayerCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        if inputs.images is not None:
            of_images = cache.images if isinstance(cache, LayerCacheWithImages) else cache
            x = self.cross(x, inputs.images, cache=of_images)
        return super().forward(x, inputs, cache=cache)

    def new_cache(
        self, *, batch_size: int, max_seq_len: int, dtype: torch.dtype, device: torch.device | str
    ) -> LayerCacheWithImages:
        """Returns an empty cache for this layer's text, and for its block's images."""
        text = super().new_cache(batch_size=batch_size, max_seq_len=max_seq_len, dtype=dtype,
                                 device=device)
        return LayerCacheWithImages.next_to(text)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights for the text layer and for the block before it."""
        super().init_weights(n_additions=n_additions)
        self.cross.init_weights(n_additions=n_additions)

"""The plain Llama: embed, L blocks, norm, output head. One device, no kernel switch, no generation in `forward`.

Each block reads the residual stream twice, once to look at other tokens (attention) and once to think about its own
(feed-forward), and adds what it found. Everything that changes between generations is in the config.

Notebook 15. Llama 1 to 3.3. Sources: arXiv:2302.13971, section 2; arXiv:2307.09288; arXiv:2407.21783.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.kv_cache import KVCache, LayerCache, Uncached
from llama_from_scratch.model.mask import Tokens, Visible, visible
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import Rope


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: LlamaConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config, spec)
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config.dim, config.ffn_dim)

    def forward(
        self, x: Float[Tensor, "B T D"], *, rotation: Complex[Tensor, "#B T R"], visible: Visible, cache: LayerCache | Uncached
    ) -> Float[Tensor, "B T D"]:
        x = x + self.attention(self.attention_norm(x), rotation=rotation, visible=visible, cache=cache)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """A Llama with fresh weights, as `config` describes it. Weights come from torch's global generator: seed it first."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.rope = Rope(config)
        self.layers = nn.ModuleList(Block(config, spec) for spec in config.layers)
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.is_tied:
            self.output.weight = self.tok_embeddings.weight
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Normal weights of size 1 / (2 sqrt(n)) for rows of n inputs; what a block adds to the stream is sqrt(2 L) smaller.

        A row times n inputs of size 1 then gives half their size at any width; the usual 0.02 is this rule at a width of 625,
        and too quiet for a small model to learn fast. 2 L additions of equal size would let the stream grow with sqrt(2 L).
        Source of the second part: Radford et al., Language Models are Unsupervised Multitask Learners (GPT-2), section 2.3.
        """
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                is_residual = name.endswith(("wo.weight", "w_down.weight"))
                weight.normal_(std=0.5 / math.sqrt(weight.shape[1] * (2 * len(self.layers) if is_residual else 1)))

    def hidden(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The residual stream after the last norm: what `output` turns into logits.

        `positions`: where each token stands, by default counted on from what the cache holds. `documents`: a token sees
        only earlier tokens with its own number (see `mask.PADDING`). `cache`: receives the new keys and values.
        Raises ValueError for an id outside the vocabulary, or a sequence longer than `config.max_seq_len`.
        """
        B, T = ids.shape
        past = Uncached() if cache is None else cache
        if past.length + T > self.config.max_seq_len:
            raise ValueError(f"this model was made for {self.config.max_seq_len} tokens; got {past.length + T}. "
                             "Shorten the prompt, or build the model with a larger max_seq_len")
        is_plain = positions is None and documents is None
        if positions is None:
            positions = torch.arange(past.length, past.length + T, device=ids.device)[None]
        tokens = past.extend(Tokens(positions=positions, documents=documents, is_plain=is_plain), batch_size=B)
        rotation_BTR = self.rope(positions)
        visible_by_chunk = {size: visible(tokens, n_queries=T, chunk_size=size)
                            for size in {spec.chunk_size for spec in self.config.layers}}
        x_BTD = self.tok_embeddings(ids)
        for block, spec, layer_cache in zip(self.layers, self.config.layers, past.layers):
            x_BTD = block(x_BTD, rotation=rotation_BTR, visible=visible_by_chunk[spec.chunk_size], cache=layer_cache)
        return self.norm(x_BTD)

    def forward(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the next token at every position, in fp32. Arguments as in `hidden`."""
        return self.output(self.hidden(ids, positions=positions, documents=documents, cache=cache)).float()

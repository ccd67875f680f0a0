"""Greedy decoding of one text on a CPU, with what is special about it used: a single token is a vector, not a batch.

At one token a step the model is a chain of matrices times vectors. Its time is the bytes of those matrices, and the cost
of every call in between: at 15 million parameters half of all. This walks the plain model's own weights with as few calls
as the arithmetic needs, and asks a `Screen` for the likeliest token instead of the whole head. The model knows nothing.

Notebook 16.
"""

from collections.abc import Iterator, Sequence, Set

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.generate.checks import check_limits, check_stops
from llama_from_scratch.generate.generate import choose
from llama_from_scratch.generate.prefix import weights_of
from llama_from_scratch.generate.sampling import GREEDY
from llama_from_scratch.generate.screen import Screen
from llama_from_scratch.model.kv_cache import KVCache, LayerCache
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Block, Llama


class GreedyDecoder:
    """Writes the ids that `generate` writes greedily, one text at a time, on a CPU.

    The head's choice is proven to be that of all logits (`Screen`). Before it, the same arithmetic runs as in the model,
    but PyTorch may add up a matrix times a vector in another order than a matrix times a batch, so where two logits are
    equal up to the rounding of the hidden state, either id may come. One thread at a time may use a decoder.
    """

    def __init__(self, model: Llama) -> None:
        weight = model.output.weight
        if weight.device.type != "cpu":
            raise ValueError(f"a GreedyDecoder is for a CPU; this model is on {weight.device}. Decode with generate()")
        self._model, self.screen = model, Screen(model.output)
        self._known, self._layers = weights_of(model), [_Layer(block, dtype=weight.dtype) for block in model.layers]
        self._embeddings_VD, self._norm = model.tok_embeddings.weight.detach(), _norm(model.norm)

    def stream(
        self, prompt: Sequence[int], *, max_tokens: int | None = None, stop_ids: Set[int] = frozenset()
    ) -> Iterator[int]:
        """What the model writes after `prompt`, each id as soon as it is known, without the one that stopped it.

        Raises ValueError as `generate` does, and when the weights have changed since the decoder was made.
        """
        model, config = self._model, self._model.config
        if weights_of(model) != self._known:
            raise ValueError("the model's weights have changed since this GreedyDecoder was made. Make a new one")
        [n_tokens], [stops] = check_limits(model, [prompt], max_tokens), check_stops(model, [prompt], stop_ids)
        n_slots, dtype = len(prompt) + n_tokens, model.dtype
        with torch.inference_mode():
            pasts = [_Past(torch.empty(n_slots, 2 * config.n_kv_heads, config.head_dim, dtype=dtype)) for _ in config.layers]
            cache = KVCache(config, batch_size=1, max_seq_len=n_slots, layers=[past.layer_cache() for past in pasts])
            rotation_SR = model.rope(torch.arange(n_slots)[None])[0]
            token = self._likeliest(model.hidden(torch.tensor([prompt]), cache=cache)[0, -1])
        for slot in range(len(prompt), n_slots - 1):
            if token in stops:
                return
            yield token
            with torch.inference_mode():
                token = self._likeliest(self._hidden(token, slot, rotation_R=rotation_SR[slot], pasts=pasts))
        if token not in stops:
            yield token

    def _hidden(self, token: int, slot: int, *, rotation_R: Complex[Tensor, "R"], pasts: list["_Past"]) -> Float[Tensor, "D"]:
        """`Llama.hidden` for one token that follows those of the past."""
        x_D = self._embeddings_VD[token]
        for layer, spec, past in zip(self._layers, self._model.config.layers, pasts, strict=True):
            start = 0 if spec.chunk_size is None else slot // spec.chunk_size * spec.chunk_size
            x_D = layer(x_D, rotation_R=rotation_R, past=past, start=start, slot=slot)
        return self._norm(x_D)

    def _likeliest(self, hidden_D: Float[Tensor, "D"]) -> int:
        token = self.screen.largest(hidden_D)
        if token is None:
            token = choose(self._model.output(hidden_D[None]).float(), GREEDY, seen=None, generators=[]).item()
        return token


class _Past:
    """Keys and values of one layer, those of a token side by side, so that one copy writes both."""

    def __init__(self, kv_SHK: Tensor) -> None:
        self.kv_SHK = kv_SHK
        self.keys, self.values = kv_SHK[None].transpose(1, 2).chunk(2, 1)  # (1, G, S, K), as the kernel wants them

    def layer_cache(self) -> LayerCache:
        """The same memory as the model's own cache sees it, for the prompt."""
        return LayerCache(self.keys.transpose(1, 2), self.values.transpose(1, 2))


class _Layer:
    """`transformer.Block` for one token: its weights at hand, and room for one token's queries, keys and values."""

    def __init__(self, block: Block, *, dtype: torch.dtype) -> None:
        part, ffn = block.attention, block.feed_forward
        self.attention_norm, self.ffn_norm = _norm(block.attention_norm), _norm(block.ffn_norm)
        self.wo, self.has_rope = part.wo.weight.detach(), type(part.rotate) is Rotate
        self.w_gate, self.w_up, self.w_down = (w.weight.detach() for w in (ffn.w_gate, ffn.w_up, ffn.w_down))
        with torch.inference_mode():
            n_rows = [len(w.weight) for w in (part.wq, part.wk, part.wv)]
            heads_HK = torch.empty(sum(n_rows), dtype=dtype).view(-1, part.head_dim)
            weights = [w.weight.detach() for w in (part.wq, part.wk, part.wv)]
            self.products = list(zip(weights, heads_HK.view(-1).split(n_rows), strict=True))
            self.q_BHTK = heads_HK[: n_rows[0] // part.head_dim].view(1, -1, 1, part.head_dim)
            self.kv_HK = heads_HK[n_rows[0] // part.head_dim :]
            self.qk_HK = heads_HK[: sum(n_rows[:2]) // part.head_dim]
            self.wide_HK = self.qk_HK.float()  # the same memory if it is fp32 already
            self.pairs_HR = torch.view_as_complex(self.wide_HK.view(len(self.wide_HK), -1, 2))

    def __call__(self, x_D: Tensor, *, rotation_R: Tensor, past: _Past, start: int, slot: int) -> Float[Tensor, "D"]:
        h_D = self.attention_norm(x_D)
        for weight, out in self.products:
            torch.mv(weight, h_D, out=out)
        if self.has_rope:
            self.wide_HK.copy_(self.qk_HK)
            self.pairs_HR.mul_(rotation_R)
            self.qk_HK.copy_(self.wide_HK)
        past.kv_SHK[slot] = self.kv_HK
        seen = slice(start, slot + 1)
        out_BHTK = F.scaled_dot_product_attention(
            self.q_BHTK, past.keys[:, :, seen], past.values[:, :, seen], enable_gqa=True)
        x_D = x_D + torch.mv(self.wo, out_BHTK.view(-1))
        h_D = self.ffn_norm(x_D)
        return x_D + torch.mv(self.w_down, F.silu(torch.mv(self.w_gate, h_D)).mul_(torch.mv(self.w_up, h_D)))


def _norm(norm: RMSNorm):
    """The plain model's norm, bit for bit, in two calls instead of six."""
    weight, shape, eps = norm.weight.detach(), norm.weight.shape, norm.eps
    return lambda x_D: F.rms_norm(x_D, shape, eps=eps) * weight

"""Fast greedy decoding of one text on a CPU, where a single token is a vector.

With one token per step, the model is a chain of matrix-vector products. Its time goes into reading
the matrices and into the calls in between, which are half of it at 15 million parameters. A
`GreedyDecoder` computes with the plain model's own weights, with as few calls as the arithmetic
needs. A `Screen` finds the likeliest token without computing the whole head. When a decoder is
made, it measures which product is fastest, whether the screen helps, and whether the plain model is
faster still. The model's source does not depend on this file.

Notebook 16.
"""

import functools
from collections.abc import Callable, Iterator, Sequence, Set

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from llama_from_scratch.checkpoint.described import undescribed
from llama_from_scratch.config import Dense
from llama_from_scratch.generate.checks import check_limits, check_stops
from llama_from_scratch.generate.generate import choose, stream
from llama_from_scratch.generate.prefix import weights_of
from llama_from_scratch.generate.probing import N_TURNS, fastest
from llama_from_scratch.generate.sampling import GREEDY
from llama_from_scratch.generate.screen import Screen
from llama_from_scratch.model.kv_cache import KVCache, LayerCache
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Block, Llama
from llama_from_scratch.vision.seeing import SeeingLlama


class GreedyDecoder:
    """Writes the ids that `generate` writes greedily, one text at a time, on a CPU.

    A `Screen` chooses the id with the largest logit, which is proven. The layers compute the same
    as the model's, but PyTorch may add up a matrix-vector product in another order than a product
    with a batch. Where two logits are equal up to the rounding of the hidden state, either id may
    therefore come. One thread at a time may use a decoder.

    What is fast depends on the processor, the dtype and the number of threads, so it is measured at
    construction (`probing`): which product of a matrix and a vector is fastest, and whether the
    plain model is faster (`is_plain`), which then writes instead. `is_screened`: whether to use a
    screen, by default if that is faster. The int8 product that it needs is slow on processors
    without matrix units. Without a screen, `screen` is None.
    Raises ValueError for a model that is not on a CPU or has parts that are not plain.
    """

    def __init__(self, model: Llama, *, is_screened: bool | None = None) -> None:
        if model.device.type != "cpu":
            raise ValueError(f"a GreedyDecoder runs on a CPU; this model is on {model.device}. "
                             "Decode with generate()")
        if isinstance(model, SeeingLlama):
            raise ValueError("a GreedyDecoder decodes models that read only text; this model also "
                             "sees. Decode with generate(), or decode its text model: "
                             "vision.detach(model)")
        if unknown := _unknown(model):
            raise ValueError("a GreedyDecoder computes dense layers with plain attention; in this "
                             f"model {unknown}. Decode with generate()")
        if odd := undescribed(model, accepts_stand_ins=False):
            raise ValueError("a GreedyDecoder needs a model of plain parts; in this one "
                             f"{'; '.join(odd[:4])}. Decode with generate(), which calls every "
                             "part as it is")
        self._model, self._known = model, weights_of(model)
        self._layers = _fastest_layers(model, is_bound=is_screened is True)
        self._embeddings_VD = model.tok_embeddings.weight.detach()
        self._norm = _norm(model.norm)
        self.screen = None if self.is_plain else _screen(model, is_screened)

    @property
    def is_plain(self) -> bool:
        """Whether the plain model computes each token, because it was faster when measured."""
        return self._layers is None

    def stream(
        self, prompt: Sequence[int], *, max_tokens: int | None = None,
        stop_ids: Set[int] = frozenset(),
    ) -> Iterator[int]:
        """Yields the ids that the model writes after `prompt`, without the id that stopped it.

        Raises ValueError as `generate` does, and if the weights have changed since the decoder
        was made.
        """
        model, config = self._model, self._model.config
        if weights_of(model) != self._known:
            raise ValueError("the model's weights have changed since this GreedyDecoder was made. "
                             "Make a new one")
        [n_tokens] = check_limits(model, [prompt], max_tokens)
        [stops] = check_stops(model, [prompt], stop_ids)
        if self.is_plain:
            yield from stream(model, prompt, max_tokens=n_tokens, stop_ids=stops)
            return
        n_slots = len(prompt) + n_tokens
        with torch.inference_mode():
            pasts = [_past(model, n_slots) for _ in config.layers]
            cache = KVCache(config, batch_size=1, max_seq_len=n_slots,
                            layers=[past.layer_cache() for past in pasts])
            rotation_SR = model.rope(torch.arange(n_slots)[None])[0]
            hidden_BTD = model.hidden(torch.tensor([prompt]), cache=cache)
            token = self._likeliest(hidden_BTD[0, -1])
        for slot in range(len(prompt), n_slots - 1):
            if token in stops:
                return
            yield token
            with torch.inference_mode():
                hidden_D = self._hidden(token, slot, rotation_R=rotation_SR[slot], pasts=pasts)
                token = self._likeliest(hidden_D)
        if token not in stops:
            yield token

    def _hidden(
        self, token: int, slot: int, *, rotation_R: Complex[Tensor, "R"], pasts: list["_Past"]
    ) -> Float[Tensor, "D"]:
        """Returns what `Llama.hidden` does, for one token after the tokens in `pasts`."""
        x_D = self._embeddings_VD[token]
        for layer, past in zip(self._layers, pasts, strict=True):
            x_D = layer(x_D, rotation_R=rotation_R, past=past, slot=slot)
        return self._norm(x_D)

    def _likeliest(self, hidden_D: Float[Tensor, "D"]) -> int:
        token = None if self.screen is None else self.screen.largest(hidden_D)
        if token is None:
            logits_BV = self._model.output(hidden_D[None]).float()
            token = choose(logits_BV, GREEDY, seen=None, generators=[]).item()
        return token


def can_decode(model: Llama) -> bool:
    """Returns whether a GreedyDecoder takes this model.

    It takes models on a CPU with plain parts only, without an encoder and what Llama 4 adds.
    """
    return (model.device.type == "cpu" and not isinstance(model, SeeingLlama)
            and not _unknown(model) and not undescribed(model, accepts_stand_ins=False))


def _unknown(model: Llama) -> str:
    """Returns what the fast step does not compute, for an error message, or an empty text."""
    for i, spec in enumerate(model.config.layers):
        kind = type(model.config.feed_forward(spec))
        if kind is not Dense:
            return f"layer {i} has {kind.__name__}"
        if spec.has_qk_norm or spec.temperature is not None:
            return f"layer {i} changes queries after RoPE"
    return ""


def _screen(model: Llama, is_screened: bool | None) -> Screen | None:
    """Returns a screen for the head if it was asked for or is faster here, otherwise None."""
    if is_screened is False:
        return None
    if is_screened is None and not torch.backends.mkldnn.is_available():
        return None
    screen = Screen(model.output)
    if is_screened is None and not _is_faster(screen, model):
        return None
    return screen


def _is_faster(screen: Screen, model: Llama) -> bool:
    """Returns whether the screen is faster than the whole head, measured on a random state."""
    generator = torch.Generator().manual_seed(0)
    state_D = torch.randn(model.config.dim, generator=generator).to(model.dtype)
    with torch.inference_mode():
        first = fastest([lambda: model.output(state_D[None]).float().argmax().item(),
                         lambda: screen.largest(state_D)])
    screen.n_asked = screen.n_candidates = screen.n_undecided = 0
    return first == 1


def _fastest_layers(model: Llama, *, is_bound: bool) -> "list[_Layer] | None":
    """Returns the layers with the fastest product here, or None if the plain model is faster.

    With `is_bound` the plain model is not tried.
    """
    ways: list[list[_Layer]] = [[_Layer(block, dtype=model.dtype, product=product)
                                 for block in model.layers] for product in (_by_vector, _by_matrix)]
    n_slots, config = N_TURNS + 2, model.config
    if n_slots > config.max_seq_len:
        return ways[0]
    rotation_R = model.rope(torch.zeros(1, 1, dtype=torch.int64))[0, 0]
    pasts = [_past(model, n_slots) for _ in config.layers]
    x_D = model.tok_embeddings.weight[0].detach()
    cache = model.new_cache(batch_size=1, max_seq_len=n_slots)
    ids_BT = torch.zeros(1, 1, dtype=torch.int64)

    def walk(layers: "list[_Layer]") -> None:
        at_D = x_D
        for layer, past in zip(layers, pasts, strict=True):
            at_D = layer(at_D, rotation_R=rotation_R, past=past, slot=0)

    def plain() -> None:
        x_BTD = model.embed(ids_BT)
        model.run(x_BTD, model.prepare(x_BTD, cache=cache), cache=cache)

    tried: list[Callable[[], object]] = [functools.partial(walk, layers) for layers in ways]
    with torch.inference_mode():
        first = fastest(tried if is_bound else [*tried, plain])
    return ways[first] if first < len(ways) else None


class _Past:
    """Keys and values of one layer, adjacent for each token, so that one copy writes both."""

    def __init__(self, kv_SHK: Tensor) -> None:
        self.kv_SHK = kv_SHK
        # (1, G, S, K), as the attention kernel expects
        self.keys, self.values = kv_SHK[None].transpose(1, 2).chunk(2, 1)

    def layer_cache(self) -> LayerCache:
        """Returns the same memory in the layout of the model's own cache, for the prompt."""
        return LayerCache(self.keys.transpose(1, 2), self.values.transpose(1, 2))


def _past(model: Llama, n_slots: int) -> _Past:
    config = model.config
    shape = (n_slots, 2 * config.n_kv_heads, config.head_dim)
    return _Past(torch.empty(shape, dtype=model.dtype))


Product = Callable[..., Tensor]


class _Layer:
    """`transformer.Block` for one token: the weights, and memory for the token's q, k and v."""

    def __init__(
        self, block: Block, *, dtype: torch.dtype, product: Callable[[nn.Linear], Product]
    ) -> None:
        part, ffn = block.attention, block.feed_forward
        self.attention_norm, self.ffn_norm = _norm(block.attention_norm), _norm(block.ffn_norm)
        self.wo, self.has_rope = product(part.wo), type(part.rotate) is Rotate
        self.chunk_size = part.chunk_size
        self.w_gate, self.w_up, self.w_down = map(product, (ffn.w_gate, ffn.w_up, ffn.w_down))
        with torch.inference_mode():
            projections = (part.wq, part.wk, part.wv)
            n_rows = [w.out_features for w in projections]
            heads_HK = torch.empty(sum(n_rows), dtype=dtype).view(-1, part.head_dim)
            self.products = list(zip(map(product, projections), heads_HK.view(-1).split(n_rows),
                                     strict=True))
            n_heads = n_rows[0] // part.head_dim
            self.q_BHTK = heads_HK[:n_heads].view(1, -1, 1, part.head_dim)
            self.kv_HK = heads_HK[n_heads:]
            self.qk_HK = heads_HK[: sum(n_rows[:2]) // part.head_dim]
            self.wide_HK = self.qk_HK.float()  # the same memory if it is fp32 already
            self.pairs_HR = torch.view_as_complex(self.wide_HK.view(len(self.wide_HK), -1, 2))

    def __call__(
        self, x_D: Tensor, *, rotation_R: Tensor, past: _Past, slot: int
    ) -> Float[Tensor, "D"]:
        h_D = self.attention_norm(x_D)
        for multiply, out in self.products:
            multiply(h_D, out=out)
        if self.has_rope:
            self.wide_HK.copy_(self.qk_HK)
            self.pairs_HR.mul_(rotation_R)
            self.qk_HK.copy_(self.wide_HK)
        past.kv_SHK[slot] = self.kv_HK
        first = 0 if self.chunk_size is None else slot // self.chunk_size * self.chunk_size
        seen = slice(first, slot + 1)
        out_BHTK = F.scaled_dot_product_attention(
            self.q_BHTK, past.keys[:, :, seen], past.values[:, :, seen], enable_gqa=True)
        x_D = x_D + self.wo(out_BHTK.view(-1))
        h_D = self.ffn_norm(x_D)
        gated_F = F.silu(self.w_gate(h_D)).mul_(self.w_up(h_D))
        return x_D + self.w_down(gated_F)


def _by_vector(linear: nn.Linear) -> Product:
    """Returns a function that multiplies a vector by the matrix, and adds the bias if there is one.

    Its `out=` receives the result.
    """
    weight = linear.weight.detach()
    if linear.bias is None:
        return functools.partial(torch.mv, weight)
    return functools.partial(torch.addmv, linear.bias.detach(), weight)


def _by_matrix(linear: nn.Linear) -> Product:
    """Returns the same function as a product of two matrices, which PyTorch computes differently.

    The vector is a matrix of one row.
    """
    columns, bias = linear.weight.detach().T, linear.bias
    times = (torch.mm if bias is None
             else lambda x_BD, columns, **where: torch.addmm(bias.detach(), x_BD, columns, **where))

    def multiply(x_D: Tensor, *, out: Tensor | None = None) -> Tensor:
        if out is None:
            return times(x_D[None], columns)[0]
        return times(x_D[None], columns, out=out[None])[0]

    return multiply


def _norm(norm: RMSNorm):
    """Returns a function that computes the plain model's norm bit for bit, in 2 calls, not 6."""
    weight, shape, eps = norm.weight.detach(), norm.weight.shape, norm.eps
    return lambda x_D: F.rms_norm(x_D, shape, eps=eps) * weight

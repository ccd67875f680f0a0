"""The plain Llama: embedding, L blocks, norm, output head, without generation or kernel switches.

Each block reads the residual stream twice: once to read other tokens (attention) and once for each
token alone (feed-forward). Each time it adds its result to the stream. Everything that changes
between generations is in the config. A forward pass has four stages, which can also be called one
by one: `embed` (ids to vectors), `prepare` (what blocks need in addition to the stream), `run`
(some or all blocks), `head` (stream to logits). The model runs on one device.

Notebook 15. Llama 1 to 3.3. Sources: arXiv:2302.13971, section 2; arXiv:2307.09288;
arXiv:2407.21783.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model import feed_forward, moe  # noqa: F401  (moe registers its kind)
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.init import init_linear
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.kv_cache import Appends, KVCache, LayerCache, Uncached
from llama_from_scratch.model.mask import Tokens
from llama_from_scratch.model.norm import AddNorm, RMSNorm
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.static_cache import StaticCache
from llama_from_scratch.model.visibility import Visibility


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: LlamaConfig, spec: LayerSpec) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config, spec)
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = feed_forward.build(config.feed_forward(spec), config.dim)
        self.add_norm = AddNorm()

    def forward(
        self, x: Float[Tensor, "B T D"], inputs: BlockInputs, *,
        cache: Appends,
    ) -> Float[Tensor, "B T D"]:
        attended = self.attention(self.attention_norm(x), inputs, cache=cache)
        normed, x = self.add_norm(x, attended, self.ffn_norm)
        return x + self.feed_forward(normed)

    def new_cache(
        self, *, batch_size: int, max_seq_len: int, dtype: torch.dtype, device: torch.device | str
    ) -> LayerCache:
        """Returns the cache that this layer's attention needs."""
        return self.attention.new_cache(batch_size=batch_size, max_seq_len=max_seq_len,
                                        dtype=dtype, device=device)

    def init_weights(self, *, n_additions: int) -> None:
        """Draws fresh weights; the stream receives `n_additions` results (`model.init`)."""
        self.attention_norm.init_weights()
        self.attention.init_weights(n_additions=n_additions)
        self.ffn_norm.init_weights()
        self.feed_forward.init_weights(n_additions=n_additions)


class Llama(nn.Module):
    """A Llama with fresh weights, as `config` describes it.

    Weights come from torch's global generator: seed it first.
    Raises ValueError for a config of another kind of model.
    """

    cache_type = KVCache

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        if type(config) is not LlamaConfig:
            raise ValueError("a Llama is made from a LlamaConfig; got a "
                             f"{type(config).__name__}, which describes more than a text model. "
                             "Make its model with config.new_model()")
        self.config = config
        self._chunk_sizes = frozenset(spec.chunk_size for spec in config.layers)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.rope, self.visibility = Rope(config), Visibility()
        self.layers = nn.ModuleList(Block(config, spec) for spec in config.layers)
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.next_logits = NextLogits()
        if config.is_tied:
            self.output.weight = self.tok_embeddings.weight
        self.init_weights()

    def init_weights(self) -> None:
        """Draws all weights; the size of each follows the rule in `model.init`."""
        init_linear(self.tok_embeddings)
        for block in self.layers:
            block.init_weights(n_additions=2 * len(self.layers))
        self.norm.init_weights()
        if not self.config.is_tied:
            init_linear(self.output)

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.rope.freq_R.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream, and therefore of keys and values.

        It is the dtype of the first floating-point parameter; matrices may have other dtypes.
        """
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def new_cache(
        self, *, batch_size: int, max_seq_len: int, dtype: torch.dtype | None = None
    ) -> KVCache:
        """Returns an empty KV cache for this model, on its device and by default in its dtype."""
        room = dict(batch_size=batch_size, max_seq_len=max_seq_len, device=self.device)
        layers = [] if min(batch_size, max_seq_len) < 1 else [
            block.new_cache(**room, dtype=self.dtype if dtype is None else dtype)
            for block in self.layers]
        return self.cache_type(self.config, **room, layers=layers)

    # --- the four stages ----------------------------------------------------------------------

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the row of the embedding matrix for each id: the start of the residual stream.

        Raises ValueError for ids of another shape or dtype and, on a CPU, outside the vocabulary.
        (A GPU checks ids later; PyTorch then reports a device-side assert.)
        """
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in _ID_DTYPES:
            raise ValueError(f"ids must be integers of shape (B, T), one row per sequence; "
                             f"got {_told(ids)}. For one sequence: torch.tensor([ids])")
        try:
            return self.look_up(ids)
        except IndexError:
            wrong = ids[(ids < 0) | (ids >= self.config.n_ids)]
            raise ValueError(f"ids run from 0 to {self.config.n_ids - 1}; got "
                             f"{wrong[:4].tolist()}. Use the tokenizer that the model was "
                             "trained with") from None

    def look_up(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the row of each id. Raises IndexError for an id without a row."""
        return self.tok_embeddings(ids)

    def prepare(
        self, x: Float[Tensor, "B T D"], *, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> BlockInputs:
        """Returns what all blocks need in addition to x. Arguments and errors as in `hidden`.

        With a `cache`, it reserves room there for the new tokens, so call it once per pass.
        """
        B, T = x.shape[:2]
        n_past = 0 if cache is None else cache.length
        if n_past + T > self.config.max_seq_len:
            raise ValueError(f"this model is made for at most {self.config.max_seq_len} tokens; "
                             f"got {n_past + T}. Shorten the prompt, or build the model with a "
                             "larger max_seq_len")
        for name, numbers in (("positions", positions), ("documents", documents)):
            _refuse_other_numbers(name, numbers, B, T)
        is_plain = positions is None and documents is None
        if positions is None:
            positions = torch.arange(n_past, n_past + T, device=x.device)[None]
        tokens = Tokens(positions=positions, documents=documents, is_plain=is_plain)
        if cache is not None:
            cache.refuse_other(self.config)
        return BlockInputs(
            rotation=self.rope(positions), positions=positions, visible=self.visibility(
                tokens, batch_size=B, chunk_sizes=self._chunk_sizes, cache=cache))

    def run(
        self, x: Float[Tensor, "B T D"], inputs: BlockInputs, *,
        cache: KVCache | StaticCache | None = None, layers: slice = slice(None),
    ) -> Float[Tensor, "B T D"]:
        """Returns the residual stream after these layers, by default after all of them."""
        blocks = list(self.layers)[layers]
        caches = [_UNCACHED] * len(blocks) if cache is None else cache.layers[layers]
        for block, layer_cache in zip(blocks, caches, strict=True):
            x = block(x, inputs, cache=layer_cache)
        return x

    def head(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Returns the next token's logits at every position: the last norm, `output`.

        They are in fp32, or in float64 for a model in float64.
        """
        logits_BTV = self.output(self.norm(x))
        return logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()

    # --- the stages together --------------------------------------------------------------------

    def hidden(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the residual stream after the last norm, which `output` turns into logits.

        `positions`: of each token, by default counted on after the tokens in the cache.
        `documents`: a token sees only earlier tokens with its own number (see `mask.PADDING`).
        `cache`: receives the new keys and values.
        Raises ValueError for ids, positions or documents of another shape, for an id outside the
        vocabulary, for a cache of another model, and for more tokens than the cache or the model
        can hold.
        """
        return self.norm(self._residual_stream(
            ids, positions=positions, documents=documents, cache=cache))

    def forward(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None = None,
        documents: Int[Tensor, "#B T"] | None = None, cache: KVCache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns logits of the next token at every position, in fp32. Arguments as in `hidden`."""
        return self.head(self._residual_stream(
            ids, positions=positions, documents=documents, cache=cache))

    def static_step(
        self, ids: Int[Tensor, "B 1"], *, cache: StaticCache
    ) -> Float[Tensor, "B V"]:
        """Returns the logits after one new id per row, in fp32; the cache receives the ids.

        Every call has the same shapes and addresses, and nothing waits for the device, so that it
        can be recorded and repeated. Whether the cache has room, the caller knows.
        """
        x = self.embed(ids)
        positions_B1, visible = cache.extend(self._chunk_sizes)
        inputs = BlockInputs(rotation=self.rope(positions_B1), positions=positions_B1,
                             visible=visible)
        x = self.run(x, inputs, cache=cache)
        logits_BV = self.head(x)[:, -1].float()
        cache.slot.add_(1)
        return logits_BV

    def _residual_stream(
        self, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache | None,
    ) -> Float[Tensor, "B T D"]:
        x = self.embed(ids)
        inputs = self.prepare(x, positions=positions, documents=documents, cache=cache)
        return self.run(x, inputs, cache=cache)


class NextLogits(nn.Module):
    """The logits after the newest id of each row, as a module without parameters.

    Decoding asks for nothing else, step after step, so a recorded step can replace it.
    """

    def forward(
        self, model: Llama, ids: Int[Tensor, "B T"], *, positions: Int[Tensor, "#B T"] | None,
        documents: Int[Tensor, "#B T"] | None, cache: KVCache,
    ) -> Float[Tensor, "B V"]:
        """Returns logits in fp32. The ids are cached afterward. Arguments as in `Llama.hidden`.

        A single id per row continues its text: its position follows that of the id before.
        """
        hidden_BTD = model.hidden(ids, positions=positions, documents=documents, cache=cache)
        return model.output(hidden_BTD[:, -1]).float()


_UNCACHED = Uncached()
_ID_DTYPES = (torch.int64, torch.int32)


def _refuse_other_numbers(name: str, numbers: Tensor | None, B: int, T: int) -> None:
    if numbers is None:
        return
    if (not isinstance(numbers, Tensor) or numbers.dtype not in _ID_DTYPES
            or tuple(numbers.shape) not in ((B, T), (1, T))):
        raise ValueError(f"{name} must be one integer per token: shape ({B}, {T}), or (1, {T}) if "
                         f"all sequences share them; got {_told(numbers)}")


def _told(x: object) -> str:
    """Returns how an error message shows a value: shape and dtype of a tensor, else its type."""
    if isinstance(x, Tensor):
        return f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
    return f"a {type(x).__name__}: {x!r:.80}"

"""The KV cache: keys and values of earlier tokens, kept because no later token can change them.

Under a causal mask earlier tokens never see later ones, so their keys and values stay the same.
Decoding token t then costs one row of attention instead of t rows. The memory is allocated once. A
prompt may arrive in pieces of any size.

Notebooks 13 and 16. Bytes per token: 2 L G K times the bytes of a value
(`LlamaConfig.kv_bytes_per_token`).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.mask import PADDING, Tokens


@runtime_checkable
class Appends(Protocol):
    """What attention asks of a layer's cache, of any kind."""

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns the keys and values that attention looks at, among them the new ones."""


@runtime_checkable
class KeepsTokens(Appends, Protocol):
    """What a `KVCache` asks of each layer's cache: `LayerCache`, or `chunk_cache.ChunkCache`."""

    forgets: bool
    first: int
    length: int
    n_bytes: int

    def make_room(self, n_new: int) -> None: ...

    def refuse_cut(self, length: int) -> None: ...

    def truncate(self, length: int) -> None: ...

    def rows(self, rows: Sequence[int], *, span: slice, max_seq_len: int) -> "KeepsTokens": ...


class LayerCache:
    """The keys and values of one layer: room for S tokens, of which the first `length` are used.

    `first`: the slot of the oldest token that is kept. `forgets`: whether it can be above 0.
    """

    forgets, first = False, 0

    def __init__(self, keys: Float[Tensor, "B S G K"], values: Float[Tensor, "B S G K"]) -> None:
        self._keys_BSGK, self._values_BSGK = keys, values
        self.length = 0

    @property
    def n_bytes(self) -> int:
        """The bytes of keys and values, used or not."""
        return self._keys_BSGK.nbytes + self._values_BSGK.nbytes

    @property
    def memory(self) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """The memory of keys and values, used or not."""
        return self._keys_BSGK, self._values_BSGK

    @classmethod
    def with_room(
        cls, *, n_kv_heads: int, head_dim: int, batch_size: int, max_seq_len: int,
        dtype: torch.dtype, device: torch.device | str,
    ) -> "LayerCache":
        """Returns an empty cache for a layer with this many key/value heads."""
        shape = (batch_size, max_seq_len, n_kv_heads, head_dim)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for _ in ("keys", "values")))

    def make_room(self, n_new: int) -> None:
        """Prepares for new tokens. A cache that keeps everything has nothing to prepare."""

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns all keys and values so far, the new ones last: views of the cache, not copies.

        Raises ValueError if `k` needs a gradient, because later tokens change memory that the
        gradient would need.
        """
        refuse_gradient(k)
        start, T = self.length, k.shape[1]
        self.length = start + T
        keys, values = self._keys_BSGK, self._values_BSGK
        keys.narrow(1, start, T).copy_(k)
        values.narrow(1, start, T).copy_(v)
        return keys.narrow(1, 0, self.length), values.narrow(1, 0, self.length)

    def refuse_cut(self, length: int) -> None:
        """Does nothing: a cache that keeps everything can be cut back to any length."""

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on."""
        self.length = length

    def rows(self, rows: Sequence[int], *, span: slice, max_seq_len: int) -> "LayerCache":
        """Returns a new cache with the tokens of `span` in these rows, and room for more."""
        keys, values = self._keys_BSGK, self._values_BSGK
        shape = (len(rows), max_seq_len, *keys.shape[2:])
        new = type(self)(*(torch.zeros(shape, dtype=x.dtype, device=x.device)
                           for x in (keys, values)))
        with torch.inference_mode():
            new.append(keys[rows, span], values[rows, span])
        return new


class KVCache:
    """Room for `max_seq_len` tokens of `batch_size` sequences, in every layer of one config.

    `layers`: one cache per layer, by default a `LayerCache` in `dtype`. `Llama.new_cache` makes all
    of it on the model's device and in the model's dtype. `forgets`: whether a layer may forget
    tokens (`chunk_cache`).
    """

    def __init__(
        self, config: LlamaConfig, *, batch_size: int, max_seq_len: int,
        dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
        layers: Sequence[KeepsTokens] | None = None,
    ) -> None:
        if batch_size < 1 or max_seq_len < 1:
            raise ValueError("a KV cache needs room for at least one token; "
                             f"got batch_size={batch_size}, max_seq_len={max_seq_len}")
        if layers is None:
            layers = [LayerCache.with_room(
                n_kv_heads=config.n_kv_heads, head_dim=config.head_dim, batch_size=batch_size,
                max_seq_len=max_seq_len, dtype=dtype, device=device) for _ in config.layers]
        self.config, self.layers = config, tuple(layers)
        self._positions_BS = torch.arange(max_seq_len, device=device).repeat(batch_size, 1)
        self._documents_BS = torch.zeros(batch_size, max_seq_len, dtype=torch.int64, device=device)
        self._is_plain = True
        self.forgets = any(layer.forgets for layer in self.layers)
        self.batch_size, self.max_seq_len, self.length = batch_size, max_seq_len, 0

    @property
    def n_bytes(self) -> int:
        """The bytes reserved for keys and values, used or not."""
        return sum(layer.n_bytes for layer in self.layers)

    def extend(self, new: Tokens, *, batch_size: int) -> Tokens:
        """Returns all tokens, cached and new, after appending the `new` ones.

        Raises ValueError if they do not fit, or if a layer that forgets would miss tokens that they
        see, because the rows are not one text each.
        """
        stop = self.length + new.positions.shape[1]
        if batch_size != self.batch_size:
            raise ValueError(f"this KV cache was made for a batch of {self.batch_size}; "
                             f"got a batch of {batch_size}")
        if stop > self.max_seq_len:
            raise ValueError(
                f"this KV cache has room for {self.max_seq_len} tokens and holds {self.length}; "
                f"{stop - self.length} more do not fit. "
                "Make a larger one: model.new_cache(max_seq_len=...)")
        if not new.is_plain:
            self._is_plain = False
            documents = 0 if new.documents is None else new.documents
            self._positions_BS[:, self.length : stop] = new.positions
            self._documents_BS[:, self.length : stop] = documents
            if self.forgets:
                self._refuse_several_texts(stop)
        for layer in self.layers:
            layer.make_room(stop - self.length)
        self.length = stop
        return self.tokens

    @property
    def tokens(self) -> Tokens:
        """The positions and documents of all tokens."""
        return Tokens(
            positions=self._positions_BS[:, :self.length],
            documents=None if self._is_plain else self._documents_BS[:, :self.length],
            is_plain=self._is_plain,
        )

    def tokens_in(self, chunk_size: int | None) -> Tokens:
        """Returns the tokens that layers with chunks of this size return from the next `append`."""
        first = 0
        if self.forgets:
            first = max((layer.first for layer, spec in zip(
                self.layers, self.config.layers, strict=True) if spec.chunk_size == chunk_size),
                default=0)
        tokens = self.tokens
        if first == 0:
            return tokens
        documents = None if tokens.documents is None else tokens.documents[:, first:]
        return Tokens(positions=tokens.positions[:, first:], documents=documents, is_plain=False)

    @property
    def token_memory(self) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The memory of positions and documents, used or not."""
        return self._positions_BS, self._documents_BS

    def count(self, n_tokens: int) -> None:
        """Counts tokens that were written to the memory of all layers without `append`."""
        self.length += n_tokens
        for layer in self.layers:
            layer.length += n_tokens

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on, in every layer.

        This includes tokens that an interrupted pass left in only some of the layers.
        Raises ValueError if a layer has forgotten what it needs there. Then nothing has changed.
        """
        for layer in self.layers:
            layer.refuse_cut(length)
        self.length = length
        for layer in self.layers:
            layer.truncate(length)

    def copy(self, rows: Sequence[int], *, max_seq_len: int, start: int = 0) -> "KVCache":
        """Returns a new cache with the tokens of these rows from `start` on.

        It has room for `max_seq_len` tokens.
        """
        span = slice(start, self.length)
        positions_BS, documents_BS = self._positions_BS[rows, span], self._documents_BS[rows, span]
        layers = [layer.rows(rows, span=span, max_seq_len=max_seq_len) for layer in self.layers]
        new = type(self)(self.config, batch_size=len(rows), max_seq_len=max_seq_len,
                      device=positions_BS.device, layers=layers)
        counted_BS = new._positions_BS[:, : positions_BS.shape[1]]
        is_plain = not documents_BS.any() and torch.equal(positions_BS, counted_BS)
        new.extend(Tokens(positions=positions_BS, documents=documents_BS, is_plain=is_plain),
                   batch_size=len(rows))
        return new

    def _refuse_several_texts(self, stop: int) -> None:
        """Raises ValueError unless each new token continues the text of the token before it."""
        start = max(self.length - 1, 0)
        positions, documents = self._positions_BS[:, start:stop], self._documents_BS[:, start:stop]
        is_real = documents != PADDING
        follows = (positions.diff(dim=1) == 1) & (documents.diff(dim=1) == 0)
        if (is_real[:, :-1] & ~(is_real[:, 1:] & follows)).any():
            raise ValueError("a cache that forgets needs rows of one text each, on the right of "
                             "their padding, with positions that count on; got other documents or "
                             "positions. Use model.new_cache(...), which keeps everything")

    def refuse_other(self, config: LlamaConfig) -> None:
        """Raises ValueError unless this cache was made for a model of `config`."""
        if self.config is config or self.config == config:
            return
        differing = ", ".join(f"{name}={getattr(self.config, name)!r:.80}"
                              for name in self.config.__dataclass_fields__
                              if getattr(self.config, name) != getattr(config, name, None))
        raise ValueError(f"a KV cache must be made for this model; got one for a model with "
                         f"{differing}. Make one with model.new_cache(...)")


def refuse_gradient(k: Tensor) -> None:
    """Raises ValueError if keys that are to be cached need a gradient."""
    if k.requires_grad:
        raise ValueError("a KV cache is for inference and keeps no graph; got keys that need a "
                         "gradient. Call the model under torch.inference_mode(), or train without "
                         "a cache")


class Uncached:
    """A layer's cache that keeps nothing. With it, a forward pass without cache needs no branch."""

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B T G K"], Float[Tensor, "B T G K"]]:
        return k, v

"""The KV cache: keys and values of the past, kept because no later token can change them.

Under a causal mask the past never looks at the future, so its keys and values stay as they were; decoding token t then
costs one row of attention instead of t rows. The room is allocated once; a prompt may arrive in pieces of any size.

Notebooks 13 and 16. Bytes per token: 2 L G K times the bytes of a value (`LlamaConfig.kv_bytes_per_token`).
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.mask import Tokens


class LayerCache:
    """The keys and values of one layer: room for `S` tokens, the first `length` of them written."""

    def __init__(self, keys: Float[Tensor, "B S G K"], values: Float[Tensor, "B S G K"]) -> None:
        self._keys_BSGK, self._values_BSGK = keys, values
        self.length = 0
        self.n_bytes = keys.nbytes + values.nbytes

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """All keys and values so far, the new ones last: views of the cache, not copies.

        Raises ValueError where gradients would be needed: the next tokens overwrite the graph's memory.
        """
        if k.requires_grad:
            raise ValueError("a KV cache is for inference and keeps no graph, but these keys need a gradient. "
                             "Call the model under torch.inference_mode(), or train without a cache")
        start, self.length = self.length, self.length + k.shape[1]
        self._keys_BSGK[:, start : self.length] = k
        self._values_BSGK[:, start : self.length] = v
        return self._keys_BSGK[:, : self.length], self._values_BSGK[:, : self.length]


class KVCache:
    """Room for `max_seq_len` tokens of `batch_size` sequences, in every layer of a model of this config."""

    def __init__(
        self, config: LlamaConfig, *, batch_size: int, max_seq_len: int,
        dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1 or max_seq_len < 1:
            raise ValueError("a KV cache needs room for at least one token; "
                             f"got batch_size={batch_size}, max_seq_len={max_seq_len}")
        self._config, shape = config, (batch_size, max_seq_len, config.n_kv_heads, config.head_dim)
        self.layers = tuple(LayerCache(*(torch.zeros(shape, dtype=dtype, device=device) for _ in ("keys", "values")))
                            for _ in config.layers)
        self._positions_BS = torch.arange(max_seq_len, device=device).repeat(batch_size, 1)
        self._documents_BS = torch.zeros(batch_size, max_seq_len, dtype=torch.int64, device=device)
        self._is_plain = True
        self.batch_size, self.max_seq_len, self.length = batch_size, max_seq_len, 0

    @property
    def n_bytes(self) -> int:
        """Bytes reserved for keys and values, whether written yet or not."""
        return sum(layer.n_bytes for layer in self.layers)

    def extend(self, new: Tokens, *, batch_size: int) -> Tokens:
        """Where all tokens stand, cached and new, once the `new` ones are appended. Raises ValueError if they do not fit."""
        stop = self.length + new.positions.shape[1]
        if batch_size != self.batch_size:
            raise ValueError(f"this KV cache was made for a batch of {self.batch_size}; got a batch of {batch_size}")
        if stop > self.max_seq_len:
            raise ValueError(
                f"this KV cache has room for {self.max_seq_len} tokens and holds {self.length}; "
                f"{stop - self.length} more do not fit. Make a larger one: KVCache(config, max_seq_len=...)")
        if not new.is_plain:
            self._is_plain = False
            self._positions_BS[:, self.length : stop] = new.positions
            self._documents_BS[:, self.length : stop] = 0 if new.documents is None else new.documents
        self.length = stop
        return Tokens(
            positions=self._positions_BS[:, :stop],
            documents=None if self._is_plain else self._documents_BS[:, :stop],
            is_plain=self._is_plain,
        )

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on, also those that an interrupted pass left in some layers only."""
        self.length = length
        for layer in self.layers:
            layer.length = length

    def copy(self, rows: Sequence[int], *, max_seq_len: int, start: int = 0) -> "KVCache":
        """A new cache with room for `max_seq_len` tokens, which holds those of these rows from slot `start` on."""
        keys, span = self.layers[0]._keys_BSGK, slice(start, self.length)
        new = KVCache(self._config, batch_size=len(rows), max_seq_len=max_seq_len, dtype=keys.dtype, device=keys.device)
        with torch.inference_mode():
            for ours, theirs in zip(new.layers, self.layers):
                ours.append(theirs._keys_BSGK[rows, span], theirs._values_BSGK[rows, span])
            positions_BS, documents_BS = self._positions_BS[rows, span], self._documents_BS[rows, span]
        new.extend(Tokens(
            positions=positions_BS, documents=documents_BS,
            is_plain=not documents_BS.any() and torch.equal(positions_BS, new._positions_BS[:, : positions_BS.shape[1]]),
        ), batch_size=len(rows))
        return new


class Uncached:
    """The cache that keeps nothing, so that a forward pass without a cache needs no branch: the new tokens are all tokens."""

    length = 0

    @property
    def layers(self) -> Iterator["Uncached"]:
        return itertools.repeat(self)

    def extend(self, new: Tokens, *, batch_size: int) -> Tokens:
        return new

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B T G K"], Float[Tensor, "B T G K"]]:
        return k, v

"""A KV cache whose length is a number on the device, so that every decoding step is the same calls.

The plain cache returns views that grow by a token in each step, with a length that Python knows. A
CUDA graph repeats calls with the shapes and addresses that they were recorded with, so nothing of a
step may depend on such a length. Here, attention always receives the whole memory, and the slot of
the new token, and with it what attention may look at, is computed on the device. It shares the
memory of the plain cache and gives the same results.

Notebook 35.
"""

from collections.abc import Set

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_from_scratch.model.kv_cache import KVCache, LayerCache, refuse_gradient
from llama_from_scratch.model.mask import PADDING, CachedRows, padding_documents


class StaticLayer:
    """The keys and values of one layer; a new token goes to the slot that `slot` has in memory."""

    def __init__(self, layer: LayerCache, slot: Int[Tensor, "1"]) -> None:
        (self._keys_BSGK, self._values_BSGK), self._slot_1 = layer.memory, slot

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns the memory of all keys and values, used or not, with the new ones in it.

        Raises ValueError if `k` needs a gradient.
        """
        refuse_gradient(k)
        self._keys_BSGK.index_copy_(1, self._slot_1, k)
        self._values_BSGK.index_copy_(1, self._slot_1, v)
        return self._keys_BSGK, self._values_BSGK


class StaticCache:
    """The memory of a `KVCache`, for steps of one token per row whose number the device counts.

    Rows are one text each, on the right of their padding, as `generate` makes them. It keeps no
    reference to the cache itself, whose `count` the caller calls after each step. `slot`: where the
    next token goes.
    Raises ValueError for a cache with other rows, or one that forgets tokens.
    """

    def __init__(self, cache: KVCache) -> None:
        if cache.forgets:
            raise ValueError("a static cache keeps every token in its own slot; got a cache that "
                             "forgets (model.chunk_cache). Decode with model.hidden(...), or use "
                             "model.new_cache(...)")
        tokens, length = cache.tokens, cache.length
        self._positions_BS, self._documents_BS = cache.token_memory
        device, B = self._positions_BS.device, cache.batch_size
        self._starts_B1 = torch.zeros(B, 1, dtype=torch.int64, device=device)
        self._is_padded = not tokens.is_plain
        if self._is_padded:
            documents_BS = tokens.documents
            self._starts_B1 = (documents_BS == PADDING).sum(1, keepdim=True)
            lengths_B = length - self._starts_B1[:, 0]
            counted_BS = torch.arange(length, device=device) - self._starts_B1
            if not (torch.equal(documents_BS, padding_documents(lengths_B, width=length))
                    and torch.equal(tokens.positions, counted_BS.clamp(min=0))):
                raise ValueError("a static cache needs rows of one text each, on the right of "
                                 "their padding; got other documents or positions. Decode with "
                                 "model.hidden(...), which takes any")
        self.slot = torch.tensor([length], device=device)
        self._starts_B = self._starts_B1[:, 0].int().contiguous()
        self.layers = tuple(StaticLayer(layer, self.slot) for layer in cache.layers)
        self._n_slots = cache.max_seq_len

    def extend(
        self, chunk_sizes: Set[int | None]
    ) -> tuple[Int[Tensor, "B 1"], dict[int | None, CachedRows]]:
        """Returns each row's next position, and what the token there sees, for each chunk size."""
        positions_B1 = self.slot - self._starts_B1
        if self._is_padded:
            self._positions_BS.index_copy_(1, self.slot, positions_B1)
            self._documents_BS.index_fill_(1, self.slot, 0)
        lengths_B = (self.slot + 1).int().repeat(len(self._starts_B))
        visible = {size: CachedRows(starts=self._starts_B, lengths=lengths_B,
                                    n_slots=self._n_slots, chunk_size=size) for size in chunk_sizes}
        return positions_B1, visible

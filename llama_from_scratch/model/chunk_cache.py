"""A KV cache that forgets what no later token can see.

A layer with chunks of C tokens never looks further back than C tokens, so a cache for it needs no
more room than that, however long the text is. Layers without chunks keep everything. Logits are the
same as with the plain cache.

A layer keeps the last C - 1 tokens at least. Chunks begin at other slots in rows that are padded on
the left, so no row could do with fewer. Some slots more make forgetting cheap: the kept tokens are
moved to the front only when those slots are used up.

Notebook 24. Llama 4.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.model.kv_cache import KVCache, LayerCache, refuse_gradient
from llama_from_scratch.model.transformer import Llama

SPARE = 8
"""A layer has one spare slot for this many slots that it needs."""


class ChunkCache:
    """The keys and values of a layer with chunks: the tokens from slot `first` to `length`."""

    forgets = True

    def __init__(
        self, keys: Float[Tensor, "B S G K"], values: Float[Tensor, "B S G K"], *, chunk_size: int
    ) -> None:
        self._keys_BSGK, self._values_BSGK, self._n_needed = keys, values, chunk_size - 1
        self.first = self.length = 0

    @classmethod
    def like(cls, plain: LayerCache, *, chunk_size: int, max_seq_len: int) -> "ChunkCache":
        """Returns an empty cache with the shape and dtype of a plain one, with less room.

        `max_seq_len`: of the text. The plain one may have room for a single token.
        """
        n_slots = min(max_seq_len, chunk_size + chunk_size // SPARE + 1)
        keys, values = (x.new_zeros(x.shape[0], n_slots, *x.shape[2:]) for x in plain.memory)
        return cls(keys, values, chunk_size=chunk_size)

    @property
    def memory(self) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """The memory of keys and values, used or not."""
        return self._keys_BSGK, self._values_BSGK

    @property
    def n_bytes(self) -> int:
        """The bytes of keys and values, used or not."""
        return self._keys_BSGK.nbytes + self._values_BSGK.nbytes

    def make_room(self, n_new: int) -> None:
        """Forgets the oldest tokens if this many new ones do not fit; never one that is needed."""
        n_kept, n_slots = self.length - self.first, self._keys_BSGK.shape[1]
        n_left = min(n_kept, self._n_needed)
        if n_kept + n_new <= n_slots or n_left == n_kept:
            return
        for memory in (self._keys_BSGK, self._values_BSGK):
            kept = memory[:, n_kept - n_left : n_kept]
            # Source and target may overlap, which copy_ does not allow.
            memory[:, :n_left] = kept.clone() if 2 * n_left > n_kept else kept
        self.first = self.length - n_left

    def append(
        self, k: Float[Tensor, "B T G K"], v: Float[Tensor, "B T G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns all keys and values from slot `first` on, the new ones last.

        They are views of the cache if they fit into it; otherwise only the last of them stay.
        Raises ValueError if `k` needs a gradient.
        """
        refuse_gradient(k)
        n_kept, T, n_slots = self.length - self.first, k.shape[1], self._keys_BSGK.shape[1]
        self.length += T
        if n_kept + T <= n_slots:
            self._keys_BSGK[:, n_kept : n_kept + T] = k
            self._values_BSGK[:, n_kept : n_kept + T] = v
            return self._keys_BSGK[:, : n_kept + T], self._values_BSGK[:, : n_kept + T]
        keys = torch.cat([self._keys_BSGK[:, :n_kept], k], dim=1)
        values = torch.cat([self._values_BSGK[:, :n_kept], v], dim=1)
        self._keys_BSGK[:, : self._n_needed] = keys[:, keys.shape[1] - self._n_needed :]
        self._values_BSGK[:, : self._n_needed] = values[:, values.shape[1] - self._n_needed :]
        self.first = self.length - self._n_needed
        return keys, values

    def refuse_cut(self, length: int) -> None:
        """Raises ValueError if a token that may be needed from `length` on is forgotten already."""
        if 0 < self.first > length - self._n_needed:
            raise ValueError("a cache that forgets can only be cut back to where it still has the "
                             f"{self._n_needed} tokens before, which is from token "
                             f"{self.first + self._n_needed} on; got {length}. Read the text "
                             "again, or use model.new_cache(...), which keeps everything")

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on. Raises ValueError as `refuse_cut` does."""
        self.refuse_cut(length)
        self.length = length

    def rows(self, rows: Sequence[int], *, span: slice, max_seq_len: int) -> "ChunkCache":
        """Returns a new cache with the tokens of `span` in these rows, for a text of this length.

        Of the tokens before, it keeps what this cache keeps.
        """
        kept = slice(max(0, span.start - self.first), span.stop - self.first)
        parts = [x[rows, kept] for x in self.memory]
        new = type(self).like(LayerCache(*parts), chunk_size=self._n_needed + 1,
                              max_seq_len=max_seq_len)
        with torch.inference_mode():
            for target, part in zip(new.memory, parts, strict=True):
                target[:, : part.shape[1]] = part
        new.first, new.length = max(0, self.first - span.start), span.stop - span.start
        return new


def forgetful_cache(
    model: Llama, *, batch_size: int, max_seq_len: int, dtype: torch.dtype | None = None
) -> KVCache:
    """Returns an empty KV cache whose layers with chunks forget; arguments as of `new_cache`.

    Each row must be one text, on the right of its padding. The cache can be cut back only by a
    little (`ChunkCache.truncate`), and CUDA graphs cannot use it.
    Raises ValueError for a model without chunks, which has nothing to forget.
    """
    sizes = [spec.chunk_size for spec in model.config.layers]
    if not any(sizes):
        raise ValueError("only layers with chunks can forget; this model has none. Use "
                         "model.new_cache(...)")
    room = dict(batch_size=batch_size, device=model.device,
                dtype=model.dtype if dtype is None else dtype)
    layers = []
    for block, size in zip(model.layers, sizes, strict=True):
        plain = block.new_cache(**room, max_seq_len=max_seq_len if size is None else 1)
        layers.append(plain if size is None else ChunkCache.like(
            plain, chunk_size=size, max_seq_len=max_seq_len))
    return model.cache_type(model.config, batch_size=batch_size, max_seq_len=max_seq_len,
                            device=model.device, layers=layers)

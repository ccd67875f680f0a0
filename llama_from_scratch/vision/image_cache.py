"""The keys and values of images, computed once and kept next to the text's.

The images of a row stay the same while its text grows. So each cross-attention projects an image
once, when the text that shows it is read. A `VisionKVCache` also remembers which images each token
of the text sees: it can be truncated to any length, and rows can leave it.

Notebook 22. Bytes per image: 2 J n G K per cross-attention block, times the bytes of a value.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.kv_cache import KVCache, LayerCache
from llama_from_scratch.vision.image_mask import Before, ImageSlots, Sight, nothing_before


class ImageCache:
    """The keys and values of all images so far, in one cross-attention block.

    Each image has a slot with the same number of image tokens.
    """

    def __init__(self) -> None:
        self._keys_BSGK: Tensor | None = None
        self._values_BSGK: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        return 0 if self._keys_BSGK is None else self._keys_BSGK.nbytes + self._values_BSGK.nbytes

    def append(
        self, k: Float[Tensor, "B new G K"], v: Float[Tensor, "B new G K"]
    ) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns the keys and values of all images so far, the new ones last.

        Raises ValueError if `k` needs a gradient.
        """
        if k.requires_grad:
            raise ValueError("a KV cache is for inference and keeps no graph; got keys of images "
                             "that need a gradient. Call the model under torch.inference_mode(), "
                             "or train without a cache")
        if self._keys_BSGK is not None:
            k, v = torch.cat([self._keys_BSGK, k], dim=1), torch.cat([self._values_BSGK, v], dim=1)
        # The image tokens of a head next to each other in memory: read once a token, written once.
        k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
        self._keys_BSGK, self._values_BSGK = k, v
        return k, v

    def all(self) -> tuple[Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
        """Returns the keys and values of all images so far."""
        return self._keys_BSGK, self._values_BSGK

    def select(self, slots: Sequence[int], *, n_tokens: int) -> None:
        """Forgets all images but those in `slots`; a slot has `n_tokens` image tokens."""
        if not slots:
            self._keys_BSGK = self._values_BSGK = None
            return
        first_I1 = torch.tensor(slots, device=self._keys_BSGK.device)[:, None] * n_tokens
        at_S = (first_I1 + torch.arange(n_tokens, device=first_I1.device)).flatten()
        with torch.inference_mode():
            self._keys_BSGK = self._keys_BSGK[:, at_S]
            self._values_BSGK = self._values_BSGK[:, at_S]

    def rows(self, rows: Sequence[int]) -> "ImageCache":
        """Returns a new cache with the images of these rows."""
        new = ImageCache()
        if self._keys_BSGK is not None:
            with torch.inference_mode():
                new._keys_BSGK, new._values_BSGK = self._keys_BSGK[rows], self._values_BSGK[rows]
        return new


class LayerCacheWithImages(LayerCache):
    """The keys and values of a layer's text, and in `images` of the block before the layer."""

    def __init__(self, keys: Float[Tensor, "B S G K"], values: Float[Tensor, "B S G K"]) -> None:
        super().__init__(keys, values)
        self.images = ImageCache()

    @classmethod
    def next_to(cls, text: LayerCache) -> "LayerCacheWithImages":
        """Returns a cache that holds an empty text cache's memory, and room for images."""
        return cls(text._keys_BSGK, text._values_BSGK)

    @property
    def n_bytes(self) -> int:
        return super().n_bytes + self.images.n_bytes

    def rows(
        self, rows: Sequence[int], *, span: slice, max_seq_len: int
    ) -> "LayerCacheWithImages":
        new = super().rows(rows, span=span, max_seq_len=max_seq_len)
        new.images = self.images.rows(rows)
        return new


class VisionKVCache(KVCache):
    """A `KVCache` whose sequences may hold images. `VisionLlama.new_cache` makes it.

    `slots`: which images the layers' caches hold, or will hold after the pass that has begun.
    """

    def __init__(
        self, config: LlamaConfig, *, batch_size: int, max_seq_len: int,
        dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
        layers: Sequence[LayerCache] | None = None,
    ) -> None:
        super().__init__(config, batch_size=batch_size, max_seq_len=max_seq_len, dtype=dtype,
                         device=device, layers=layers)
        self._first_BS, self._end_BS = (torch.zeros(
            batch_size, max_seq_len, dtype=torch.int64, device=device) for _ in range(2))
        self.slots = ImageSlots.none(batch_size, device=device)

    @property
    def has_images(self) -> bool:
        return self.slots.numbers.shape[1] > 0

    @property
    def before(self) -> Before:
        """What comes before the next token."""
        last, end_BS = self.length - 1, self._end_BS
        if last < 0:
            return nothing_before(self.batch_size, device=end_BS.device)
        earlier_B1 = end_BS[:, last - 1 : last] if last else torch.zeros_like(end_BS[:, :1])
        end_B1 = end_BS[:, last : last + 1]
        return Before(first=self._first_BS[:, last : last + 1], end=end_B1,
                      is_image=end_B1 > earlier_B1,
                      documents=self._documents_BS[:, last : last + 1])

    def add_sight(self, new: Sight) -> None:
        """Remembers what the newest tokens see, after `extend` has made room for them."""
        span = slice(self.length - new.end.shape[1], self.length)
        self._first_BS[:, span], self._end_BS[:, span] = new.first, new.end

    def truncate(self, length: int) -> None:
        """Forgets all tokens from `length` on, and the images that no earlier token refers to."""
        super().truncate(length)
        self._first_BS[:, length:] = self._end_BS[:, length:] = 0
        if self.has_images:
            numbers, n_tiles = self.slots.numbers, self.slots.n_tiles
            self.slots = ImageSlots(
                numbers=torch.where(numbers < self.before.end, numbers, -1), n_tiles=n_tiles)
            self._drop_empty_slots()

    def copy(self, rows: Sequence[int], *, max_seq_len: int, start: int = 0) -> "VisionKVCache":
        """Returns a new cache with the tokens of these rows from `start` on, and their images."""
        new = super().copy(rows, max_seq_len=max_seq_len, start=start)
        span = slice(start, self.length)
        new.add_sight(Sight(first=self._first_BS[rows, span], end=self._end_BS[rows, span]))
        new.slots = self.slots.rows(rows)
        new._drop_empty_slots()
        return new

    def _drop_empty_slots(self) -> None:
        """Forgets the slots that are padding in every row."""
        is_used = (self.slots.numbers >= 0).any(0).tolist()
        kept = [slot for slot, used in enumerate(is_used) if used]
        if len(kept) == len(is_used):
            return
        self.slots = self.slots.select(kept)
        n_tokens = self.config.vision.max_tiles * self.config.vision.n_tokens
        for layer in self.layers:
            if isinstance(layer, LayerCacheWithImages):
                layer.images.select(kept, n_tokens=n_tokens)

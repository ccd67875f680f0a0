"""The rows that share a forward pass: pads prompts to one length, and removes rows that have ended.

Padding is on the left, so that all rows continue at the same slot. It is a document of its own,
which no real token attends to. A row's text does not depend on the other rows.

Notebook 16.
"""

import dataclasses
from collections.abc import Sequence, Set

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import padding_documents
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.shown_images import ShownImages


@dataclasses.dataclass(eq=False)
class DecodingBatch:
    """What goes through the model next: row i has ids of prompt `rows[i]` that are not cached yet.

    Without padding, `positions` and `documents` are None, because kernels are faster without a
    mask. `seen` marks the ids that occurred in each row; None if it is not needed. `images`: those
    that are not cached yet.
    """

    config: LlamaConfig
    rows: list[int]
    ids: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"] | None
    documents: Int[Tensor, "B T"] | None
    seen: Bool[Tensor, "B V"] | None
    cache: KVCache
    images: ShownImages | None = None

    def logits(self, model: Llama) -> Float[Tensor, "B V"]:
        """Returns the logits after the newest ids, in fp32; the ids are cached afterward."""
        tokens = dict(positions=self.positions, documents=self.documents, cache=self.cache)
        if self.images is None:
            return model.next_logits(model, self.ids, **tokens)
        hidden_BTD = model.hidden(self.ids, images=self.images, **tokens)
        return model.output(hidden_BTD[:, -1]).float()

    def append(self, next_ids: Int[Tensor, "B"]) -> None:
        """Appends one id to each row."""
        self.ids, self.images = next_ids[:, None], None
        if self.seen is not None:
            self.seen.scatter_(1, self.ids, True)
        if self.positions is not None:
            self.positions, self.documents = self.positions[:, -1:] + 1, torch.zeros_like(self.ids)

    def drop(self, live: Set[int], *, texts: Sequence[Sequence[int]], ends: Sequence[int]) -> None:
        """Removes rows that are not `live` once they are half of the batch or the cache is full.

        Waiting for half of them keeps copying cheap: all copies together are smaller than the first
        cache. If the cache is full, every live row begins with padding, because no text is longer
        than the context. The copy leaves that padding out.
        """
        is_full = self.cache.length == self.cache.max_seq_len
        if not live or (2 * len(live) > len(self.rows) and not is_full):
            return
        kept = [i for i, b in enumerate(self.rows) if b in live]
        self.rows = [self.rows[i] for i in kept]
        lengths = [len(texts[b]) - 1 for b in self.rows]  # the newest id is not in the cache yet
        room = max(lengths) + max(ends[b] - len(texts[b]) for b in self.rows)
        room = min(room, self.config.max_seq_len)
        self.cache = self.cache.copy(kept, start=self.cache.length - max(lengths), max_seq_len=room)
        self.ids = self.ids[kept]
        if self.seen is not None:
            self.seen = self.seen[kept]
        if min(lengths) == max(lengths):
            self.positions = self.documents = None
        else:
            self.positions, self.documents = self.positions[kept], self.documents[kept]


def batch_of(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int, has_seen: bool,
    cache: KVCache | None, images: ShownImages | None = None,
) -> DecodingBatch:
    """Returns all prompts as one batch, with room for `max_tokens` more within the context.

    `cache` may hold the beginning of a single prompt; then `images` are only the rest's.
    """
    device = model.device
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths_B.max())
    ids_BT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts],
                          device=device)
    is_padded = bool((lengths_B < width).any())
    seen_BV = _occurring(
        ids_BT, width - lengths_B, vocab_size=model.config.vocab_size) if has_seen else None
    if cache is None:
        room = min(width + max_tokens, model.config.max_seq_len)
        cache = model.new_cache(batch_size=len(prompts), max_seq_len=room)
    return DecodingBatch(
        config=model.config,
        rows=list(range(len(prompts))),
        ids=ids_BT[:, cache.length :],
        positions=(torch.arange(width, device=device)
                   - (width - lengths_B)[:, None]).clamp(min=0) if is_padded else None,
        documents=padding_documents(lengths_B, width=width) if is_padded else None,
        seen=seen_BV,
        cache=cache,
        images=images,
    )


def _occurring(ids_BT: Tensor, first_B: Tensor, *, vocab_size: int) -> Bool[Tensor, "B V"]:
    """Returns which ids occur in each row from its first real token on.

    Ids of images are after the vocabulary, and no model writes them.
    """
    seen_BV = torch.zeros(len(ids_BT), vocab_size, dtype=torch.bool, device=ids_BT.device)
    for row, ids, first in zip(seen_BV, ids_BT, first_B.tolist(), strict=True):
        real = ids[first:]
        row[real[real < vocab_size]] = True
    return seen_BV

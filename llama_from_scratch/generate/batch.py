"""The rows that share a forward pass: padded to one length, and dropped when they are complete.

Padding is on the left, so that all rows continue at the same slot; it is a document of its own,
which no real token attends to. What a row writes does not depend on the others.

Notebook 16.
"""

import dataclasses
from collections.abc import Sequence, Set

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.mask import padding_documents
from llama_from_scratch.model.transformer import Llama


@dataclasses.dataclass(eq=False)
class Batch:
    """What goes through the model next.

    Row i holds the ids of prompt `rows[i]` that are not in the cache yet. `positions` and
    `documents` are None where nothing is padded, because kernels are faster without a mask.
    `seen`: which ids occurred in a row; None if nothing depends on it.
    """

    config: LlamaConfig
    rows: list[int]
    ids: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"] | None
    documents: Int[Tensor, "B T"] | None
    seen: Bool[Tensor, "B V"] | None
    cache: KVCache

    def append(self, next_ids: Int[Tensor, "B"]) -> None:
        """Each row continues with one id."""
        self.ids = next_ids[:, None]
        if self.seen is not None:
            self.seen.scatter_(1, self.ids, True)
        if self.positions is not None:
            self.positions, self.documents = self.positions[:, -1:] + 1, torch.zeros_like(self.ids)

    def drop(self, live: Set[int], *, texts: Sequence[Sequence[int]], ends: Sequence[int]) -> None:
        """Removes the rows of prompts that are not `live`.

        It waits until they are half of the batch, or the cache is full. Waiting for half keeps
        copying cheap: all copies together are smaller than the first cache. A full cache begins
        with padding in every live row, because no text is longer than the context; the copy is made
        without it.
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
    cache: KVCache | None,
) -> Batch:
    """All prompts in one batch, with room for `max_tokens` more, at most the model's context.

    `cache` may hold the beginning of a single prompt.
    """
    device = model.device
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths_B.max())
    ids_BT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts],
                          device=device)
    n_padding_B = width - lengths_B
    positions_BT = documents_BT = seen_BV = None
    if (lengths_B < width).any():
        positions_BT = torch.arange(width, device=device) - n_padding_B[:, None]
        positions_BT = positions_BT.clamp(min=0)
        documents_BT = padding_documents(lengths_B, width=width)
    if has_seen:
        seen_BV = _occurring(ids_BT, n_padding_B, vocab_size=model.config.vocab_size)
    if cache is None:
        room = min(width + max_tokens, model.config.max_seq_len)
        cache = model.new_cache(batch_size=len(prompts), max_seq_len=room)
    return Batch(
        config=model.config, rows=list(range(len(prompts))), ids=ids_BT[:, cache.length :],
        positions=positions_BT, documents=documents_BT, seen=seen_BV, cache=cache,
    )


def _occurring(ids_BT: Tensor, first_B: Tensor, *, vocab_size: int) -> Bool[Tensor, "B V"]:
    """Which ids occur in each row from its first real token on."""
    seen_BV = torch.zeros(len(ids_BT), vocab_size, dtype=torch.bool, device=ids_BT.device)
    for row, ids, first in zip(seen_BV, ids_BT, first_B.tolist(), strict=True):
        row[ids[first:]] = True
    return seen_BV

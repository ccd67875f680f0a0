"""Masks: which earlier tokens a token may see, by their order, positions and document numbers.

Every rule compares one number of the query with one number of the key. So the same function works
for a whole prompt, for one decoded token with a cache, and for packed or padded batches. True means
that the query may see the key.

Notebook 13. Causal: every Llama. Document: Llama 3 pre-training (arXiv:2407.21783, section 3.2).
Chunked: Llama 4.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llama_from_scratch.config import record

PADDING = -1
"""The document number of padding. Real tokens never see padding; padding sees only padding."""


def causal_mask(
    n_queries: int, n_keys: int, *, device: torch.device | str = "cpu"
) -> Bool[Tensor, "1 T S"]:
    """Returns True for each token itself and the keys before it. The queries are the last keys."""
    everything = torch.ones(1, n_queries, n_keys, dtype=torch.bool, device=device)
    return everything.tril(n_keys - n_queries)


def document_mask(
    query_documents: Int[Tensor, "B T"], key_documents: Int[Tensor, "B S"]
) -> Bool[Tensor, "B T S"]:
    """Returns True where key and query have the same document number.

    So stories that share a row do not see each other.
    """
    return key_documents[:, None, :] == query_documents[:, :, None]


def chunk_mask(
    query_positions: Int[Tensor, "B T"], key_positions: Int[Tensor, "B S"], *, chunk_size: int
) -> Bool[Tensor, "B T S"]:
    """Returns True where key and query are in the same chunk of `chunk_size` positions.

    Chunks are counted from position 0.
    """
    return key_positions[:, None, :] // chunk_size == query_positions[:, :, None] // chunk_size


def padding_documents(lengths: Int[Tensor, "B"], *, width: int) -> Int[Tensor, "B T"]:
    """Returns the document numbers of rows that are padded on the left to `width`.

    Row b is PADDING, followed by 0 for its `lengths[b]` tokens.
    """
    is_real_BT = torch.arange(width, device=lengths.device) >= (width - lengths)[:, None]
    return torch.where(is_real_BT, 0, PADDING)


@record
class Tokens:
    """The positions and documents of tokens. B may be 1 when all sequences share the numbers.

    `documents`: None means one document and no padding. `is_plain`: the positions along S are
    0, 1, 2, ... without a gap.
    """

    positions: Int[Tensor, "B S"]
    documents: Int[Tensor, "B S"] | None
    is_plain: bool


def plain_tokens(n_tokens: int, *, device: torch.device | str = "cpu") -> Tokens:
    """Returns one document of `n_tokens`, from position 0 on."""
    positions = torch.arange(n_tokens, device=device)[None]
    return Tokens(positions=positions, documents=None, is_plain=True)


@record
class TokenGroups:
    """Which tokens share a document and a chunk, so that only their order decides what they see.

    `number`: equal for two tokens if and only if they belong to one group. `first`, `last`: the
    smallest and largest index along S in a token's group, whose tokens need not be neighbors.
    """

    number: Int[Tensor, "B S"]
    first: Int[Tensor, "B S"]
    last: Int[Tensor, "B S"]

    @classmethod
    def of(cls, *parts: Int[Tensor, "#B S"]) -> "TokenGroups":
        """Returns the groups of tokens that agree in all parts, without waiting for the device."""
        parts = torch.broadcast_tensors(*parts)
        order = torch.arange(parts[0].shape[1], device=parts[0].device).expand(parts[0].shape)
        for part in parts:
            order = order.gather(1, part.gather(1, order).argsort(dim=1, stable=True))
        # In this order the tokens of a group are neighbors, and their indices ascend.
        is_new = torch.zeros_like(order, dtype=torch.bool)
        for part in parts:
            is_new[:, 1:] |= part.gather(1, order).diff(dim=1) != 0
        rank = is_new.cumsum(1)
        first = order.gather(1, torch.searchsorted(rank, rank))
        last = order.gather(1, torch.searchsorted(rank, rank, right=True) - 1)
        back = order.argsort(dim=1)
        return cls(number=rank.gather(1, back), first=first.gather(1, back).int(),
                   last=last.gather(1, back).int())


@runtime_checkable
class VisibleRule(Protocol):
    """What attention may look at, in the form that its leaf reads: `Visible`, or `CachedRows`.

    A part that exchanges the leaf may have a form of its own (`model.visibility`).
    """

    chunk_size: int | None


@record
class Visible:
    """What attention may look at, as a rule. Keys are `tokens`; the last `n_queries` are queries.

    A query sees itself and the keys before it that are in its own document. With a `chunk_size`, it
    sees only its own chunk of that many positions. Kernels read these fields to apply the rule.
    `mask` and `groups` are computed at their first use and kept.
    """

    tokens: Tokens
    n_queries: int
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        # Not functools.cached_property, whose lock torch.compile cannot trace.
        object.__setattr__(self, "_kept", [])
        object.__setattr__(self, "_kept_groups", [])
        object.__setattr__(self, "_is_plain", self.tokens.is_plain and (
            self.chunk_size is None or self.shape[1] <= self.chunk_size))

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys: (T, S)."""
        return self.n_queries, self.tokens.positions.shape[1]

    @property
    def is_everything(self) -> bool:
        """Whether there is one query that sees all keys, so that no mask is needed."""
        return self._is_plain and self.n_queries == 1

    @property
    def is_causal(self) -> bool:
        """Whether all tokens are queries and only their order counts, so that no mask is needed."""
        return self._is_plain and 1 < self.n_queries == self.tokens.positions.shape[1]

    @property
    def mask(self) -> Bool[Tensor, "B 1 T S"] | None:
        """True where a query may see a key; None if `is_causal` or `is_everything` is enough."""
        if self.is_causal or self.is_everything:
            return None
        if not self._kept:
            self._kept.append(self._dense())
        return self._kept[0]

    @property
    def groups(self) -> TokenGroups | None:
        """The groups of the tokens, documents and chunks; None if only their order counts.

        Query i then sees key j if j <= i + S - T and their groups are equal.
        """
        tokens = self.tokens
        has_chunks = self.chunk_size is not None and not self._is_plain
        parts = [] if tokens.documents is None else [tokens.documents]
        parts += [tokens.positions // self.chunk_size] if has_chunks else []
        if parts and not self._kept_groups:
            self._kept_groups.append(TokenGroups.of(*parts))
        return self._kept_groups[0] if parts else None

    def _dense(self) -> Bool[Tensor, "B 1 T S"]:
        tokens, (T, S) = self.tokens, self.shape
        mask_BTS = causal_mask(T, S, device=tokens.positions.device)
        if tokens.documents is not None:
            mask_BTS = mask_BTS & document_mask(tokens.documents[:, -T:], tokens.documents)
        if self.chunk_size is not None:
            mask_BTS = mask_BTS & chunk_mask(tokens.positions[:, -T:], tokens.positions,
                                             chunk_size=self.chunk_size)
        return mask_BTS[:, None]


@record
class CachedRows:
    """What the newest token of each cache row sees, if only the device knows how many there are.

    Row b has its tokens in the slots from `starts[b]` on; padding comes before. The newest of them
    is in the slot before `lengths[b]`, and is the query. With a `chunk_size`, it sees only its own
    chunk of that many tokens. `n_slots`: the slots of the cache, used or not. Both are int32.
    """

    starts: Int[Tensor, "B"]
    lengths: Int[Tensor, "B"]
    n_slots: int
    chunk_size: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys: (1, n_slots)."""
        return 1, self.n_slots

    @property
    def is_causal(self) -> bool:
        return False

    @property
    def mask(self) -> Bool[Tensor, "B 1 T S"]:
        """True in the slots that the newest token sees."""
        slots_S = torch.arange(self.n_slots, device=self.lengths.device)
        first_B1, newest_B1 = self.starts[:, None], self.lengths[:, None] - 1
        if self.chunk_size is not None:
            first_B1 = newest_B1 - (newest_B1 - first_B1) % self.chunk_size
        return ((slots_S >= first_B1) & (slots_S <= newest_B1))[:, None, None]


@record
class GivenMask:
    """A mask of any pattern, such as a prefix that all tokens see; `Visible` cannot express it."""

    mask: Bool[Tensor, "B 1 T S"]

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys: (T, S)."""
        return self.mask.shape[2], self.mask.shape[3]

    @property
    def is_causal(self) -> bool:
        return False


@record
class Everything:
    """Every query sees every key, so that no mask is needed."""

    @property
    def mask(self) -> None:
        return None

    @property
    def is_causal(self) -> bool:
        return False

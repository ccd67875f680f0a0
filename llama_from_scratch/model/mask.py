"""Masks: which earlier tokens a token may look at, decided from their order, positions and document numbers alone.

Every rule compares one number of the query with one number of the key, so the same function serves a whole prompt, one
decoded token against a cache, and packed or padded batches. True means "may be seen".

Notebook 13. Causal: every Llama. Document: Llama 3 pre-training (arXiv:2407.21783, section 3.2). Chunked: Llama 4.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llama_from_scratch.config import record

PADDING = -1
"""The document number of padding: real tokens never see it, and it sees only other padding."""


def causal_mask(n_queries: int, n_keys: int, *, device: torch.device | str = "cpu") -> Bool[Tensor, "1 T S"]:
    """A token sees itself and the keys before it. The queries are the last `n_queries` of the keys."""
    return torch.ones(1, n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def document_mask(query_documents: Int[Tensor, "B T"], key_documents: Int[Tensor, "B S"]) -> Bool[Tensor, "B T S"]:
    """A token sees only keys with its own document number: stories packed into one row do not read each other."""
    return key_documents[:, None, :] == query_documents[:, :, None]


def chunk_mask(
    query_positions: Int[Tensor, "B T"], key_positions: Int[Tensor, "B S"], *, chunk_size: int
) -> Bool[Tensor, "B T S"]:
    """A token sees only keys of its own chunk, `chunk_size` positions wide, counted from position 0."""
    return key_positions[:, None, :] // chunk_size == query_positions[:, :, None] // chunk_size


def padding_documents(lengths: Int[Tensor, "B"], *, width: int) -> Int[Tensor, "B T"]:
    """Document numbers of rows padded on the left to `width`: PADDING, then 0 for the last `lengths[b]` tokens."""
    is_real_BT = torch.arange(width, device=lengths.device) >= (width - lengths)[:, None]
    return torch.where(is_real_BT, 0, PADDING)


@record
class Visible:
    """What attention may look at: an explicit mask, or the two cases that need none, which kernels run fastest.

    `mask` None and `is_causal` True: the T queries are the whole sequence, each sees itself and what is before it.
    `mask` None and `is_causal` False: every query sees every key.
    """

    mask: Bool[Tensor, "B 1 T S"] | None
    is_causal: bool


@record
class Tokens:
    """Where the tokens of an attention call stand. The batch axis may be 1 when all sequences share the numbers.

    `documents` None: one document, no padding. `is_plain`: positions count 0, 1, 2, ... along S with nothing left out.
    """

    positions: Int[Tensor, "B S"]
    documents: Int[Tensor, "B S"] | None
    is_plain: bool


def visible(tokens: Tokens, *, n_queries: int, chunk_size: int | None) -> Visible:
    """Who sees whom under every rule at once. `tokens` are the keys; the last `n_queries` of them are the queries."""
    S = tokens.positions.shape[1]
    is_one_chunk = chunk_size is None or S <= chunk_size
    if tokens.is_plain and is_one_chunk and n_queries in (1, S):
        return Visible(mask=None, is_causal=n_queries > 1)
    mask_BTS = causal_mask(n_queries, S, device=tokens.positions.device)
    if tokens.documents is not None:
        mask_BTS = mask_BTS & document_mask(tokens.documents[:, -n_queries:], tokens.documents)
    if chunk_size is not None:
        mask_BTS = mask_BTS & chunk_mask(tokens.positions[:, -n_queries:], tokens.positions, chunk_size=chunk_size)
    return Visible(mask=mask_BTS[:, None], is_causal=False)

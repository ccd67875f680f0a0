"""Common mistakes of readers in chapter 45."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the rank of a token -----------------------------------------------------------------------


@listed("45.1", of="rank_of")
def contiguous(place: int, seq_len: int, n_ranks: int) -> int:
    """this is the contiguous cut, in which each rank has one long piece"""
    return place // (seq_len // n_ranks)


@listed("45.1", of="rank_of")
def number_of_the_piece(place: int, seq_len: int, n_ranks: int) -> int:
    """this is the number of the piece, and there are twice as many pieces as ranks"""
    return place // (seq_len // (2 * n_ranks))


@listed("45.1", of="rank_of")
def round_again(place: int, seq_len: int, n_ranks: int) -> int:
    """the second half is dealt out from rank 0 again, but it goes back from the last rank"""
    return place // (seq_len // (2 * n_ranks)) % n_ranks


@listed("45.1", of="rank_of")
def one_too_far(place: int, seq_len: int, n_ranks: int) -> int:
    """piece p of the second half goes to rank 2 n - p, which is one too far"""
    piece = place // (seq_len // (2 * n_ranks))
    return piece if piece < n_ranks else 2 * n_ranks - piece


# --- 2: pairs in a step of the ring ---------------------------------------------------------------


@listed("45.2", of="pairs_of_step")
def without_documents(
    places: Sequence[int], key_places: Sequence[int], documents: Sequence[int]
) -> int:
    """pairs of different documents count as well"""
    return sum(s <= t for t in places for s in key_places)


@listed("45.2", of="pairs_of_step")
def without_itself(
    places: Sequence[int], key_places: Sequence[int], documents: Sequence[int]
) -> int:
    """a token does not see itself here, but its own key counts"""
    return sum(documents[t] == documents[s] and s < t for t in places for s in key_places)


@listed("45.2", of="pairs_of_step")
def by_order_on_the_rank(
    places: Sequence[int], key_places: Sequence[int], documents: Sequence[int]
) -> int:
    """the order on the ranks is compared, and not the places in the row"""
    return sum(documents[t] == documents[s] and j <= i for i, t in enumerate(places)
               for j, s in enumerate(key_places))


@listed("45.2", of="pairs_of_step")
def keys_see_queries(
    places: Sequence[int], key_places: Sequence[int], documents: Sequence[int]
) -> int:
    """queries and keys are exchanged: these are the pairs with a later key"""
    return sum(documents[t] == documents[s] and s >= t for t in places for s in key_places)


@listed("45.2", of="pairs_of_step")
def everything_in_a_document(
    places: Sequence[int], key_places: Sequence[int], documents: Sequence[int]
) -> int:
    """later keys count as well: the order is not asked"""
    return sum(documents[t] == documents[s] for t in places for s in key_places)


# --- 3: merging -----------------------------------------------------------------------------------


@listed("45.3", of="merge_all")
def mean_of_blocks(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """all blocks count equally, whatever their lse"""
    return torch.stack(list(outs)).mean(0)


@listed("45.3", of="merge_all")
def without_the_largest(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """the largest lse is not subtracted, so large scores overflow"""
    weights = torch.stack(list(lses)).exp()
    return (weights[..., None] * torch.stack(list(outs))).sum(0) / weights.sum(0)[..., None]


@listed("45.3", of="merge_all")
def sum_of_blocks(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """the results are added up without weights"""
    return torch.stack(list(outs)).sum(0)


@listed("45.3", of="merge_all")
def weighted_by_lse(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """the weights are the lse itself, but an lse is a logarithm"""
    weights = torch.stack(list(lses))
    return (weights[..., None] * torch.stack(list(outs))).sum(0) / weights.sum(0)[..., None]


@listed("45.3", of="merge_all")
def softmax_over_queries(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """the weights add up to 1 over the queries, and not over the blocks"""
    weights = torch.stack(list(lses)).softmax(-1)
    return (weights[..., None] * torch.stack(list(outs))).sum(0)


# --- 4: the bytes of a ring -----------------------------------------------------------------------


def _part(n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int) -> int:
    return 2 * n_rows * seq_len * n_kv_heads * head_dim // n_ranks


@listed("45.4", of="sent_by_ring")
def keys_once(
    n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int, kv_bytes: int,
    grad_bytes: int,
) -> int:
    """keys and values travel only forward here, but backward needs them again"""
    return (n_ranks - 1) * _part(n_rows, seq_len, n_kv_heads, head_dim, n_ranks) * (
        kv_bytes + grad_bytes)


@listed("45.4", of="sent_by_ring")
def without_gradients(
    n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int, kv_bytes: int,
    grad_bytes: int,
) -> int:
    """the gradients of keys and values are left out"""
    return (n_ranks - 1) * _part(n_rows, seq_len, n_kv_heads, head_dim, n_ranks) * 2 * kv_bytes


@listed("45.4", of="sent_by_ring")
def n_steps(
    n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int, kv_bytes: int,
    grad_bytes: int,
) -> int:
    """each part is sent n times, but after n - 1 steps it has been everywhere"""
    return n_ranks * _part(n_rows, seq_len, n_kv_heads, head_dim, n_ranks) * (
        2 * kv_bytes + grad_bytes)


@listed("45.4", of="sent_by_ring")
def keys_only(
    n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int, kv_bytes: int,
    grad_bytes: int,
) -> int:
    """only keys are counted, and not values"""
    return (n_ranks - 1) * _part(n_rows, seq_len, n_kv_heads, head_dim, n_ranks) * (
        2 * kv_bytes + grad_bytes) // 2


@listed("45.4", of="sent_by_ring")
def of_all_ranks(
    n_rows: int, seq_len: int, n_kv_heads: int, head_dim: int, n_ranks: int, kv_bytes: int,
    grad_bytes: int,
) -> int:
    """this is what all ranks send together"""
    return (n_ranks - 1) * n_ranks * _part(n_rows, seq_len, n_kv_heads, head_dim, n_ranks) * (
        2 * kv_bytes + grad_bytes)


# --- 5: from tokens to heads ----------------------------------------------------------------------


@listed("45.5", of="to_heads")
def all_tokens_of_all_heads(parts: Sequence[Tensor]) -> list[Tensor]:
    """every rank gets all heads of all tokens: this is an all-gather"""
    return [torch.cat(list(parts)) for _ in parts]


@listed("45.5", of="to_heads")
def only_its_own_tokens(parts: Sequence[Tensor]) -> list[Tensor]:
    """each rank keeps its heads of its own tokens, and nothing is exchanged"""
    return [part.chunk(len(parts), dim=1)[rank] for rank, part in enumerate(parts)]


@listed("45.5", of="to_heads")
def joined_along_the_heads(parts: Sequence[Tensor]) -> list[Tensor]:
    """what arrives is joined along the heads, and not along the tokens"""
    return [torch.cat([part.chunk(len(parts), dim=1)[rank] for part in parts], dim=1)
            for rank in range(len(parts))]


@listed("45.5", of="to_heads")
def every_other_head(parts: Sequence[Tensor]) -> list[Tensor]:
    """ranks take turns with the heads: rank r gets the heads r, r + n and so on"""
    return [torch.cat([part[:, rank :: len(parts)] for part in parts])
            for rank in range(len(parts))]


@listed("45.5", of="to_heads")
def tokens_backward(parts: Sequence[Tensor]) -> list[Tensor]:
    """the tokens of the last rank come first"""
    return [torch.cat([part.chunk(len(parts), dim=1)[rank] for part in reversed(parts)])
            for rank in range(len(parts))]


# --- 6: zig-zag by document -----------------------------------------------------------------------


def _places(
    documents: Sequence[int], rank: int, n_ranks: int, *, has_begin: bool = True,
    has_second: bool = True, shift: int = 1,
) -> list[int]:
    found, begin = [], 0
    for length in documents:
        pieces = torch.arange(begin, begin + length).chunk(2 * n_ranks)
        found += pieces[rank].tolist()
        if has_second:
            found += pieces[2 * n_ranks - shift - rank].tolist() if shift else (
                pieces[n_ranks + rank].tolist())
        begin += length if has_begin else 0
    return found


@listed("45.6", of="places_by_document")
def every_document_begins_at_0(documents: Sequence[int], rank: int, n_ranks: int) -> list[int]:
    """the places of each document begin at 0, but a later one begins where the last one ends"""
    return _places(documents, rank, n_ranks, has_begin=False)


@listed("45.6", of="places_by_document")
def early_pieces_only(documents: Sequence[int], rank: int, n_ranks: int) -> list[int]:
    """each rank gets one piece of each document, so half of the tokens are on no rank"""
    return _places(documents, rank, n_ranks, has_second=False)


@listed("45.6", of="places_by_document")
def the_whole_row(documents: Sequence[int], rank: int, n_ranks: int) -> list[int]:
    """the row is cut as a whole, as if it were one document"""
    return _places([sum(documents)], rank, n_ranks)


@listed("45.6", of="places_by_document")
def second_half_dealt_again(documents: Sequence[int], rank: int, n_ranks: int) -> list[int]:
    """the second half of a document is dealt out from rank 0 again, and not backward"""
    return _places(documents, rank, n_ranks, shift=0)

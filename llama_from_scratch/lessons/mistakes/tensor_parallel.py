"""Common mistakes of readers in chapter 43."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the key/value heads of a rank -------------------------------------------------------------


@listed("43.1", of="kv_heads_of")
def tiled(rank: int, n_ranks: int, n_heads: int, n_kv_heads: int) -> list[int]:
    """query head h reads key/value head h % n_kv_heads, but neighbors share: h // (H / G)"""
    mine = range(rank * n_heads // n_ranks, (rank + 1) * n_heads // n_ranks)
    return sorted({head % n_kv_heads for head in mine})


@listed("43.1", of="kv_heads_of")
def divided_only(rank: int, n_ranks: int, n_heads: int, n_kv_heads: int) -> list[int]:
    """the key/value heads are divided among the ranks, so with more ranks than heads some get none
    """
    size = n_kv_heads // n_ranks
    return list(range(rank * size, (rank + 1) * size))


@listed("43.1", of="kv_heads_of")
def numbers_of_query_heads(rank: int, n_ranks: int, n_heads: int, n_kv_heads: int) -> list[int]:
    """these are the numbers of the rank's query heads"""
    return list(range(rank * n_heads // n_ranks, (rank + 1) * n_heads // n_ranks))


@listed("43.1", of="kv_heads_of")
def one_for_each_query_head(rank: int, n_ranks: int, n_heads: int, n_kv_heads: int) -> list[int]:
    """a key/value head is listed once for each query head that reads it, and not just once"""
    size = n_heads // n_kv_heads
    return [head // size for head in
            range(rank * n_heads // n_ranks, (rank + 1) * n_heads // n_ranks)]


@listed("43.1", of="kv_heads_of")
def every_other_rank(rank: int, n_ranks: int, n_heads: int, n_kv_heads: int) -> list[int]:
    """ranks take turns: rank r has the heads r, r + n_ranks, ... and not neighboring ones"""
    size = n_heads // n_kv_heads
    return sorted({head // size for head in range(rank, n_heads, n_ranks)})


# --- 2: a matrix cut by its inputs ----------------------------------------------------------------


def _parts(xs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    return [x @ weight.T for x, weight in zip(xs, weights, strict=True)]


@listed("43.2", of="row_linear")
def bias_of_every_rank(xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """each rank adds the bias to its part, so the sum has it once for every rank"""
    return sum(part + bias for part in _parts(xs, weights))


@listed("43.2", of="row_linear")
def without_bias(xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """the bias is left out"""
    return sum(_parts(xs, weights))


@listed("43.2", of="row_linear")
def mean_of_parts(xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """the parts are averaged, but they are parts of a sum"""
    return sum(_parts(xs, weights)) / len(xs) + bias


@listed("43.2", of="row_linear")
def side_by_side(xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """the results are put side by side, which is for a matrix that is cut by its outputs"""
    return torch.cat([part + bias for part in _parts(xs, weights)], -1)


@listed("43.2", of="row_linear")
def first_rank_only(xs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """only rank 0's part is there: the others were not added up"""
    return _parts(xs, weights)[0] + bias


# --- 3: the loss from parts of the logits ---------------------------------------------------------


def _loss(
    parts: Sequence[Tensor], target: int, *, has_shift: bool = True, has_own_max: bool = False,
    is_local: bool = False, sign: int = 1,
) -> Tensor:
    n = len(parts[0])
    m = max(part.max() for part in parts) if has_shift else torch.tensor(0.0)
    total = sum((part - (part.max() if has_own_max else m)).exp().sum() for part in parts)
    z = parts[0 if is_local else target // n][target % n]
    return sign * (total.log() - (z - m))


@listed("43.3", of="loss_of_parts")
def own_largest_logit(parts: Sequence[Tensor], target: int) -> Tensor:
    """each rank subtracts the largest of its own logits, so the exponentials do not fit together"""
    return _loss(parts, target, has_own_max=True)


@listed("43.3", of="loss_of_parts")
def without_the_largest_logit(parts: Sequence[Tensor], target: int) -> Tensor:
    """nothing is subtracted before the exponentials, so large logits overflow"""
    return _loss(parts, target, has_shift=False)


@listed("43.3", of="loss_of_parts")
def always_in_the_first_part(parts: Sequence[Tensor], target: int) -> Tensor:
    """the target's logit is always taken from rank 0, without the rows of the ranks before"""
    return _loss(parts, target, is_local=True)


@listed("43.3", of="loss_of_parts")
def plus_log_p(parts: Sequence[Tensor], target: int) -> Tensor:
    """the sign is turned around: this is log p and not -log p"""
    return _loss(parts, target, sign=-1)


@listed("43.3", of="loss_of_parts")
def softmax_of_one_part(parts: Sequence[Tensor], target: int) -> Tensor:
    """the sum of the exponentials is only of the part that has the target"""
    n = len(parts[0])
    return -parts[target // n].log_softmax(0)[target % n]


# --- 4: what a rank sends for a layer -------------------------------------------------------------


def _sent(n_tokens: int, dim: int, bytes_per_number: int, n_ranks: int) -> float:
    return 8 * (n_ranks - 1) * n_tokens * dim * bytes_per_number / n_ranks


@listed("43.4", of="sent_per_layer")
def forward_only(n_tokens: int, dim: int, bytes_per_number: int, n_ranks: int) -> float:
    """only half is there: the two sums backward, or the second round of the ring, are left out"""
    return _sent(n_tokens, dim, bytes_per_number, n_ranks) / 2


@listed("43.4", of="sent_per_layer")
def whole_tensors(n_tokens: int, dim: int, bytes_per_number: int, n_ranks: int) -> float:
    """four whole tensors are sent, without the 2 (n - 1) / n of a ring"""
    return 4.0 * n_tokens * dim * bytes_per_number


@listed("43.4", of="sent_per_layer")
def of_all_ranks(n_tokens: int, dim: int, bytes_per_number: int, n_ranks: int) -> float:
    """this is what all ranks send together"""
    return _sent(n_tokens, dim, bytes_per_number, n_ranks) * n_ranks


@listed("43.4", of="sent_per_layer")
def numbers_for_bytes(n_tokens: int, dim: int, bytes_per_number: int, n_ranks: int) -> float:
    """numbers are counted and not bytes"""
    return _sent(n_tokens, dim, 1, n_ranks)


# --- 5: on how many ranks a model fits ------------------------------------------------------------


def _fitting(
    config: LlamaConfig, *, has_vocab: bool = True, has_ffn: bool = True, has_kv: bool = True,
    has_copies: bool = True,
) -> list[int]:
    g = config.n_kv_heads
    return [n for n in range(1, config.n_heads + 1)
            if config.n_heads % n == 0 and (not has_ffn or config.ffn_dim % n == 0)
            and (not has_vocab or config.vocab_size % n == 0)
            and (not has_kv or g % n == 0 or (has_copies and n % g == 0))]


@listed("43.5", of="fitting")
def without_vocabulary(config: LlamaConfig) -> list[int]:
    """the vocabulary is not asked"""
    return _fitting(config, has_vocab=False)


@listed("43.5", of="fitting")
def without_channels(config: LlamaConfig) -> list[int]:
    """the hidden channels (ffn_dim) are not asked"""
    return _fitting(config, has_ffn=False)


@listed("43.5", of="fitting")
def without_copies(config: LlamaConfig) -> list[int]:
    """more ranks than key/value heads are ruled out, but a multiple of them works with copies"""
    return _fitting(config, has_copies=False)


@listed("43.5", of="fitting")
def any_number_of_kv_heads(config: LlamaConfig) -> list[int]:
    """the key/value heads are not asked, but a rank cannot have a part of a head"""
    return _fitting(config, has_kv=False)


@listed("43.5", of="fitting")
def without_the_last(config: LlamaConfig) -> list[int]:
    """the range ends before the number of query heads itself"""
    return [n for n in _fitting(config) if n < config.n_heads]


# --- 6: the length of a gradient in slices --------------------------------------------------------


@listed("43.6", of="whole_length")
def all_copies_count(
    grads: Sequence[Mapping[str, Tensor]], n_copies: Mapping[str, int]
) -> Tensor:
    """every rank counts all it has, so what is on several ranks counts several times"""
    return sum(g.square().sum() for of_rank in grads for g in of_rank.values()).sqrt()


@listed("43.6", of="whole_length")
def first_rank_only_counts_copies(
    grads: Sequence[Mapping[str, Tensor]], n_copies: Mapping[str, int]
) -> Tensor:
    """what has copies counts on rank 0 alone, but other neighbors have another slice"""
    return sum(g.square().sum() for rank, of_rank in enumerate(grads)
               for name, g in of_rank.items() if n_copies[name] == 1 or rank == 0).sqrt()


@listed("43.6", of="whole_length")
def of_rank_0(grads: Sequence[Mapping[str, Tensor]], n_copies: Mapping[str, int]) -> Tensor:
    """this is the length of rank 0's gradients alone"""
    return sum(g.square().sum() for g in grads[0].values()).sqrt()


@listed("43.6", of="whole_length")
def sum_of_lengths(grads: Sequence[Mapping[str, Tensor]], n_copies: Mapping[str, int]) -> Tensor:
    """lengths are added up, but squares must be"""
    return sum(g.norm() for rank, of_rank in enumerate(grads)
               for name, g in of_rank.items() if rank % n_copies[name] == 0)


@listed("43.6", of="whole_length")
def without_root(grads: Sequence[Mapping[str, Tensor]], n_copies: Mapping[str, int]) -> Tensor:
    """the root at the end is missing: this is the square of the length"""
    return sum(g.square().sum() for rank, of_rank in enumerate(grads)
               for name, g in of_rank.items() if rank % n_copies[name] == 0)

"""Common mistakes of readers in chapter 13."""

import math

import torch
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: how many tokens fit -----------------------------------------------------------------------


@listed("13.1", of="tokens_that_fit")
def keys_only(config: LlamaConfig, gpu_bytes: int) -> int:
    """only the keys, or only the values, are counted: the cache holds both"""
    per_token = config.n_layers * config.n_kv_heads * config.head_dim * 2
    return (gpu_bytes - 2 * config.n_params) // per_token


@listed("13.1", of="tokens_that_fit")
def all_query_heads(config: LlamaConfig, gpu_bytes: int) -> int:
    """`n_heads` is used instead of `n_kv_heads`: the cache holds nothing for query heads"""
    per_token = 2 * config.n_layers * config.n_heads * config.head_dim * 2
    return (gpu_bytes - 2 * config.n_params) // per_token


@listed("13.1", of="tokens_that_fit")
def without_weights(config: LlamaConfig, gpu_bytes: int) -> int:
    """the weights are not subtracted: they need memory, too"""
    return gpu_bytes // (2 * config.n_layers * config.n_kv_heads * config.head_dim * 2)


@listed("13.1", of="tokens_that_fit")
def numbers_not_bytes(config: LlamaConfig, gpu_bytes: int) -> int:
    """numbers are counted instead of bytes: each number in the cache takes two bytes"""
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim
    return (gpu_bytes - 2 * config.n_params) // per_token


@listed("13.1", of="tokens_that_fit")
def weights_as_numbers(config: LlamaConfig, gpu_bytes: int) -> int:
    """the number of weights is subtracted instead of their bytes: each weight takes two bytes"""
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    return (gpu_bytes - config.n_params) // per_token


@listed("13.1", of="tokens_that_fit")
def one_layer(config: LlamaConfig, gpu_bytes: int) -> int:
    """only one layer is counted: every layer has its own cache"""
    return (gpu_bytes - 2 * config.n_params) // (2 * config.n_kv_heads * config.head_dim * 2)


# --- 2: a sliding window --------------------------------------------------------------------------


def _distance_TS(n_tokens: int) -> Tensor:
    position_T = torch.arange(n_tokens)
    return position_T[:, None] - position_T[None, :]


@listed("13.2", of="sliding_window")
def window_too_wide(n_tokens: int, window: int) -> Tensor:
    """the window is one token too wide: the token itself is one of the `window` tokens"""
    distance_TS = _distance_TS(n_tokens)
    return (distance_TS >= 0) & (distance_TS <= window)


@listed("13.2", of="sliding_window")
def future_in_window(n_tokens: int, window: int) -> Tensor:
    """the future is not hidden: a distance below 0 means a later token"""
    return _distance_TS(n_tokens) < window


@listed("13.2", of="sliding_window")
def transposed_window(n_tokens: int, window: int) -> Tensor:
    """rows and columns are exchanged: each row belongs to the token that looks at the others"""
    distance_TS = _distance_TS(n_tokens).T
    return (distance_TS >= 0) & (distance_TS < window)


@listed("13.2", of="sliding_window")
def hidden_is_true(n_tokens: int, window: int) -> Tensor:
    """True marks hidden tokens: in this task True marks visible tokens"""
    distance_TS = _distance_TS(n_tokens)
    return (distance_TS < 0) | (distance_TS >= window)


# --- 3: multi-query attention ---------------------------------------------------------------------


def _multi_query(
    q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor, *, scale: float, axis: int = -1,
    is_masked: bool = True, hidden: float = -math.inf,
) -> Tensor:
    score_BHTS = torch.einsum("bthk,bsk->bhts", q_BTHK, k_BSK) * scale
    if is_masked:
        score_BHTS = score_BHTS.masked_fill(~sees_TS, hidden)
    return torch.einsum("bhts,bsk->bthk", score_BHTS.softmax(axis), v_BSK)


@listed("13.3", of="multi_query")
def scores_without_scale(
    q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor
) -> Tensor:
    """the scores are not divided by √K"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=1)


@listed("13.3", of="multi_query")
def divided_by_width(q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor) -> Tensor:
    """the scores are divided by K instead of √K"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=1 / q_BTHK.shape[-1])


@listed("13.3", of="multi_query")
def divided_by_heads(q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor) -> Tensor:
    """the scores are divided by the root of the number of heads: K is the size of q's last axis"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=q_BTHK.shape[2] ** -0.5)


@listed("13.3", of="multi_query")
def without_mask(q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor) -> Tensor:
    """the mask is not applied, so the future is seen"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=q_BTHK.shape[-1] ** -0.5,
                        is_masked=False)


@listed("13.3", of="multi_query")
def hidden_scores_are_zero(
    q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor
) -> Tensor:
    """hidden scores are 0 instead of -inf, so hidden tokens still get a weight"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=q_BTHK.shape[-1] ** -0.5, hidden=0.0)


@listed("13.3", of="multi_query")
def softmax_over_queries(q_BTHK: Tensor, k_BSK: Tensor, v_BSK: Tensor, sees_TS: Tensor) -> Tensor:
    """the softmax is over the queries: the weights of one query must sum to 1 over all keys"""
    return _multi_query(q_BTHK, k_BSK, v_BSK, sees_TS, scale=q_BTHK.shape[-1] ** -0.5, axis=-2)


# --- 4: attention in blocks -----------------------------------------------------------------------


def _scores(q_K: Tensor, k_SK: Tensor) -> Tensor:
    return k_SK @ q_K / math.sqrt(len(q_K))


@listed("13.4", of="in_blocks")
def plain_exp(q_K: Tensor, k_SK: Tensor, v_SK: Tensor, block: int) -> Tensor:
    """the largest score is not subtracted before `exp`, so large scores overflow"""
    weight_S = _scores(q_K, k_SK).exp()
    return weight_S @ v_SK / weight_S.sum()


@listed("13.4", of="in_blocks")
def sums_not_shrunk(q_K: Tensor, k_SK: Tensor, v_SK: Tensor, block: int) -> Tensor:
    """the sums of earlier blocks are not multiplied by exp(m - m') when the largest score grows"""
    largest, total = torch.tensor(-math.inf), torch.tensor(0.0)
    mixed_K = torch.zeros_like(q_K)
    for k_block, v_block in zip(k_SK.split(block), v_SK.split(block), strict=True):
        score = _scores(q_K, k_block)
        largest = torch.maximum(largest, score.max())
        weight = torch.exp(score - largest)
        total, mixed_K = total + weight.sum(), mixed_K + weight @ v_block
    return mixed_K / total


@listed("13.4", of="in_blocks")
def softmax_of_each_block(q_K: Tensor, k_SK: Tensor, v_SK: Tensor, block: int) -> Tensor:
    """each block has its own softmax, and the results of the blocks are averaged"""
    found = [_scores(q_K, k).softmax(0) @ v
             for k, v in zip(k_SK.split(block), v_SK.split(block), strict=True)]
    return torch.stack(found).mean(0)


@listed("13.4", of="in_blocks")
def only_total_shrunk(q_K: Tensor, k_SK: Tensor, v_SK: Tensor, block: int) -> Tensor:
    """only the sum of weights is multiplied by exp(m - m'): the sum of values needs it, too"""
    largest, total = torch.tensor(-math.inf), torch.tensor(0.0)
    mixed_K = torch.zeros_like(q_K)
    for k_block, v_block in zip(k_SK.split(block), v_SK.split(block), strict=True):
        score = _scores(q_K, k_block)
        new = torch.maximum(largest, score.max())
        weight = torch.exp(score - new)
        total = torch.exp(largest - new) * total + weight.sum()
        mixed_K, largest = mixed_K + weight @ v_block, new
    return mixed_K / total


# --- 5: which lengths notice ----------------------------------------------------------------------


@listed("13.5", of="lengths_that_notice")
def from_one_chunk_on(longest: int, chunk_size: int) -> list[int]:
    """the length of one chunk is in the list: there the last token sees all under both rules"""
    return list(range(chunk_size, longest + 1))


@listed("13.5", of="lengths_that_notice")
def positions_not_lengths(longest: int, chunk_size: int) -> list[int]:
    """positions are listed instead of lengths: the last token of n tokens has position n - 1"""
    return list(range(chunk_size, longest))


@listed("13.5", of="lengths_that_notice")
def lengths_that_do_not_notice(longest: int, chunk_size: int) -> list[int]:
    """the lengths where both rules agree are listed: the task asks for the other lengths"""
    return list(range(1, min(chunk_size, longest) + 1))


# --- 6: the weight on "red" -----------------------------------------------------------------------


def _weight(score: float, n_others: int) -> float:
    return math.exp(score) / (math.exp(score) + n_others)


@listed("13.6", of="weight_on_red")
def others_forgotten(length: float) -> float:
    """the eight other words are left out of the sum: each has the score 0, and exp(0) = 1"""
    return _weight(length / 3, 0)


@listed("13.6", of="weight_on_red")
def nine_others(length: float) -> float:
    """nine other words are counted, but there are only eight"""
    return _weight(length / 3, 9)


@listed("13.6", of="weight_on_red")
def score_not_divided(length: float) -> float:
    """the score is not divided by √9"""
    return _weight(length, 8)


@listed("13.6", of="weight_on_red")
def score_divided_by_nine(length: float) -> float:
    """the score is divided by 9 instead of √9"""
    return _weight(length / 9, 8)

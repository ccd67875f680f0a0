"""Common mistakes of readers in chapter 33."""

import math

import torch
from torch import Tensor

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: tokens in training ------------------------------------------------------------------------


def _tokens(
    config: LlamaConfig, gpu_bytes: int, *, layers: int | None = None, heads: int | None = None,
    itemsize: int = 2, of_lse: int = 4, of_result: int = 2,
) -> tuple[int, int]:
    layers = config.n_layers if layers is None else layers
    heads = config.n_heads if heads is None else heads
    per_token = layers * heads * (of_result * config.head_dim + of_lse)
    return math.isqrt(gpu_bytes // (itemsize * layers * heads)), gpu_bytes // per_token


@listed("33.1", of="tokens_in_training")
def one_layer_only(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """only one layer is counted: each layer keeps its own until the backward pass"""
    return _tokens(config, gpu_bytes, layers=1)


@listed("33.1", of="tokens_in_training")
def key_value_heads(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """`n_kv_heads` is used instead of `n_heads`: every query head has weights and a result"""
    return _tokens(config, gpu_bytes, heads=config.n_kv_heads)


@listed("33.1", of="tokens_in_training")
def one_head_only(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """only one head is counted"""
    return _tokens(config, gpu_bytes, heads=1)


@listed("33.1", of="tokens_in_training")
def weights_as_numbers(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """the weights are counted as numbers, not as bytes: each takes two bytes"""
    return _tokens(config, gpu_bytes, itemsize=1)


@listed("33.1", of="tokens_in_training")
def lse_in_bf16(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """the log-sum-exp is counted with two bytes; in fp32 it has four"""
    return _tokens(config, gpu_bytes, of_lse=2)


@listed("33.1", of="tokens_in_training")
def without_lse(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """the log-sum-exp is left out of the second count"""
    return _tokens(config, gpu_bytes, of_lse=0)


@listed("33.1", of="tokens_in_training")
def without_root(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """the first count is the square of the tokens: its root is missing"""
    plain = gpu_bytes // (2 * config.n_layers * config.n_heads)
    return plain, _tokens(config, gpu_bytes)[1]


@listed("33.1", of="tokens_in_training")
def counts_exchanged(config: LlamaConfig, gpu_bytes: int) -> tuple[int, int]:
    """the two counts are exchanged: plain attention comes first"""
    return _tokens(config, gpu_bytes)[::-1]


# --- 2: parts that are joined ---------------------------------------------------------------------


def _weighted(weight_PT: Tensor, out_PTK: Tensor) -> Tensor:
    return (weight_PT[..., None] * out_PTK).sum(0)


@listed("33.2", of="join_parts")
def plain_average(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """all parts get the same weight: a part counts as much as its e^lse"""
    return out_PTK.mean(0), lse_PT.logsumexp(0)


@listed("33.2", of="join_parts")
def powers_overflow(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """e^lse is taken without subtracting anything, so large numbers become infinite and a query
    without any key gets 0 / 0"""
    weight_PT = lse_PT.exp()
    return _weighted(weight_PT / weight_PT.sum(0), out_PTK), weight_PT.sum(0).log()


@listed("33.2", of="join_parts")
def hidden_is_nan(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """where no part has seen anything, -∞ - (-∞) is NaN: subtract 0 there"""
    lse_T = lse_PT.logsumexp(0)
    return _weighted(torch.exp(lse_PT - lse_T), out_PTK), lse_T


@listed("33.2", of="join_parts")
def lse_added(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """the log-sum-exps are added: the sums that they are logarithms of must be added"""
    return _weighted(lse_PT.softmax(0).nan_to_num(0), out_PTK), lse_PT.sum(0)


@listed("33.2", of="join_parts")
def largest_as_lse(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """the joined log-sum-exp is the largest of the parts'; the other parts add to it"""
    return _weighted(lse_PT.softmax(0).nan_to_num(0), out_PTK), lse_PT.amax(0)


@listed("33.2", of="join_parts")
def weights_not_divided(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """the largest log-sum-exp is subtracted instead of the joined one, so the weights do not sum to
    1"""
    shift_T = lse_PT.amax(0)
    shift_T = torch.where(shift_T == -math.inf, 0, shift_T)
    return _weighted(torch.exp(lse_PT - shift_T), out_PTK), lse_PT.logsumexp(0)


@listed("33.2", of="join_parts")
def weights_by_lse(out_PTK: Tensor, lse_PT: Tensor) -> tuple[Tensor, Tensor]:
    """the results are summed without weights: they are finished averages, so each needs its share
    of the whole sum"""
    return out_PTK.sum(0), lse_PT.logsumexp(0)


# --- 3: how many tiles ----------------------------------------------------------------------------


@listed("33.3", of="n_tiles")
def every_tile(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """all tiles are counted: tiles above the diagonal are not computed"""
    return -(-n_queries // queries) * -(-n_keys // keys)


@listed("33.3", of="n_tiles")
def rounded_down(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """the keys are divided by the tile and rounded down: a tile that is partly full counts, too"""
    return sum((min(first + queries, n_queries) + n_keys - n_queries) // keys
               for first in range(0, n_queries, queries))


@listed("33.3", of="n_tiles")
def from_key_0(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """the queries are taken as the first tokens: they are the last, `n_keys - n_queries` later"""
    return sum(-(-min(first + queries, n_queries) // keys)
               for first in range(0, n_queries, queries))


@listed("33.3", of="n_tiles")
def first_query_decides(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """the first query of a tile decides how many keys are read: its last query sees more"""
    return sum(-(-(first + 1 + n_keys - n_queries) // keys)
               for first in range(0, n_queries, queries))


@listed("33.3", of="n_tiles")
def beyond_the_last_query(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """the last tile of queries is counted as if it were full, so it sees keys that do not exist"""
    return sum(-(-(first + queries + n_keys - n_queries) // keys)
               for first in range(0, n_queries, queries))


@listed("33.3", of="n_tiles")
def half_of_all(n_queries: int, n_keys: int, queries: int, keys: int) -> int:
    """half of all tiles are counted: tiles on the diagonal are computed whole"""
    return -(-n_queries // queries) * -(-n_keys // keys) // 2


# --- 4: the lines of the online softmax -----------------------------------------------------------

_NEXT = """
        accum next = max(largest, score);
        accum shrink = exponential(largest - next), weight = exponential(score - next);
"""
_ADD = "for (int c = 0; c < 8; c++) sum[c] = sum[c]{} + weight * v[{} * 8 + c];\n"


@listed("33.4", of="softmax_lines")
def nothing_rescaled() -> str:
    """the old sums are not multiplied by e^(old - new), or `largest` was changed before the factor
    was computed, which makes it 1"""
    return f"{_NEXT}{_ADD.format('', 'key')} total = total + weight; largest = next;"


@listed("33.4", of="softmax_lines")
def only_sums_rescaled() -> str:
    """`total` is not rescaled: it needs the same factor as `sum`"""
    return f"{_NEXT}{_ADD.format(' * shrink', 'key')} total = total + weight; largest = next;"


@listed("33.4", of="softmax_lines")
def only_total_rescaled() -> str:
    """`sum` is not rescaled: it needs the same factor as `total`"""
    return f"{_NEXT}{_ADD.format('', 'key')} total = total * shrink + weight; largest = next;"


@listed("33.4", of="softmax_lines")
def nothing_subtracted() -> str:
    """the largest score is not subtracted, so that large scores overflow"""
    return (f"accum weight = exponential(score); {_ADD.format('', 'key')} "
            "total = total + weight;")


@listed("33.4", of="softmax_lines")
def values_of_the_query() -> str:
    """the value is read at `query` instead of `key`"""
    return (f"{_NEXT}{_ADD.format(' * shrink', 'query')} total = total * shrink + weight; "
            "largest = next;")


@listed("33.4", of="softmax_lines")
def weight_not_in_total() -> str:
    """the new weight is not added to `total`"""
    return f"{_NEXT}{_ADD.format(' * shrink', 'key')} total = total * shrink; largest = next;"


@listed("33.4", of="softmax_lines")
def factor_upside_down() -> str:
    """the factor is e^(new - old): the old sums shrink when the largest score grows"""
    return (f"{_NEXT.replace('largest - next', 'next - largest')}{_ADD.format(' * shrink', 'key')} "
            "total = total * shrink + weight; largest = next;")


# --- 5: the entropy -------------------------------------------------------------------------------


def _read(score_S: Tensor, size: int, *, keeps_weighted: bool = False) -> tuple[Tensor, ...]:
    largest, total, weighted = (x.double() for x in torch.tensor([-math.inf, 0, 0]))
    for score in score_S.split(size):
        new = torch.maximum(largest, score.max())
        shrink, weight = torch.exp(largest - new), torch.exp(score - new)
        total = shrink * total + weight.sum()
        weighted = (1 if keeps_weighted else shrink) * weighted + weight @ score
        largest = new
    return largest, total, weighted


def _entropy(score_S: Tensor) -> Tensor:
    p_S = score_S.softmax(0)
    return -(p_S * p_S.log()).sum()


@listed("33.5", of="entropy_in_tiles")
def third_sum_not_rescaled(score_S: Tensor, size: int) -> Tensor:
    """the third sum is not rescaled when the largest score grows"""
    largest, total, weighted = _read(score_S, size, keeps_weighted=True)
    return largest + total.log() - weighted / total


@listed("33.5", of="entropy_in_tiles")
def without_largest(score_S: Tensor, size: int) -> Tensor:
    """the largest score is left out of the log-sum-exp, which is m + log l"""
    _, total, weighted = _read(score_S, size)
    return total.log() - weighted / total


@listed("33.5", of="entropy_in_tiles")
def without_log_total(score_S: Tensor, size: int) -> Tensor:
    """log l is left out of the log-sum-exp, which is m + log l"""
    largest, total, weighted = _read(score_S, size)
    return largest - weighted / total


@listed("33.5", of="entropy_in_tiles")
def third_sum_not_divided(score_S: Tensor, size: int) -> Tensor:
    """the third sum is not divided by l: the weights must sum to 1"""
    largest, total, weighted = _read(score_S, size)
    return largest + total.log() - weighted


@listed("33.5", of="entropy_in_tiles")
def sign_of_entropy(score_S: Tensor, size: int) -> Tensor:
    """the sign is wrong: an entropy is never below 0"""
    return -_entropy(score_S)


@listed("33.5", of="entropy_in_tiles")
def entropy_in_bits(score_S: Tensor, size: int) -> Tensor:
    """the entropy is in bits: nats have the natural logarithm"""
    return _entropy(score_S) / math.log(2)


@listed("33.5", of="entropy_in_tiles")
def mean_of_tiles(score_S: Tensor, size: int) -> Tensor:
    """each tile has a softmax of its own, and the entropies of the tiles are averaged"""
    return torch.stack([_entropy(score) for score in score_S.split(size)]).mean()


# --- 6: the largest tensor ------------------------------------------------------------------------


@listed("33.6", of="largest_tensor")
def scores_only(tile: int) -> int:
    """only the scores are counted: with small tiles the tensors of q's shape are larger"""
    return 1000 * 4 * tile * 4


@listed("33.6", of="largest_tensor")
def q_only(tile: int) -> int:
    """only tensors of q's shape are counted: with large tiles the scores are larger"""
    return 1000 * 4 * 64 * 4


@listed("33.6", of="largest_tensor")
def numbers_not_bytes(tile: int) -> int:
    """numbers are counted instead of bytes: each takes four"""
    return 1000 * 4 * max(64, tile)


@listed("33.6", of="largest_tensor")
def of_one_head(tile: int) -> int:
    """only one of the four query heads is counted"""
    return 1000 * max(64, tile) * 4


@listed("33.6", of="largest_tensor")
def both_together(tile: int) -> int:
    """the scores and q are added: the question is the largest single tensor"""
    return 1000 * 4 * (64 + tile) * 4

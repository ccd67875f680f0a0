"""Mistakes that readers make in chapter 35."""

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: tokens per second -------------------------------------------------------------------------


@listed("35.1", of="tokens_per_second")
def bits_taken_for_bytes(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """bits are counted as bytes: 8 bits are one byte"""
    return n_readers * bytes_per_s / (n_read * bits + n_readers * context * kv_bytes)


@listed("35.1", of="tokens_per_second")
def one_cache_for_all(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """the cache is read once for all readers: each reader has a cache of its own"""
    return n_readers * bytes_per_s / (n_read * bits / 8 + context * kv_bytes)


@listed("35.1", of="tokens_per_second")
def of_one_reader(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """these are the tokens of one reader: a step writes one token for each of them"""
    return bytes_per_s / (n_read * bits / 8 + n_readers * context * kv_bytes)


@listed("35.1", of="tokens_per_second")
def weights_for_each_reader(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """the weights are read again for each reader: all readers share one reading"""
    return bytes_per_s / (n_read * bits / 8 + context * kv_bytes)


@listed("35.1", of="tokens_per_second")
def without_cache(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """the cache is left out: a step reads all keys and values, too"""
    return n_readers * bytes_per_s / (n_read * bits / 8)


@listed("35.1", of="tokens_per_second")
def cache_of_one_token(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """the cache has one token: it has `context` of them"""
    return n_readers * bytes_per_s / (n_read * bits / 8 + n_readers * kv_bytes)


@listed("35.1", of="tokens_per_second")
def bits_of_the_cache(
    n_read: float, bits: int, kv_bytes: int, context: int, n_readers: int, bytes_per_s: float
) -> float:
    """kv_bytes are divided by 8 as well: they are bytes already"""
    return n_readers * bytes_per_s / (n_read * bits / 8 + n_readers * context * kv_bytes / 8)


# --- 2: a minimum and a scale ---------------------------------------------------------------------


Group = tuple[Tensor, Tensor, Tensor]


@listed("35.2", of="to_int4_with_minimum")
def sixteen_steps(weight: Tensor) -> Group:
    """the range is divided by 16: from 0 to 15 there are 15 steps"""
    minimum = weight.amin(1)
    scale = (weight.amax(1) - minimum) / 16
    return ((weight - minimum[:, None]) / scale[:, None]).round(), scale, minimum


@listed("35.2", of="to_int4_with_minimum")
def minimum_not_subtracted(weight: Tensor) -> Group:
    """the minimum is returned but not subtracted from the weights before they are rounded"""
    minimum = weight.amin(1)
    scale = (weight.amax(1) - minimum) / 15
    return (weight / scale[:, None]).round(), scale, minimum


@listed("35.2", of="to_int4_with_minimum")
def rounded_down(weight: Tensor) -> Group:
    """the numbers are rounded down: take the nearest one"""
    minimum = weight.amin(1)
    scale = (weight.amax(1) - minimum) / 15
    return ((weight - minimum[:, None]) / scale[:, None]).floor(), scale, minimum


@listed("35.2", of="to_int4_with_minimum")
def scale_of_the_largest(weight: Tensor) -> Group:
    """the scale is the largest weight divided by 15: it must cover the range, largest - smallest"""
    minimum = weight.amin(1)
    scale = weight.abs().amax(1) / 15
    return ((weight - minimum[:, None]) / scale[:, None]).round().clamp(0, 15), scale, minimum


@listed("35.2", of="to_int4_with_minimum")
def one_group_for_all(weight: Tensor) -> Group:
    """all rows share one minimum and one scale: each row is a group of its own"""
    minimum = weight.amin().expand(len(weight))
    scale = (weight.amax() - weight.amin()).expand(len(weight)) / 15
    return ((weight - minimum[:, None]) / scale[:, None]).round(), scale, minimum


@listed("35.2", of="to_int4_with_minimum")
def symmetric(weight: Tensor) -> Group:
    """this is the symmetric way, with 8 for zero: the smallest weight must become 0"""
    scale = weight.abs().amax(1) / 7
    return (weight / scale[:, None]).round() + 8, scale, weight.amin(1)


@listed("35.2", of="to_int4_with_minimum")
def along_columns(weight: Tensor) -> Group:
    """the minimum and the range are taken along the columns: rows are the groups"""
    minimum = weight.amin(0)
    scale = (weight.amax(0) - minimum) / 15
    return ((weight - minimum) / scale).round(), scale, minimum


# --- 3: the keys of a block -----------------------------------------------------------------------


_EACH = "int each = (length + n_splits - 1) / n_splits;\n"
_BEGIN = "int begin = min((int)blockIdx.x * each, length);\n"
_END = "int end = min(begin + each, length);\n"


@listed("35.3", of="split_lines")
def rounded_down_share() -> str:
    """the share is rounded down: the last keys belong to no block"""
    return "int each = length / n_splits;\n" + _BEGIN + _END


@listed("35.3", of="split_lines")
def rest_to_the_last_block() -> str:
    """the last block gets all keys that are left: no block may have more than its share, rounded up
    """
    return ("int each = length / n_splits;\n" + _BEGIN
            + "int end = (int)blockIdx.x == n_splits - 1 ? length : begin + each;\n")


@listed("35.3", of="split_lines")
def end_beyond_the_text() -> str:
    """the end is not limited by the length: the last block reads slots without keys"""
    return _EACH + _BEGIN + "int end = begin + each;\n"


@listed("35.3", of="split_lines")
def all_slots() -> str:
    """the slots of the cache are divided, not the keys of the text: the rest is not written yet"""
    return _EACH.replace("length", "n_slots") + (_BEGIN + _END).replace("length", "n_slots")


@listed("35.3", of="split_lines")
def slots_shared_out() -> str:
    """each block's share is counted from the whole cache: a short text then has one block for all
    """
    return _EACH.replace("length", "n_slots") + _BEGIN + _END


@listed("35.3", of="split_lines")
def everything_for_each_block() -> str:
    """every block reads all keys: they must be divided"""
    return "int begin = 0, end = length;\n"


@listed("35.3", of="split_lines")
def split_by_text() -> str:
    """blockIdx.y is the text: the split is blockIdx.x"""
    return _EACH + _BEGIN.replace("blockIdx.x", "blockIdx.y") + _END


@listed("35.3", of="split_lines")
def last_key_left_out() -> str:
    """the last key of each block is left out: `end` is the first key that is not read"""
    return _EACH + _BEGIN + "int end = min(begin + each, length) - 1;\n"


# --- 4: a cache in 8 bits -------------------------------------------------------------------------


Cache = tuple[Tensor, Tensor]


def _rounded(x: Tensor, scale: Tensor) -> Cache:
    return (x / scale[..., None]).round().to(torch.int8), scale


@listed("35.4", of="to_int8_cache")
def scale_of_all_tokens(x_BSGK: Tensor) -> Cache:
    """all tokens of a text share a scale: a later token would change it"""
    scale = x_BSGK.abs().amax((1, 3)) / 127
    return _rounded(x_BSGK, scale[:, None].expand(x_BSGK.shape[:3]))


@listed("35.4", of="to_int8_cache")
def scale_of_all_heads(x_BSGK: Tensor) -> Cache:
    """all heads of a token share a scale: each head has its own"""
    scale = x_BSGK.abs().amax((2, 3)) / 127
    return _rounded(x_BSGK, scale[..., None].expand(x_BSGK.shape[:3]))


@listed("35.4", of="to_int8_cache")
def steps_of_128(x_BSGK: Tensor) -> Cache:
    """the largest number becomes 128, which int8 does not have: divide by 127"""
    return _rounded(x_BSGK, x_BSGK.abs().amax(-1) / 128)


@listed("35.4", of="to_int8_cache")
def signed_maximum(x_BSGK: Tensor) -> Cache:
    """the largest number is taken with its sign: a larger negative one then does not fit"""
    scale = x_BSGK.amax(-1) / 127
    numbers = (x_BSGK / scale[..., None]).round().clamp(-128, 127)
    return numbers.to(torch.int8), scale


@listed("35.4", of="to_int8_cache")
def cut_off(x_BSGK: Tensor) -> Cache:
    """the numbers are cut toward 0: round them to the nearest"""
    scale = x_BSGK.abs().amax(-1) / 127
    return (x_BSGK / scale[..., None]).to(torch.int8), scale


@listed("35.4", of="to_int8_cache")
def inverse_scale(x_BSGK: Tensor) -> Cache:
    """the scale is upside down: number * scale must give the vector back"""
    scale = x_BSGK.abs().amax(-1) / 127
    return _rounded(x_BSGK, scale)[0], 1 / scale


@listed("35.4", of="to_int8_cache")
def not_converted(x_BSGK: Tensor) -> Cache:
    """the numbers are rounded and still floating-point: they must be int8 to save any memory"""
    scale = x_BSGK.abs().amax(-1) / 127
    return (x_BSGK / scale[..., None]).round(), scale


# --- 5: a budget ----------------------------------------------------------------------------------


Plan = tuple[float, float, float]


def _speeds(n: float, bytes_per_s: float, step_bytes: float) -> Plan:
    return (n, bytes_per_s / step_bytes, n * bytes_per_s / step_bytes) if n else (0, 0.0, 0.0)


@listed("35.5", of="plan")
def without_the_weights(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """the whole memory is divided among readers: the weights are in it, too"""
    n = int(memory // (context * kv_bytes))
    return _speeds(n, bytes_per_s, weight_bytes + n * context * kv_bytes)


@listed("35.5", of="plan")
def parts_of_readers(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """the number of readers is not rounded down: a part of a reader does not count"""
    n = max(0.0, (memory - weight_bytes) / (context * kv_bytes))
    return _speeds(n, bytes_per_s, weight_bytes + n * context * kv_bytes)


@listed("35.5", of="plan")
def fewer_than_nobody(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """a model that does not fit gets a negative number of readers: it is at least 0"""
    n = int((memory - weight_bytes) // (context * kv_bytes))
    return _speeds(n, bytes_per_s, weight_bytes + n * context * kv_bytes)


@listed("35.5", of="plan")
def speed_without_readers(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """there is no room for a reader, and yet there is a speed for each: return 0.0"""
    n = max(0, int((memory - weight_bytes) // (context * kv_bytes)))
    each = bytes_per_s / (weight_bytes + n * context * kv_bytes)
    return n, each, n * each


@listed("35.5", of="plan")
def as_if_alone(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """each reader's speed counts one cache: a step reads the caches of all readers"""
    n = max(0, int((memory - weight_bytes) // (context * kv_bytes)))
    return _speeds(n, bytes_per_s, weight_bytes + context * kv_bytes)


@listed("35.5", of="plan")
def divided_among_readers(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """the tokens of a step are divided among the readers: a step writes one token for each"""
    n = max(0, int((memory - weight_bytes) // (context * kv_bytes)))
    n_all, total, _ = _speeds(n, bytes_per_s, weight_bytes + n * context * kv_bytes)
    return (n_all, total / n, total) if n else (0, 0.0, 0.0)


@listed("35.5", of="plan")
def rounded_to_the_nearest(
    memory: float, bytes_per_s: float, weight_bytes: float, kv_bytes: int, context: int
) -> Plan:
    """the number of readers is rounded to the nearest: the last one does not always fit"""
    n = max(0, round((memory - weight_bytes) / (context * kv_bytes)))
    return _speeds(n, bytes_per_s, weight_bytes + n * context * kv_bytes)

"""Mistakes that readers make in chapter 34."""

import math

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()

State = tuple[float, float]


# --- 1: tokens of a chunk -------------------------------------------------------------------------


@listed("34.1", of="tokens_of_a_chunk")
def without_padding(chunk_bytes: int, vocab_size: int, bytes_per_number: int) -> int:
    """rows are packed without a gap: each row begins at a multiple of 16 bytes"""
    return chunk_bytes // (vocab_size * bytes_per_number)


@listed("34.1", of="tokens_of_a_chunk")
def rounded_down_row(chunk_bytes: int, vocab_size: int, bytes_per_number: int) -> int:
    """the bytes of a row are rounded down to a multiple of 16, so the row does not fit into them"""
    return chunk_bytes // (vocab_size * bytes_per_number // 16 * 16)


@listed("34.1", of="tokens_of_a_chunk")
def rounded_up_tokens(chunk_bytes: int, vocab_size: int, bytes_per_number: int) -> int:
    """the number of tokens is rounded up: the last one does not fit"""
    return -(-chunk_bytes // (-(-vocab_size * bytes_per_number // 16) * 16))


@listed("34.1", of="tokens_of_a_chunk")
def padded_to_16_numbers(chunk_bytes: int, vocab_size: int, bytes_per_number: int) -> int:
    """a row is rounded up to a multiple of 16 numbers: 16 bytes are asked for"""
    return chunk_bytes // (-(-vocab_size // 16) * 16 * bytes_per_number)


@listed("34.1", of="tokens_of_a_chunk")
def at_least_one(chunk_bytes: int, vocab_size: int, bytes_per_number: int) -> int:
    """a chunk too small for one token gets one anyway: 0 is asked for"""
    return max(1, chunk_bytes // (-(-vocab_size * bytes_per_number // 16) * 16))


# --- 2: two states into one -----------------------------------------------------------------------


@listed("34.2", of="merged")
def sums_added(left: State, right: State) -> State:
    """the sums are added as they are: each is relative to another number"""
    return max(left[0], right[0]), left[1] + right[1]


@listed("34.2", of="merged")
def all_relative_to_left(left: State, right: State) -> State:
    """both sums are made relative to the left number, even if the right one is larger"""
    factor = math.exp(min(right[0] - left[0], 700.0)) if right[1] and left[1] else 1.0
    return max(left[0], right[0]), left[1] + right[1] * factor


@listed("34.2", of="merged")
def wrong_direction(left: State, right: State) -> State:
    """a sum is multiplied by e to the new number minus the old one: it is the old minus the new"""
    largest = max(left[0], right[0])
    return largest, sum(total * math.exp(largest - own) for own, total in (left, right) if total)


@listed("34.2", of="merged")
def largest_added(left: State, right: State) -> State:
    """the largest numbers are added; the larger of the two is asked for"""
    largest, total = _merged(left, right)
    return left[0] + right[0], total if math.isfinite(largest) else 0.0


@listed("34.2", of="merged")
def log_of_the_sum(left: State, right: State) -> State:
    """the second number is the logarithm of the sum, and the sum itself is asked for"""
    largest, total = _merged(left, right)
    return largest, math.log(total)


def _merged(left: State, right: State) -> State:
    largest = max(left[0], right[0])
    return largest, sum(total * math.exp(own - largest) for own, total in (left, right))


# --- 3: the end of a row, in CUDA -----------------------------------------------------------------

_TAIL = """
        for (int i = 0; i < VECTOR; i++)
            if (c + i >= n_columns) number[i] = -3e38f;
"""


@listed("34.3", of="tail_lines")
def one_word_too_many() -> str:
    """the comparison is `>`: column n_columns is not a word either"""
    return _TAIL.replace(">=", ">")


@listed("34.3", of="tail_lines")
def zeros_at_the_end() -> str:
    """the numbers past the end become 0: their exponential is then 1 before it is scaled, not 0"""
    return _TAIL.replace("-3e38f", "0")


@listed("34.3", of="tail_lines")
def whole_vector_dropped() -> str:
    """the whole last vector is left out, with the words in it: compare each column by itself"""
    return _TAIL.replace("c + i >= n_columns", "c + VECTOR > n_columns")


@listed("34.3", of="tail_lines")
def column_of_the_vector() -> str:
    """only the first column of a vector is compared: column i of the vector is `c + i`"""
    return _TAIL.replace("c + i", "c")


@listed("34.3", of="tail_lines")
def one_word_too_few() -> str:
    """the last word is left out too: the columns from 0 to n_columns - 1 are words"""
    return _TAIL.replace("n_columns)", "n_columns - 1)")


# --- 4: z-loss ------------------------------------------------------------------------------------


def _parts(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    softmax_NV, size_N1 = logits_NV.softmax(-1), logits_NV.logsumexp(-1, keepdim=True)
    return softmax_NV, size_N1, torch.zeros_like(softmax_NV).scatter_(1, targets_N[:, None], 1.0)


@listed("34.4", of="gradient_with_z")
def no_factor_2(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """the factor 2 is missing: the derivative of L squared is 2 L times the derivative of L"""
    softmax_NV, size_N1, one_hot_NV = _parts(logits_NV, targets_N)
    return softmax_NV * (1 + zeta * size_N1) - one_hot_NV


@listed("34.4", of="gradient_with_z")
def no_size(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """L is missing: that is the gradient of zeta times 2 L, and L is squared here"""
    softmax_NV, _, one_hot_NV = _parts(logits_NV, targets_N)
    return softmax_NV * (1 + 2 * zeta) - one_hot_NV


@listed("34.4", of="gradient_with_z")
def only_size(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """only the added term is returned: the gradient of the cross-entropy belongs to it"""
    softmax_NV, size_N1, _ = _parts(logits_NV, targets_N)
    return 2 * zeta * size_N1 * softmax_NV


@listed("34.4", of="gradient_with_z")
def size_for_the_target_too(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """the whole difference is multiplied: the target's 1 does not depend on L"""
    softmax_NV, size_N1, one_hot_NV = _parts(logits_NV, targets_N)
    return (softmax_NV - one_hot_NV) * (1 + 2 * zeta * size_N1)


@listed("34.4", of="gradient_with_z")
def without_softmax(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """the added term is the same for every logit: L's gradient by a logit is the softmax"""
    softmax_NV, size_N1, one_hot_NV = _parts(logits_NV, targets_N)
    return softmax_NV - one_hot_NV + 2 * zeta * size_N1


@listed("34.4", of="gradient_with_z")
def mean_over_tokens(logits_NV: Tensor, targets_N: Tensor, zeta: float) -> Tensor:
    """the gradient is divided by the number of tokens: the sum of the losses is asked for"""
    softmax_NV, size_N1, one_hot_NV = _parts(logits_NV, targets_N)
    return (softmax_NV * (1 + 2 * zeta * size_N1) - one_hot_NV) / len(logits_NV)

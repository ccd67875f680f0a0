"""Mistakes that readers make in chapter 25."""

import math
from collections.abc import Sequence
from itertools import pairwise

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
Table = Sequence[Sequence[float]]


# --- 1: turns -------------------------------------------------------------------------------------


@listed("25.1", of="turns_made")
def in_radians(n_tokens: int, theta: float, head_dim: int) -> list[float]:
    """these are radians: a turn is 2 pi of them"""
    return [n_tokens * theta ** (-2 * r / head_dim) for r in range(head_dim // 2)]


@listed("25.1", of="turns_made")
def half_the_exponent(n_tokens: int, theta: float, head_dim: int) -> list[float]:
    """the exponent is -r / head_dim: it is -2 r / head_dim, because a pair has two channels"""
    return [n_tokens * theta ** (-r / head_dim) / (2 * math.pi) for r in range(head_dim // 2)]


@listed("25.1", of="turns_made")
def from_pair_one(n_tokens: int, theta: float, head_dim: int) -> list[float]:
    """the pairs are counted from 1: the first one has r = 0 and turns by one radian per token"""
    return [n_tokens * theta ** (-2 * r / head_dim) / (2 * math.pi)
            for r in range(1, head_dim // 2 + 1)]


@listed("25.1", of="turns_made")
def tokens_of_a_turn(n_tokens: int, theta: float, head_dim: int) -> list[float]:
    """this is the number of texts in a turn: the task asks for the turns in a text"""
    return [2 * math.pi * theta ** (2 * r / head_dim) / n_tokens for r in range(head_dim // 2)]


# --- 2: the familiar length -----------------------------------------------------------------------


def _ratios(
    trained: int, theta: float, new_theta: float, head_dim: int, *, is_all: bool = False
) -> list[float]:
    found = []
    for r in range(head_dim // 2):
        old, new = theta ** (-2 * r / head_dim), new_theta ** (-2 * r / head_dim)
        if is_all or trained * old < 2 * math.pi:
            found.append(trained * old / new)
    return found


@listed("25.2", of="familiar_length")
def with_finished_pairs(trained: int, theta: float, new_theta: float, head_dim: int) -> int:
    """pairs that completed a turn are counted, too: they know all angles and set no limit"""
    return math.floor(min(_ratios(trained, theta, new_theta, head_dim, is_all=True)) + 1e-9)


@listed("25.2", of="familiar_length")
def the_slowest_pair(trained: int, theta: float, new_theta: float, head_dim: int) -> int:
    """only the slowest pair is asked: another pair reaches a new angle earlier"""
    return math.floor(_ratios(trained, theta, new_theta, head_dim)[-1] + 1e-9)


@listed("25.2", of="familiar_length")
def as_the_base(trained: int, theta: float, new_theta: float, head_dim: int) -> int:
    """the length grows like the base: each pair is slowed by a power of it below 1"""
    return math.floor(trained * new_theta / theta + 1e-9)


@listed("25.2", of="familiar_length")
def not_at_all(trained: int, theta: float, new_theta: float, head_dim: int) -> int:
    """the new base has no effect: slowed pairs need more tokens to reach the same angle"""
    return trained


# --- 3: looking back ------------------------------------------------------------------------------


@listed("25.3", of="looks_back")
def in_pairs(keys: Sequence[int]) -> list[int]:
    """the distances are in pairs: a pair is two tokens"""
    last: dict[int, int] = {}
    found = []
    for place, key in enumerate(keys):
        if key in last:
            found.append(place - last[key])
        last[key] = place
    return found


@listed("25.3", of="looks_back")
def to_the_first(keys: Sequence[int]) -> list[int]:
    """these are distances to the first occurrence: the latest one is as good and nearer"""
    first: dict[int, int] = {}
    found = []
    for place, key in enumerate(keys):
        if key in first:
            found.append(2 * (place - first[key]))
        first.setdefault(key, place)
    return found


@listed("25.3", of="looks_back")
def with_first_times(keys: Sequence[int]) -> list[int]:
    """a key that comes for the first time is there, too: it cannot be looked up yet"""
    last: dict[int, int] = {}
    found = []
    for place, key in enumerate(keys):
        found.append(2 * (place - last.get(key, place)))
        last[key] = place
    return found


# --- 4: bits per byte -----------------------------------------------------------------------------


def _sums(table: Table, edges: Sequence[int]) -> list[float]:
    return [sum(sum(row[begin:end]) for row in table)
            for begin, end in pairwise(edges)]


@listed("25.4", of="bits_of_parts")
def in_nats(nats: Table, n_bytes: Table, edges: Sequence[int]) -> list[float]:
    """these are nats per byte: a bit is ln 2 nats"""
    return [a / b for a, b in zip(_sums(nats, edges), _sums(n_bytes, edges), strict=True)]


@listed("25.4", of="bits_of_parts")
def times_ln_2(nats: Table, n_bytes: Table, edges: Sequence[int]) -> list[float]:
    """the nats are multiplied by ln 2: bits are more than nats, so divide"""
    return [a / b * math.log(2)
            for a, b in zip(_sums(nats, edges), _sums(n_bytes, edges), strict=True)]


@listed("25.4", of="bits_of_parts")
def mean_of_rows(nats: Table, n_bytes: Table, edges: Sequence[int]) -> list[float]:
    """this is a mean over texts of each text's own bits per byte: divide one sum by one sum"""
    parts = []
    for begin, end in pairwise(edges):
        each = [sum(a[begin:end]) / sum(b[begin:end]) for a, b in zip(nats, n_bytes, strict=True)]
        parts.append(sum(each) / len(each) / math.log(2))
    return parts


@listed("25.4", of="bits_of_parts")
def per_token(nats: Table, n_bytes: Table, edges: Sequence[int]) -> list[float]:
    """these are bits per token: divide by the bytes, which differ from token to token"""
    sizes = [len(nats) * (end - begin) for begin, end in pairwise(edges)]
    return [a / n / math.log(2) for a, n in zip(_sums(nats, edges), sizes, strict=True)]

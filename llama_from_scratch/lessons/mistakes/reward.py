"""Mistakes that readers make in chapter 52."""

import math
from collections.abc import Sequence

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


@listed("52.1", of="pair_loss")
def margin_added(chosen: float, rejected: float, margin: float) -> float:
    """the margin is added to the difference: it is subtracted, because it asks for more"""
    return math.log(1 + math.exp(-(chosen - rejected + margin)))


@listed("52.1", of="pair_loss")
def swapped(chosen: float, rejected: float, margin: float) -> float:
    """the two answers are swapped: the difference is chosen minus rejected"""
    return math.log(1 + math.exp(-(rejected - chosen - margin)))


@listed("52.1", of="pair_loss")
def without_margin(chosen: float, rejected: float, margin: float) -> float:
    """the margin is forgotten"""
    return math.log(1 + math.exp(-(chosen - rejected)))


@listed("52.1", of="pair_loss")
def without_log(chosen: float, rejected: float, margin: float) -> float:
    """the probability of being wrong is returned: the loss is minus the log of the other one"""
    return 1 - 1 / (1 + math.exp(-(chosen - rejected - margin)))


@listed("52.2", of="read_at")
def last_slot(ids: Sequence[int], end: int) -> int:
    """the last slot of the row is read: that is padding if another row is longer"""
    return len(ids) - 1


@listed("52.2", of="read_at")
def first_end(ids: Sequence[int], end: int) -> int:
    """the first end is read: that is the end of the user's turn"""
    return list(ids).index(end)


@listed("52.2", of="read_at")
def last_word(ids: Sequence[int], end: int) -> int:
    """the token before the end is read: there the model does not know yet that nothing follows"""
    return max(i for i, each in enumerate(ids) if each == end) - 1


@listed("52.3", of="chance")
def with_replacement(rank: int, n_pool: int, n: int) -> float:
    """the same answer can be drawn twice: n different answers are drawn from the pool"""
    return ((n_pool - rank) / n_pool) ** n - ((n_pool - rank - 1) / n_pool) ** n


@listed("52.3", of="chance")
def others_from_all(rank: int, n_pool: int, n: int) -> float:
    """the other n - 1 answers are taken from all others: they must be worse"""
    return math.comb(n_pool - 1, n - 1) / math.comb(n_pool, n)


@listed("52.3", of="chance")
def counted_from_the_worst(rank: int, n_pool: int, n: int) -> float:
    """the rank is counted from the worst answer: rank 0 is the best one"""
    return math.comb(rank, n - 1) / math.comb(n_pool, n)

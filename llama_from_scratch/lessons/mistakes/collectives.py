"""Mistakes that readers make in chapter 40."""

import itertools
from collections.abc import Sequence

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the bytes of a ring -----------------------------------------------------------------------


@listed("40.1", of="sent_by_each")
def one_round(n_bytes: int, n_ranks: int) -> float:
    """only one round is counted: an all-reduce is a reduce-scatter and an all-gather"""
    return (n_ranks - 1) * n_bytes / n_ranks


@listed("40.1", of="sent_by_each")
def whole_tensors(n_bytes: int, n_ranks: int) -> float:
    """each message is counted as a whole tensor: in a ring it is one piece of it"""
    return 2 * (n_ranks - 1) * n_bytes


@listed("40.1", of="sent_by_each")
def all_pieces(n_bytes: int, n_ranks: int) -> float:
    """a rank is counted as if it sent all its pieces: in each round one piece stays with it"""
    return 2 * n_bytes


@listed("40.1", of="sent_by_each")
def of_all_ranks(n_bytes: int, n_ranks: int) -> float:
    """the bytes of all ranks together are counted: the task asks for one rank's bytes"""
    return 2 * (n_ranks - 1) * n_bytes / n_ranks * n_ranks


@listed("40.1", of="sent_by_each")
def turned_over(n_bytes: int, n_ranks: int) -> float:
    """the fraction is upside down: there are n - 1 pieces, each of one n-th"""
    return 2 * n_ranks * n_bytes / max(n_ranks - 1, 1)


# --- 2: the ring the other way around -------------------------------------------------------------


@listed("40.2", of="pieces_of_step")
def same_direction(rank: int, step: int, n_ranks: int) -> tuple[int, int]:
    """these are the pieces of the ring of section 5, in which a rank sends to the next one"""
    return (rank - step) % n_ranks, (rank - step - 1) % n_ranks


@listed("40.2", of="pieces_of_step")
def without_modulo(rank: int, step: int, n_ranks: int) -> tuple[int, int]:
    """the numbers are not taken modulo n_ranks: after the last piece comes piece 0"""
    return rank + step, rank + step + 1


@listed("40.2", of="pieces_of_step")
def exchanged(rank: int, step: int, n_ranks: int) -> tuple[int, int]:
    """the pieces are exchanged: first the one that is sent, then the one that arrives"""
    return (rank + step + 1) % n_ranks, (rank + step) % n_ranks


@listed("40.2", of="pieces_of_step")
def always_its_own(rank: int, step: int, n_ranks: int) -> tuple[int, int]:
    """a rank sends its own piece in every step: after the first step it passes on what arrived"""
    return rank, (rank + step + 1) % n_ranks


@listed("40.2", of="pieces_of_step")
def steps_from_one(rank: int, step: int, n_ranks: int) -> tuple[int, int]:
    """the steps are counted from 1: in step 0 a rank sends its own piece"""
    return (rank + step - 1) % n_ranks, (rank + step) % n_ranks


# --- 3: the tree ----------------------------------------------------------------------------------


def _distances(n_ranks: int) -> list[int]:
    return [2**i for i in range((n_ranks - 1).bit_length())]


@listed("40.3", of="sends_to")
def without_end(rank: int, n_ranks: int) -> list[int]:
    """a rank sends to ranks that do not exist: rank + distance must be below n_ranks"""
    return [rank + distance for distance in _distances(n_ranks) if rank < distance]


@listed("40.3", of="sends_to")
def before_it_has_it(rank: int, n_ranks: int) -> list[int]:
    """a rank sends before it has the tensor: only ranks below the distance have it"""
    return [rank + distance for distance in _distances(n_ranks) if rank + distance < n_ranks]


@listed("40.3", of="sends_to")
def one_too_early(rank: int, n_ranks: int) -> list[int]:
    """a rank sends in the step in which it receives: that needs rank < distance, without ="""
    return [rank + distance for distance in _distances(n_ranks)
            if rank <= distance and rank + distance < n_ranks]


@listed("40.3", of="sends_to")
def who_sends_to_it(rank: int, n_ranks: int) -> list[int]:
    """this is the rank from which it receives: the task asks to which ranks it sends"""
    return [rank - distance for distance in _distances(n_ranks) if distance <= rank < 2 * distance]


@listed("40.3", of="sends_to")
def in_a_chain(rank: int, n_ranks: int) -> list[int]:
    """the tensor is passed on from each rank to the next: then it takes n - 1 steps"""
    return [rank + 1] if rank + 1 < n_ranks else []


# --- 4: the backward pass of an all-gather --------------------------------------------------------


def _own_slice(gradients: Sequence[Tensor], rank: int) -> Tensor:
    return gradients[rank].chunk(len(gradients))[rank]


@listed("40.4", of="gradients_of_parts")
def own_gradient_only(gradients: Sequence[Tensor]) -> list[Tensor]:
    """each rank takes its slice of its own gradient: the losses of the others depend on its part"""
    return [_own_slice(gradients, rank) for rank in range(len(gradients))]


@listed("40.4", of="gradients_of_parts")
def mean_instead_of_sum(gradients: Sequence[Tensor]) -> list[Tensor]:
    """the gradients are averaged: the loss of the program is the sum of the ranks' losses"""
    return list((sum(gradients) / len(gradients)).chunk(len(gradients)))


@listed("40.4", of="gradients_of_parts")
def not_cut(gradients: Sequence[Tensor]) -> list[Tensor]:
    """the sum is not cut: the gradient of a part is as long as the part"""
    return [sum(gradients) for _ in gradients]


@listed("40.4", of="gradients_of_parts")
def not_added(gradients: Sequence[Tensor]) -> list[Tensor]:
    """the gradient of rank 0 is cut for all: the gradients must be added up first"""
    return list(gradients[0].chunk(len(gradients)))


@listed("40.4", of="gradients_of_parts")
def without_its_own(gradients: Sequence[Tensor]) -> list[Tensor]:
    """only the other ranks' gradients are added up: a rank's own loss depends on its part, too"""
    total = sum(gradients)
    return [part - _own_slice(gradients, rank)
            for rank, part in enumerate(total.chunk(len(gradients)))]


# --- 5: the first call that differs ---------------------------------------------------------------


Calls = Sequence[Sequence[str]]


@listed("40.5", of="first_difference")
def counted_from_zero(calls: Calls) -> int | None:
    """the calls are counted from 0: the first one has the number 1"""
    for number, at_once in enumerate(itertools.zip_longest(*calls)):
        if len(set(at_once)) > 1:
            return number
    return None


@listed("40.5", of="first_difference")
def shortest_only(calls: Calls) -> int | None:
    """it stops where the shortest list ends: a rank that has ended differs from one that goes on"""
    for number, at_once in enumerate(zip(*calls, strict=False), start=1):
        if len(set(at_once)) > 1:
            return number
    return None


@listed("40.5", of="first_difference")
def last_difference(calls: Calls) -> int | None:
    """this is the last difference: the first one is the cause, and the later ones follow from it"""
    found = None
    for number, at_once in enumerate(itertools.zip_longest(*calls), start=1):
        found = number if len(set(at_once)) > 1 else found
    return found


@listed("40.5", of="first_difference")
def lengths_only(calls: Calls) -> int | None:
    """only the numbers of calls are compared: ranks can call different ones, equally many"""
    return None if len({len(of_rank) for of_rank in calls}) == 1 else min(map(len, calls)) + 1


@listed("40.5", of="first_difference")
def two_ranks_only(calls: Calls) -> int | None:
    """only ranks 0 and 1 are compared: any rank can be the one that differs"""
    for number, (one, other) in enumerate(itertools.zip_longest(*calls[:2]), start=1):
        if one != other:
            return number
    return None


# --- 6: where the ring catches up -----------------------------------------------------------------


def _doublings(n_ranks: int) -> int:
    return (n_ranks - 1).bit_length()


@listed("40.6", of="equal_at")
def bytes_of_tree_only(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """the bytes of the ring are left out: it sends (n - 1)/n of a tensor in each round"""
    k = _doublings(n_ranks)
    return (n_ranks - 1 - k) * latency_s * bytes_per_s / k


@listed("40.6", of="equal_at")
def latency_of_ring_only(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """the latency of the tree is left out: it has steps, too"""
    return (n_ranks - 1) * latency_s * bytes_per_s / (
        _doublings(n_ranks) - (n_ranks - 1) / n_ranks)


@listed("40.6", of="equal_at")
def one_of_two_trips(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """the tree is counted in one direction: the sum goes up and comes down again"""
    k = _doublings(n_ranks)
    return (2 * (n_ranks - 1) - k) * latency_s * bytes_per_s / (k - 2 * (n_ranks - 1) / n_ranks)


@listed("40.6", of="equal_at")
def divided_by_bandwidth(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """the latency is divided by the bandwidth: seconds times bytes per second are bytes"""
    k = _doublings(n_ranks)
    return (n_ranks - 1 - k) * latency_s / bytes_per_s / (k - (n_ranks - 1) / n_ranks)


@listed("40.6", of="equal_at")
def one_round_of_the_ring(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """the ring is counted with one round of n - 1 steps, and the tree with both its trips"""
    k = _doublings(n_ranks)
    return (n_ranks - 1 - 2 * k) * latency_s * bytes_per_s / (
        2 * k - (n_ranks - 1) / n_ranks)


@listed("40.6", of="equal_at")
def ring_is_whole(n_ranks: int, latency_s: float, bytes_per_s: float) -> float:
    """a message of the ring is taken as a whole tensor: then the ring could never catch up"""
    k = _doublings(n_ranks)
    return (n_ranks - 1 - k) * latency_s * bytes_per_s / (k - (n_ranks - 1))

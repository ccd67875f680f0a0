"""Mistakes that readers make in chapter 47."""

import math
from collections.abc import Mapping, Sequence

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
Sizes = Mapping[str, int]


# --- 1: the rank at a place -----------------------------------------------------------------------


@listed("47.1", of="rank_of")
def slowest_first(place: Sizes, sizes: Sizes) -> int:
    """the last axis changes fastest: ranks along the first axis are the neighbors"""
    rank = 0
    for axis, size in sizes.items():
        rank = rank * size + place[axis]
    return rank


@listed("47.1", of="rank_of")
def own_size_as_stride(place: Sizes, sizes: Sizes) -> int:
    """each place is multiplied by its own axis's size: the stride is the product of those before"""
    return sum(place[axis] * size for axis, size in sizes.items())


@listed("47.1", of="rank_of")
def stride_includes_itself(place: Sizes, sizes: Sizes) -> int:
    """the stride grows before it is used: along the first axis it is 1"""
    rank, stride = 0, 1
    for axis, size in sizes.items():
        stride *= size
        rank += place[axis] * stride
    return rank


@listed("47.1", of="rank_of")
def places_added(place: Sizes, sizes: Sizes) -> int:
    """the places are added up without strides: then several ranks have the same number"""
    return sum(place.values())


# --- 2: the ranks of a group ----------------------------------------------------------------------


def _place(rank: int, sizes: Sizes) -> dict[str, int]:
    found = {}
    for axis, size in sizes.items():
        rank, found[axis] = divmod(rank, size)
    return found


def _group(rank: int, sizes: Sizes, same: Sequence[str]) -> list[int]:
    here = _place(rank, sizes)
    return [r for r in range(math.prod(sizes.values()))
            if all(_place(r, sizes)[axis] == here[axis] for axis in same)]


@listed("47.2", of="group_of")
def same_along(rank: int, sizes: Sizes, along: Sequence[str]) -> list[int]:
    """the group has the ranks that are the same along these axes: along them its ranks differ"""
    return _group(rank, sizes, [axis for axis in sizes if axis in along])


@listed("47.2", of="group_of")
def first_axis_only(rank: int, sizes: Sizes, along: Sequence[str]) -> list[int]:
    """only the first of the axes is looked at: ranks may differ along all of them"""
    return _group(rank, sizes, [axis for axis in sizes if axis != along[0]])


@listed("47.2", of="group_of")
def without_itself(rank: int, sizes: Sizes, along: Sequence[str]) -> list[int]:
    """the rank itself is left out: it is in its own group"""
    found = _group(rank, sizes, [axis for axis in sizes if axis not in along])
    return [r for r in found if r != rank]


@listed("47.2", of="group_of")
def of_rank_0(rank: int, sizes: Sizes, along: Sequence[str]) -> list[int]:
    """this is the group of rank 0: compare with the place of `rank`"""
    return _group(0, sizes, [axis for axis in sizes if axis not in along])


@listed("47.2", of="group_of")
def neighbors_only(rank: int, sizes: Sizes, along: Sequence[str]) -> list[int]:
    """the ranks of a group are taken to be neighbors: only along the first axis they are"""
    n = math.prod(sizes[axis] for axis in along)
    return list(range(rank // n * n, rank // n * n + n))


# --- 3: what a rank reads of a checkpoint ---------------------------------------------------------

Reads = list[tuple[int, int, int]]


def _overlaps(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """File, first element in the tensor, how many."""
    found = []
    for file in range(n_files):
        first = max(file * n // n_files, rank * n // n_ranks)
        last = min((file + 1) * n // n_files, (rank + 1) * n // n_ranks)
        if first < last:
            found.append((file, first, last - first))
    return found


@listed("47.3", of="reads")
def place_in_the_tensor(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """`first` counts from the begin of the tensor: count from the begin of the file's piece"""
    return _overlaps(n, n_files, n_ranks, rank)


@listed("47.3", of="reads")
def place_in_the_rank(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """`first` counts from the begin of the rank's piece: count from the begin of the file's"""
    return [(file, first - rank * n // n_ranks, length)
            for file, first, length in _overlaps(n, n_files, n_ranks, rank)]


@listed("47.3", of="reads")
def end_instead_of_length(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """the last number is where the rank's elements end in the file: the task asks how many"""
    return [(file, first - file * n // n_files, first - file * n // n_files + length)
            for file, first, length in _overlaps(n, n_files, n_ranks, rank)]


@listed("47.3", of="reads")
def whole_files(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """whole files are read: of some of them the rank needs only a part"""
    return [(file, 0, n // n_files) for file, _, _ in _overlaps(n, n_files, n_ranks, rank)]


@listed("47.3", of="reads")
def file_of_its_number(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """a rank reads the file with its own number: that is right only for as many ranks as files"""
    return [(rank, 0, n // n_ranks)]


@listed("47.3", of="reads")
def empty_ones_too(n: int, n_files: int, n_ranks: int, rank: int) -> Reads:
    """files of which the rank needs nothing are in the list, with 0 elements"""
    needed = {file: (file, first - file * n // n_files, length)
              for file, first, length in _overlaps(n, n_files, n_ranks, rank)}
    return [needed.get(file, (file, 0, 0)) for file in range(n_files)]


# --- 4: the bytes of the states -------------------------------------------------------------------


@listed("47.4", of="bytes_on")
def over_dp_only(n: int, cp: int, dp: int) -> float:
    """the states are divided over dp alone: ranks along cp hold the same slices, and divide too"""
    return 6 * n + 16 * n / dp


@listed("47.4", of="bytes_on")
def gradients_divided_at_once(n: int, cp: int, dp: int) -> float:
    """the whole gradients are left out: in a pipeline they are added up whole, and then divided"""
    return 2 * n + 16 * n / (cp * dp)


@listed("47.4", of="bytes_on")
def twelve_bytes_owned(n: int, cp: int, dp: int) -> float:
    """an owned weight has 12 bytes here: its gradient, its master and two averages are 16"""
    return 6 * n + 12 * n / (cp * dp)


@listed("47.4", of="bytes_on")
def gradients_in_bfloat16(n: int, cp: int, dp: int) -> float:
    """the gradients are counted with 2 bytes: they are added up in fp32, which has 4"""
    return 4 * n + 14 * n / (cp * dp)


@listed("47.4", of="bytes_on")
def without_weights(n: int, cp: int, dp: int) -> float:
    """the bfloat16 weights are left out: each GPU computes with all of its weights"""
    return 4 * n + 16 * n / (cp * dp)


@listed("47.4", of="bytes_on")
def all_divided(n: int, cp: int, dp: int) -> float:
    """weights and whole gradients are divided as well: only ZeRO stage 3 divides the weights"""
    return 22 * n / (cp * dp)


# --- 5: the useful share of the time --------------------------------------------------------------


def _useful(
    between_s: float, interval_s: float, save_s: float, restart_s: float, *, lost: float = 0.5
) -> float:
    return 1 - (restart_s + lost * interval_s) / between_s - save_s / interval_s


@listed("47.5", of="useful")
def as_one_gpu(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """the time between failures is for one GPU: n of them fail n times as often"""
    return _useful(alone_s, interval_s, save_s, restart_s)


@listed("47.5", of="useful")
def whole_interval_lost(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """a failure loses a whole interval here: on average it comes in the middle of one"""
    return _useful(alone_s / n_gpus, interval_s, save_s, restart_s, lost=1.0)


@listed("47.5", of="useful")
def nothing_lost(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """only the restart is counted: the work since the last checkpoint is lost as well"""
    return _useful(alone_s / n_gpus, interval_s, save_s, restart_s, lost=0.0)


@listed("47.5", of="useful")
def saves_are_free(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """the saves cost nothing here: each interval has one"""
    return _useful(alone_s / n_gpus, interval_s, 0.0, restart_s)


@listed("47.5", of="useful")
def one_save_per_failure(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """one save is counted for each failure: there is one in each interval"""
    between_s = alone_s / n_gpus
    return 1 - (restart_s + interval_s / 2 + save_s) / between_s


@listed("47.5", of="useful")
def the_lost_share(
    n_gpus: int, alone_s: float, interval_s: float, save_s: float, restart_s: float
) -> float:
    """this is the share that is lost: the task asks for the rest"""
    return 1 - _useful(alone_s / n_gpus, interval_s, save_s, restart_s)

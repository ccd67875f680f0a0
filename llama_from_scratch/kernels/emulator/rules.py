"""The rules of CUDA's memory, applied to a list of accesses: races, sectors moved, bank conflicts.

This is pure arithmetic on the columns of `ACCESS`, one row per access of one thread. It finds what
belongs together by sorting, not by simulating: if the lanes of a warp each reach an instruction for
the k-th time since the last barrier, these accesses are one access of the warp.

Notebook 30. Source: CUDA C++ Programming Guide, "Memory Hierarchy", "Device Memory Accesses" and
"Shared Memory".
"""

import math
from collections.abc import Collection, Iterator

import numpy as np

from llama_from_scratch.config import record

READ, WRITE, ATOMIC = range(3)
WARP = 32
SECTOR_BYTES = 32  # memory delivers whole sectors
N_BANKS, BANK_BYTES = 32, 4

ACCESS = np.dtype([
    ("address", "u8"), ("place", "u8"), ("line", "u4"), ("block", "u4"), ("interval", "u4"),
    ("epoch", "u4"), ("thread", "u2"), ("bytes", "u2"), ("kind", "u1"), ("array", "u1")],
    align=True)
"""As in trace.h, in the order of execution. `array`: the number of the tensor or shared array that
contains the address."""

SYNC = np.dtype([("block", "u4"), ("warp", "u4"), ("epoch", "u4"), ("mask", "u4")])
"""A completed __syncwarp: the lanes in `mask` met, which ended this epoch of the warp."""


def _run_numbers(*columns: np.ndarray) -> np.ndarray:
    """Returns, for rows sorted by these columns, 0 for all that equal the first, then 1, ..."""
    is_new = np.zeros(len(columns[0]), bool)
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
    return np.cumsum(is_new)


def _numbers(*columns: np.ndarray) -> np.ndarray:
    """Returns for each row the number of its combination of values, in sorted order."""
    order = np.lexsort(columns[::-1])
    numbers = np.empty(len(order), np.int64)
    numbers[order] = _run_numbers(*(column[order] for column in columns))
    return numbers


def _occurrences(numbers: np.ndarray) -> np.ndarray:
    """Returns for each row how many rows before it have the same number."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    counts = np.empty(len(order), np.int64)
    counts[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return counts


def _spread(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row, value) for each value from first to last, of each row."""
    counts = last - first + 1
    rows = np.repeat(np.arange(len(first)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + first[rows]


def warp_accesses(accesses: np.ndarray) -> np.ndarray:
    """Returns for each access the number of the warp access that it is part of.

    A warp access consists of the k-th accesses of its lanes at an instruction since the last
    barrier. (Real lanes that separate at a branch may meet later or not at all. Then the machine
    needs more accesses than are counted here.)
    """
    once = _numbers(accesses["block"], accesses["thread"], accesses["interval"], accesses["place"],
                    accesses["line"], accesses["kind"], accesses["array"])
    return _numbers(accesses["block"], accesses["thread"] // WARP, accesses["interval"],
                    accesses["place"], accesses["line"], accesses["kind"], accesses["array"],
                    _occurrences(once))


def sectors(accesses: np.ndarray, warp_access: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each warp access (32-byte sectors touched, fewest that could hold its bytes)."""
    address, size = accesses["address"].astype(np.int64), accesses["bytes"].astype(np.int64)
    n = int(warp_access.max(initial=-1)) + 1
    touched = _distinct_per_group(warp_access, address // SECTOR_BYTES,
                                  (address + size - 1) // SECTOR_BYTES, n)
    step = math.gcd(*np.unique(address).tolist(), *np.unique(size).tolist(), SECTOR_BYTES)
    distinct = step * _distinct_per_group(warp_access, address // step,
                                          (address + size) // step - 1, n)
    return touched, -(-distinct // SECTOR_BYTES)


def _distinct_per_group(
    group: np.ndarray, first: np.ndarray, last: np.ndarray, n_groups: int
) -> np.ndarray:
    rows, values = _spread(first, last)
    pairs = np.unique(np.stack([group[rows], values]), axis=1)
    return np.bincount(pairs[0], minlength=n_groups)


def passes(accesses: np.ndarray, warp_access: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each warp access (passes over 32 banks, passes if there were no conflict).

    A bank is 4 bytes wide and delivers one word per pass, to any number of lanes. Accesses of 8 and
    16 bytes are made by half and quarter warps, because 32 banks deliver no more. On the machine,
    several atomics on one word run one after the other; that is not counted.
    """
    size = np.maximum(accesses["bytes"].astype(np.int64), BANK_BYTES)
    part = accesses["thread"].astype(np.int64) % WARP // np.maximum(N_BANKS * BANK_BYTES // size, 1)
    turn = _numbers(warp_access, part)
    address = accesses["address"].astype(np.int64)
    rows, words = _spread(address // BANK_BYTES, (address + accesses["bytes"] - 1) // BANK_BYTES)
    turn_of, word = np.unique(np.stack([turn[rows], words]), axis=1)
    (turn_of, _), per_bank = np.unique(np.stack([turn_of, word % N_BANKS]), axis=1,
                                       return_counts=True)
    worst = np.zeros(int(turn.max(initial=-1)) + 1, np.int64)
    np.maximum.at(worst, turn_of, per_bank)
    owner = np.zeros(len(worst), np.int64)
    owner[turn] = warp_access
    n = int(warp_access.max(initial=-1)) + 1
    needed = np.bincount(owner, weights=worst, minlength=n).astype(np.int64)
    return needed, np.bincount(owner, minlength=n)


@record
class Clash:
    """Two accesses that race, as rows of the list. `n_places`: where their instructions race."""

    first: int
    second: int
    address: int
    n_places: int


_INSTRUCTION = ("place", "line", "kind")   # the columns that name one


def clashes(accesses: np.ndarray, syncs: np.ndarray, *, shared: Collection[int]) -> list[Clash]:
    """Returns every pair of instructions that race, each with one example.

    shared: the numbers of the arrays of which each block has its own.

    Two accesses race if different threads access the same byte, at least one writes, not both are
    atomic, and nothing orders them. Within a block, __syncthreads orders all accesses, and
    __syncwarp orders the accesses of the lanes that met in it. Nothing orders two blocks of a
    launch. (Real blocks can pass data with a __threadfence and an atomic flag. Such code is
    reported although it may be right.)
    """
    found: dict[tuple, list] = {}
    for number in np.unique(accesses["array"][accesses["kind"] != READ]):
        rows = np.flatnonzero(accesses["array"] == number)
        address, size = (accesses[name][rows].astype(np.int64) for name in ("address", "bytes"))
        step = math.gcd(*np.unique(address).tolist(), *np.unique(size).tolist())
        owners, cells = _spread(address // step, (address + size) // step - 1)
        rows = rows[owners]
        suspects = _suspects(accesses, rows, cells, int(number) in shared)
        for members, cell, is_within_block in suspects:
            for pair in _pairs(accesses, members, syncs, is_within_block):
                key = (number, *sorted(tuple(accesses[name][row] for name in _INSTRUCTION)
                                       for row in pair))
                found.setdefault(key, [pair, cell * step, set()])[2].add(cell)
    return [Clash(first=min(pair), second=max(pair), address=int(address), n_places=len(cells))
            for pair, address, cells in found.values()]


def _suspects(
    accesses: np.ndarray, rows: np.ndarray, cells: np.ndarray, is_shared: bool,
) -> Iterator[tuple[np.ndarray, int, bool]]:
    """Yields (rows, cell, within a block?) of each cell that rivals access and do not only read.

    Rivals are several threads of a block in one interval, or several blocks.
    """
    block, interval, thread, kind = (accesses[name][rows].astype(np.int64)
                                     for name in ("block", "interval", "thread", "kind"))
    views = [((cells, block, interval), thread, True), ((cells,), block, False)]
    for group_columns, rival, is_within_block in views[:1 if is_shared else 2]:
        order = np.lexsort((rival, *group_columns[::-1]))
        group = _run_numbers(*(column[order] for column in group_columns))
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        ends = np.append(starts[1:], len(group)) - 1
        have_rivals = rival[order][starts] != rival[order][ends]
        least, most = (ufunc.reduceat(kind[order], starts) for ufunc in (np.minimum, np.maximum))
        for k in np.flatnonzero(have_rivals & (most != READ) & (least != ATOMIC)):
            members = order[starts[k]:ends[k] + 1]
            yield rows[members], int(cells[members[0]]), is_within_block


def _pairs(
    accesses: np.ndarray, members: np.ndarray, syncs: np.ndarray, is_within_block: bool
) -> Iterator[tuple[int, int]]:
    """Yields a racing pair, if any, for each two instructions (or one twice) that access a cell."""
    # Between blocks, one access represents all that its block makes with that instruction.
    if not is_within_block:
        like = _numbers(*(accesses[name][members] for name in ("block", *_INSTRUCTION)))
        members = members[np.unique(like, return_index=True)[1]]
    kind = accesses["kind"][members]
    place = _numbers(accesses["place"][members], accesses["line"][members])
    parts = [members[(kind == k) & (place == p)]
             for k, p in sorted(set(zip(kind.tolist(), place.tolist(), strict=True)))]
    for i, some in enumerate(parts):
        for others in parts[i:]:
            kinds = {int(accesses["kind"][some[0]]), int(accesses["kind"][others[0]])}
            if kinds in ({READ}, {ATOMIC}):
                continue
            for pair in ((int(a), int(b)) for a in some for b in others):
                if _is_unordered(accesses[list(pair)], syncs, is_within_block):
                    yield pair
                    break


def _is_unordered(pair: np.ndarray, syncs: np.ndarray, is_within_block: bool) -> bool:
    if not is_within_block:
        return bool(pair["block"][0] != pair["block"][1])
    if pair["thread"][0] == pair["thread"][1]:
        return False
    warp = pair["thread"] // WARP
    if warp[0] != warp[1]:
        return True
    # `told` are the lanes ordered after the earlier access: they have met one of these lanes since.
    early, late = pair[np.argsort(pair["epoch"], kind="stable")]
    between = syncs[(syncs["block"] == early["block"]) & (syncs["warp"] == warp[0])
                    & (syncs["epoch"] >= early["epoch"]) & (syncs["epoch"] < late["epoch"])]
    told = 1 << int(early["thread"]) % WARP
    for mask in np.sort(between, order="epoch")["mask"].tolist():
        if mask & told:
            told |= mask
    return not told >> int(late["thread"]) % WARP & 1

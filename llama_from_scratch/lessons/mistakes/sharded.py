"""Mistakes that readers make in chapter 42."""

import math
from collections.abc import Sequence

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: padding -----------------------------------------------------------------------------------


@listed("42.1", of="padding_of")
def remainder(n: int, n_ranks: int) -> int:
    """this is what remains after dividing: the padding is what is missing to the next multiple"""
    return n % n_ranks


@listed("42.1", of="padding_of")
def never_none(n: int, n_ranks: int) -> int:
    """a whole row of padding is added where the number of ranks divides n: then none is needed"""
    return n_ranks - n % n_ranks


@listed("42.1", of="padding_of")
def one_part(n: int, n_ranks: int) -> int:
    """this is the length of one part, rounded up: the task asks for the padding of all parts"""
    return -(-n // n_ranks)


@listed("42.1", of="padding_of")
def padded_length(n: int, n_ranks: int) -> int:
    """this is the length of the padded buffer: the padding is that minus n"""
    return -(-n // n_ranks) * n_ranks


# --- 2: which part of a parameter is owned --------------------------------------------------------


def _overlap(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    return max(start, rank * n_part), min(start + size, (rank + 1) * n_part)


@listed("42.2", of="owned")
def place_in_the_buffer(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """the first number is a place in the buffer: count from the parameter's own first element"""
    first, last = _overlap(start, size, rank, n_part)
    return (first, last - first) if last > first else (0, 0)


@listed("42.2", of="owned")
def place_in_the_part(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """the first number is a place in the rank's part: count from the parameter's first element"""
    first, last = _overlap(start, size, rank, n_part)
    return (first - rank * n_part, last - first) if last > first else (0, 0)


@listed("42.2", of="owned")
def end_instead_of_length(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """the second number is where the part ends: the task asks how many elements there are"""
    first, last = _overlap(start, size, rank, n_part)
    return (first - start, last - start) if last > first else (0, 0)


@listed("42.2", of="owned")
def nothing_is_negative(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """a rank that owns nothing gets a negative length: then the answer is (0, 0)"""
    first, last = _overlap(start, size, rank, n_part)
    return first - start, last - first


@listed("42.2", of="owned")
def cut_by_itself(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """the parameter is cut as if it began at place 0: it begins at `start` in the buffer"""
    first, last = _overlap(0, size, rank, n_part)
    return (first, last - first) if last > first else (0, 0)


@listed("42.2", of="owned")
def last_place_included(start: int, size: int, rank: int, n_part: int) -> tuple[int, int]:
    """one element too many is counted: place (rank + 1) * n_part belongs to the next rank"""
    first, last = max(start, rank * n_part), min(start + size, (rank + 1) * n_part + 1)
    return (first - start, last - first) if last > first else (0, 0)


# --- 3: the bytes of each stage -------------------------------------------------------------------


def _kept(n: int, n_ranks: int, *, weights: int = 2, gradients: bool, owned: bool) -> float:
    return (weights * n + 4 * n / (n_ranks if gradients else 1)
            + 12 * n / (n_ranks if owned else 1))


@listed("42.3", of="bytes_kept")
def master_on_every_rank(n: int, n_ranks: int, stage: int) -> float:
    """the master weights are whole on every rank: from stage 1 on only the owner steps them"""
    weights = 2 * n if stage < 3 else 0
    return (weights + 4 * n + 4 * n / (n_ranks if stage >= 2 else 1)
            + 8 * n / (n_ranks if stage >= 1 else 1))


@listed("42.3", of="bytes_kept")
def gradients_in_stage_1(n: int, n_ranks: int, stage: int) -> float:
    """stage 1 divides the gradients here: it divides only what belongs to the optimizer"""
    return _kept(n, n_ranks, weights=2 if stage < 3 else 0, gradients=stage >= 1,
                 owned=stage >= 1)


@listed("42.3", of="bytes_kept")
def weights_stay(n: int, n_ranks: int, stage: int) -> float:
    """in stage 3 the bfloat16 weights are still whole: they exist only while a block computes"""
    return _kept(n, n_ranks, gradients=stage >= 2, owned=stage >= 1)


@listed("42.3", of="bytes_kept")
def weights_divided_too(n: int, n_ranks: int, stage: int) -> float:
    """stage 3 keeps a part of the bfloat16 weights, too: between steps it has only the master"""
    fp32 = _kept(n, n_ranks, weights=0, gradients=stage >= 2, owned=stage >= 1)
    return fp32 + 2 * n / (n_ranks if stage == 3 else 1)


@listed("42.3", of="bytes_kept")
def one_average(n: int, n_ranks: int, stage: int) -> float:
    """one average is counted: AdamW has two, of the gradient and of its square"""
    weights = 2 * n if stage < 3 else 0
    return (weights + 4 * n / (n_ranks if stage >= 2 else 1)
            + 8 * n / (n_ranks if stage >= 1 else 1))


@listed("42.3", of="bytes_kept")
def bfloat16_gradients(n: int, n_ranks: int, stage: int) -> float:
    """the gradients are counted with 2 bytes: they are added up in fp32, which has 4"""
    weights = 2 * n if stage < 3 else 0
    return (weights + 2 * n / (n_ranks if stage >= 2 else 1)
            + 12 * n / (n_ranks if stage >= 1 else 1))


@listed("42.3", of="bytes_kept")
def all_ranks_together(n: int, n_ranks: int, stage: int) -> float:
    """these are the bytes of all ranks together: the task asks for one rank's bytes"""
    weights = 2 * n if stage < 3 else 0
    return n_ranks * (weights + 4 * n / (n_ranks if stage >= 2 else 1)
                      + 12 * n / (n_ranks if stage >= 1 else 1))


# --- 4: the length of a gradient in pieces --------------------------------------------------------

Pieces = Sequence[Sequence[Tensor]]


@listed("42.4", of="length_of")
def lengths_added(pieces: Pieces) -> float:
    """the lengths of the pieces are added up: squares can be added, lengths cannot"""
    return sum(float(piece.norm()) for of_rank in pieces for piece in of_rank)


@listed("42.4", of="length_of")
def lengths_of_ranks_added(pieces: Pieces) -> float:
    """each rank takes its root, and the roots are added up: take the root once, at the end"""
    return sum(math.sqrt(sum(float((piece**2).sum()) for piece in of_rank)) for of_rank in pieces)


@listed("42.4", of="length_of")
def first_rank_only(pieces: Pieces) -> float:
    """only rank 0 is counted: every rank has pieces that no other rank has"""
    return math.sqrt(sum(float((piece**2).sum()) for piece in pieces[0]))


@listed("42.4", of="length_of")
def without_root(pieces: Pieces) -> float:
    """the root is missing: this is the square of the length"""
    return sum(float((piece**2).sum()) for of_rank in pieces for piece in of_rank)


@listed("42.4", of="length_of")
def sum_then_square(pieces: Pieces) -> float:
    """the elements are added up before they are squared: square each element first"""
    return abs(sum(float(piece.sum()) for of_rank in pieces for piece in of_rank))


@listed("42.4", of="length_of")
def mean_over_ranks(pieces: Pieces) -> float:
    """the squares are averaged over the ranks: pieces are different parts, not repetitions"""
    total = sum(float((piece**2).sum()) for of_rank in pieces for piece in of_rank)
    return math.sqrt(total / len(pieces))


# --- 5: the schedule of stage 3 -------------------------------------------------------------------


def _forward(blocks: Sequence[str], keeps: bool) -> list[str]:
    events = []
    for block in blocks:
        events += [f"gather {block}", f"forward {block}"] + ([] if keeps else [f"free {block}"])
    return events


@listed("42.5", of="schedule")
def not_gathered_again(blocks: Sequence[str], keeps: bool) -> list[str]:
    """backward computes with weights that were freed: gather them again before it"""
    events = _forward(blocks, keeps)
    for block in reversed(blocks):
        events += [f"backward {block}", f"reduce {block}", f"free {block}"]
    return events


@listed("42.5", of="schedule")
def same_order(blocks: Sequence[str], keeps: bool) -> list[str]:
    """backward goes through the blocks in the order of forward: it begins with the last one"""
    events = _forward(blocks, keeps)
    for block in blocks:
        events += ([] if keeps else [f"gather {block}"]) + [
            f"backward {block}", f"reduce {block}", f"free {block}"]
    return events


@listed("42.5", of="schedule")
def never_freed_in_backward(blocks: Sequence[str], keeps: bool) -> list[str]:
    """the weights stay after backward: then the last of them are all there at once"""
    events = _forward(blocks, keeps)
    for block in reversed(blocks):
        events += ([] if keeps else [f"gather {block}"]) + [f"backward {block}", f"reduce {block}"]
    return events


@listed("42.5", of="schedule")
def gathered_although_kept(blocks: Sequence[str], keeps: bool) -> list[str]:
    """kept weights are gathered again before backward: they are still there"""
    events = _forward(blocks, keeps)
    for block in reversed(blocks):
        events += [f"gather {block}", f"backward {block}", f"reduce {block}", f"free {block}"]
    return events


@listed("42.5", of="schedule")
def always_freed(blocks: Sequence[str], keeps: bool) -> list[str]:
    """the weights are freed after forward although they are to be kept until backward"""
    events = _forward(blocks, False)
    for block in reversed(blocks):
        events += ([] if keeps else [f"gather {block}"]) + [
            f"backward {block}", f"reduce {block}", f"free {block}"]
    return events


@listed("42.5", of="schedule")
def keeps_ignored(blocks: Sequence[str], keeps: bool) -> list[str]:
    """`keeps` has no effect: with it, blocks are not freed in forward, nor gathered again"""
    events = _forward(blocks, False)
    for block in reversed(blocks):
        events += [f"gather {block}", f"backward {block}", f"reduce {block}", f"free {block}"]
    return events


@listed("42.5", of="schedule")
def reduced_at_the_end(blocks: Sequence[str], keeps: bool) -> list[str]:
    """all gradients are reduced at the end: then they are all whole at once, as in stage 1"""
    events = _forward(blocks, keeps)
    for block in reversed(blocks):
        events += ([] if keeps else [f"gather {block}"]) + [f"backward {block}", f"free {block}"]
    return events + [f"reduce {block}" for block in reversed(blocks)]


# --- 6: the bytes sent in stage 3 -----------------------------------------------------------------


def _share(n_ranks: int) -> float:
    return (n_ranks - 1) / n_ranks


@listed("42.6", of="bytes_sent")
def root_twice(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """the root is gathered for backward as well: it stays whole from forward to backward"""
    return (2 * (n if keeps else 2 * n) + 4 * n) * n_micro * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def keeping_ignored(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """`keeps` has no effect: kept weights are gathered once"""
    return (2 * (2 * n - root) + 4 * n) * n_micro * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def one_micro_batch(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """the micro-batches are left out: stage 3 gathers and reduces in each of them"""
    return (2 * (n if keeps else 2 * n - root) + 4 * n) * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def gradients_once(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """the gradients are reduced once per step: here each micro-batch reduces its own"""
    return (2 * (n if keeps else 2 * n - root) * n_micro + 4 * n) * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def as_all_reduce(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """the factor is an all-reduce's: a gather or a reduce-scatter is half of one"""
    return 2 * (2 * (n if keeps else 2 * n - root) + 4 * n) * n_micro * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def gradients_in_bfloat16(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """the gradients are counted with 2 bytes: they travel in fp32"""
    return 2 * ((n if keeps else 2 * n - root) + n) * n_micro * _share(n_ranks)


@listed("42.6", of="bytes_sent")
def whole_tensors(n: int, root: int, n_ranks: int, n_micro: int, keeps: bool) -> float:
    """whole tensors are counted: one part of n_ranks is there already and is not sent"""
    return (2 * (n if keeps else 2 * n - root) + 4 * n) * n_micro

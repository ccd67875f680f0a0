"""Common mistakes of readers in chapter 44."""

from collections.abc import Callable, Sequence

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.parallel.pipeline.schedule import Schedule
from llama_from_scratch.parallel.pipeline.schedules import make

listed = Listed()


# --- 1: the idle share of 1F1B --------------------------------------------------------------------


@listed("44.1", of="idle_share")
def relative_to_computing(n_ranks: int, n_micro_batches: int) -> float:
    """this is the bubble, relative to the time of computing and not to all time"""
    return (n_ranks - 1) / n_micro_batches


@listed("44.1", of="idle_share")
def all_ranks_idle(n_ranks: int, n_micro_batches: int) -> float:
    """a rank is idle for P - 1 units and not for P: it waits for the others, not for itself"""
    return n_ranks / (n_micro_batches + n_ranks)


@listed("44.1", of="idle_share")
def busy_share(n_ranks: int, n_micro_batches: int) -> float:
    """this is the share of the time in which a rank computes"""
    return n_micro_batches / (n_micro_batches + n_ranks - 1)


@listed("44.1", of="idle_share")
def without_micro_batches(n_ranks: int, n_micro_batches: int) -> float:
    """this is the share for one batch that is not divided into micro-batches"""
    return (n_ranks - 1) / n_ranks


# --- 2: the order of 1F1B -------------------------------------------------------------------------


def _order(n_before: int, n_micro_batches: int) -> list[str]:
    n_before = min(n_before, n_micro_batches)
    order = [f"F{m}" for m in range(n_before)]
    for m in range(n_micro_batches):
        order += [f"F{n_before + m}"] * (n_before + m < n_micro_batches) + [f"B{m}"]
    return order


@listed("44.2", of="my_1f1b")
def all_forward_first(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """all forward passes come first, which keeps all micro-batches"""
    return _order(n_micro_batches, n_micro_batches)


@listed("44.2", of="my_1f1b")
def one_too_many_before(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """there are P - rank forward passes before the alternation, and P - 1 - rank are enough"""
    return _order(n_ranks - rank, n_micro_batches)


@listed("44.2", of="my_1f1b")
def more_on_later_ranks(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """later ranks begin with more forward passes, but rank 0 waits the longest for a gradient"""
    return _order(rank, n_micro_batches)


@listed("44.2", of="my_1f1b")
def same_on_every_rank(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """every rank begins with P - 1 forward passes, but only rank 0 needs that many"""
    return _order(n_ranks - 1, n_micro_batches)


@listed("44.2", of="my_1f1b")
def backward_in_reverse(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """the last micro-batch goes back first, but the first one is the first that is ready"""
    order = _order(n_ranks - 1 - rank, n_micro_batches)
    return [word if word[0] == "F" else f"B{n_micro_batches - 1 - int(word[1:])}"
            for word in order]


@listed("44.2", of="my_1f1b")
def without_the_limit(rank: int, n_ranks: int, n_micro_batches: int) -> list[str]:
    """with fewer micro-batches than ranks there are forward passes that do not exist"""
    n_before = n_ranks - 1 - rank
    return [f"F{m}" for m in range(n_before)] + _order(n_before, n_micro_batches)[
        min(n_before, n_micro_batches):]


# --- 3: what a rank keeps -------------------------------------------------------------------------


def _most(order: Sequence[str], last: str, *, is_after: bool = False) -> int:
    n, most = 0, 0
    for word in order:
        n += (word[0] == "F") - (is_after and word[0] == last)
        most = max(most, n)
        n -= (not is_after) and word[0] == last
    return most


@listed("44.3", of="most_kept")
def until_b(order: Sequence[str]) -> int:
    """a micro-batch is given back after B, but its activations are needed until W"""
    return _most(order, "B")


@listed("44.3", of="most_kept")
def until_w_only(order: Sequence[str]) -> int:
    """only W gives back, so in a list without W everything is kept"""
    return _most(order, "W")


@listed("44.3", of="most_kept")
def number_of_micro_batches(order: Sequence[str]) -> int:
    """this is the number of micro-batches, and not how many are kept at once"""
    return sum(word[0] == "F" for word in order)


@listed("44.3", of="most_kept")
def kept_at_the_end(order: Sequence[str]) -> int:
    """this is what is kept at the end of the list, and not the largest count"""
    return 0


# --- 4: the layers of each piece ------------------------------------------------------------------


@listed("44.4", of="layers_per_piece")
def ends_as_others(n_layers: int, n_pieces: int) -> list[int]:
    """embedding and head do not count, so the first and the last piece have too much to do"""
    size, n_more = divmod(n_layers, n_pieces)
    return [size + (piece < n_more) for piece in range(n_pieces)]


@listed("44.4", of="layers_per_piece")
def units_not_layers(n_layers: int, n_pieces: int) -> list[int]:
    """embedding and head are still among the units of the first and the last piece"""
    return [(n_layers + 2) // n_pieces] * n_pieces


@listed("44.4", of="layers_per_piece")
def only_the_first(n_layers: int, n_pieces: int) -> list[int]:
    """the last piece has not one layer fewer, although it has the head"""
    sizes = [(n_layers + 2) // n_pieces] * n_pieces
    sizes[0] -= 1
    return sizes


@listed("44.4", of="layers_per_piece")
def only_the_last(n_layers: int, n_pieces: int) -> list[int]:
    """the first piece has not one layer fewer, although it has the embedding"""
    sizes = [(n_layers + 2) // n_pieces] * n_pieces
    sizes[-1] -= 1
    return sizes


# --- 5: backward in two halves --------------------------------------------------------------------

Halves = tuple[Tensor, Callable[[], Tensor]]


@listed("44.5", of="split_backward")
def turned_around(dy: Tensor, x: Tensor, W: Tensor) -> Halves:
    """dW is the other way round: it must have the shape of W, so dy comes first"""
    return dy @ W, lambda: x.flatten(0, 1).T @ dy.flatten(0, 1)


@listed("44.5", of="split_backward")
def of_each_row(dy: Tensor, x: Tensor, W: Tensor) -> Halves:
    """there is a dW for each row of the batch, and they are not added up"""
    return dy @ W, lambda: dy.mT @ x


@listed("44.5", of="split_backward")
def mean_over_rows(dy: Tensor, x: Tensor, W: Tensor) -> Halves:
    """the rows of the batch are averaged, but their gradients must be added up"""
    return dy @ W, lambda: (dy.mT @ x).mean(0)


@listed("44.5", of="split_backward")
def first_row_only(dy: Tensor, x: Tensor, W: Tensor) -> Halves:
    """dW has only the first row of the batch"""
    return dy @ W, lambda: dy[0].T @ x[0]


# --- 6: a smaller bubble --------------------------------------------------------------------------


@listed("44.6", of="my_schedule")
def unchanged() -> Schedule:
    """this is still 1F1B with eight micro-batches"""
    return make("1f1b", 4, n_micro_batches=8)


@listed("44.6", of="my_schedule")
def gpipe_with_more() -> Schedule:
    """with GPipe, a rank keeps all micro-batches, 16 of them"""
    return make("gpipe", 4, n_micro_batches=16)


@listed("44.6", of="my_schedule")
def two_chunks() -> Schedule:
    """interleaved has a smaller bubble, but its first rank keeps more than 1F1B's"""
    return make("interleaved", 4, n_micro_batches=8, n_chunks=2)


@listed("44.6", of="my_schedule")
def fewer_micro_batches() -> Schedule:
    """with fewer micro-batches the bubble is larger"""
    return make("1f1b", 4, n_micro_batches=4)

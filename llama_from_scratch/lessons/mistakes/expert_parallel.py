"""Mistakes that readers make in chapter 46."""

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: rows to each rank -------------------------------------------------------------------------


@listed("46.1", of="rows_to_ranks")
def in_turns(counts: list[int], n_ranks: int) -> list[int]:
    """expert number e is put on rank e % n_ranks: neighbors are on the same rank"""
    return [sum(counts[rank::n_ranks]) for rank in range(n_ranks)]


@listed("46.1", of="rows_to_ranks")
def evenly(counts: list[int], n_ranks: int) -> list[int]:
    """every rank gets the same number of rows: how many it gets depends on its experts"""
    return [sum(counts) // n_ranks] * n_ranks


@listed("46.1", of="rows_to_ranks")
def too_few_experts(counts: list[int], n_ranks: int) -> list[int]:
    """each rank gets `n_ranks` experts: it has len(counts) // n_ranks of them"""
    return [sum(counts[rank * n_ranks:(rank + 1) * n_ranks]) for rank in range(n_ranks)]


@listed("46.1", of="rows_to_ranks")
def starts(counts: list[int], n_ranks: int) -> list[int]:
    """where each rank's rows end is returned: the number of its rows is asked for"""
    own = len(counts) // n_ranks
    return [sum(counts[:(rank + 1) * own]) for rank in range(n_ranks)]


# --- 2: what a rank receives ----------------------------------------------------------------------


@listed("46.2", of="received_by")
def what_it_sends(table: list[list[int]], rank: int) -> list[list[int]]:
    """the rank's own row of the table is read: that is what it sends"""
    own = len(table[0]) // len(table)
    return [table[rank][other * own:(other + 1) * own] for other in range(len(table))]


@listed("46.2", of="received_by")
def by_expert(table: list[list[int]], rank: int) -> list[list[int]]:
    """the list is sorted by expert and then by rank: rows come by rank and then by expert"""
    own = len(table[0]) // len(table)
    return [[row[e] for row in table] for e in range(rank * own, (rank + 1) * own)]


@listed("46.2", of="received_by")
def of_the_first_experts(table: list[list[int]], rank: int) -> list[list[int]]:
    """the first experts are taken on every rank: rank r has those from r times own on"""
    own = len(table[0]) // len(table)
    return [row[:own] for row in table]


# --- 3: from the order of arrival to the order of experts -----------------------------------------


@listed("46.3", of="order_by_expert")
def as_they_come(counts: list[list[int]]) -> list[int]:
    """the rows stay as they came: the rows of one expert are then not neighbors"""
    return list(range(sum(map(sum, counts))))


def _order(experts: list[int]) -> list[int]:
    return sorted(range(len(experts)), key=lambda i: experts[i])


@listed("46.3", of="order_by_expert")
def read_by_columns(counts: list[list[int]]) -> list[int]:
    """the counts are read expert by expert: the rows come rank by rank"""
    return _order([rank for column in zip(*counts, strict=True) for rank, n in enumerate(column)
                   for _ in range(n)])


@listed("46.3", of="order_by_expert")
def numbers_of_experts(counts: list[list[int]]) -> list[int]:
    """the expert of each row is returned: which row comes first, second, ... is asked for"""
    return [e for row in counts for e, n in enumerate(row) for _ in range(n)]


@listed("46.3", of="order_by_expert")
def the_way_back(counts: list[list[int]]) -> list[int]:
    """where each row goes is returned: which row comes to each place is asked for"""
    order = _order(numbers_of_experts(counts))
    back = [0] * len(order)
    for place, row in enumerate(order):
        back[row] = place
    return back


# --- 4: bytes -------------------------------------------------------------------------------------


@listed("46.4", of="sent_in_a_layer")
def with_those_that_stay(rows: list[list[int]], rank: int, row_bytes: int) -> int:
    """rows for the rank's own experts are counted: they do not travel"""
    return 2 * (sum(rows[rank]) + sum(row[rank] for row in rows)) * row_bytes


@listed("46.4", of="sent_in_a_layer")
def only_forward(rows: list[list[int]], rank: int, row_bytes: int) -> int:
    """backward is forgotten: the gradients of both journeys travel, too"""
    here = rows[rank][rank]
    return (sum(rows[rank]) + sum(row[rank] for row in rows) - 2 * here) * row_bytes


@listed("46.4", of="sent_in_a_layer")
def only_own_rows(rows: list[list[int]], rank: int, row_bytes: int) -> int:
    """only the rank's own rows are counted: it also sends back the results for the others"""
    return 2 * (sum(rows[rank]) - rows[rank][rank]) * row_bytes


@listed("46.4", of="sent_in_a_layer")
def four_times_own(rows: list[list[int]], rank: int, row_bytes: int) -> int:
    """the rank's own rows are counted four times: what it sends back are the rows it received"""
    return 4 * (sum(rows[rank]) - rows[rank][rank]) * row_bytes


# --- 5: the length of the gradient ----------------------------------------------------------------


def _squares(gradients: list[Tensor]) -> Tensor:
    return sum(g.square().sum() for g in gradients)


@listed("46.5", of="whole_length")
def own_experts_only(dense: list[Tensor], experts: list[Tensor], ep: int) -> Tensor:
    """the experts of rank 0 alone are counted: then each rank would find another length"""
    return (_squares(dense[:1]) + _squares(experts[:1])).sqrt()


@listed("46.5", of="whole_length")
def every_rank(dense: list[Tensor], experts: list[Tensor], ep: int) -> Tensor:
    """the gradients of all ranks are counted: copies count once"""
    return (_squares(dense) + _squares(experts)).sqrt()


@listed("46.5", of="whole_length")
def experts_of_every_rank(dense: list[Tensor], experts: list[Tensor], ep: int) -> Tensor:
    """the experts of all ranks are counted: ranks r and r + ep hold the same ones"""
    return (_squares(dense[:1]) + _squares(experts)).sqrt()


@listed("46.5", of="whole_length")
def lengths_added(dense: list[Tensor], experts: list[Tensor], ep: int) -> Tensor:
    """lengths are added: add up the squares, and take one root at the end"""
    return dense[0].norm() + sum(g.norm() for g in experts[:ep])

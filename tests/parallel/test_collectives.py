"""Tests of `parallel.collectives`: what the ranks do is in `collectives_on_ranks`."""

from fractions import Fraction

import collectives_on_ranks as on_ranks
import pytest
import torch

from llama_from_scratch.parallel.comm_log import SHARE_SENT
from llama_from_scratch.parallel.launch import Ranks

RINGS = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")


@pytest.fixture(scope="module")
def ranks():
    with Ranks(on_ranks.N_RANKS, timeout_s=300.0) as ranks:
        ranks.run(on_ranks.make_groups)
        yield ranks


@pytest.mark.parametrize("name", ["all_reduce", "naive_all_reduce"])
def test_a_sum_is_that_of_pytorch_and_has_the_same_bits_on_all_ranks(ranks, name):
    for found in ranks.run(on_ranks.sums, name):
        assert len(found) >= len(on_ranks.SHAPES) * len(on_ranks.DTYPES)
        for size, ours, theirs, sizes, all_ours in found:
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            assert all(torch.equal(other, ours) for other in all_ours)
            if ours.is_floating_point():
                # each of size - 1 additions rounds once, here and there
                bound = 2 * (size - 1) * torch.finfo(ours.dtype).eps * sizes
                assert ((ours.double() - theirs.double()).abs() <= bound).all()
            else:
                assert torch.equal(ours, theirs)


def test_a_tensor_that_is_not_contiguous_is_replaced_in_place(ranks):
    for found in ranks.run(on_ranks.sum_of_a_slanted_one):
        assert all(found)


@pytest.mark.parametrize("pieces", [on_ranks.pieces, on_ranks.uneven_pieces])
def test_reduce_scatter_all_gather_and_all_to_all_are_those_of_pytorch(ranks, pieces):
    for found in ranks.run(pieces):
        assert found and all(equal == (True, True, True) for equal in found)


def test_a_broadcast_reaches_every_rank_from_every_source(ranks):
    for found in ranks.run(on_ranks.broadcasts):
        assert all(found)


def test_the_bytes_sent_are_exactly_those_of_the_formulas(ranks):
    n_numbers = 120  # 2, 3, 4 and 5 ranks divide it
    by_rank = ranks.run(on_ranks.bytes_sent, n_numbers)
    for name in RINGS:
        for size in range(1, 6):
            sent = [n_bytes for found in by_rank for of, _, n_bytes, _ in found[name]
                    if of == size]
            share = 4 * n_numbers * SHARE_SENT[name](size)
            assert len(sent) == size and sum(sent) == size * share
            if name != "broadcast":  # in a ring all ranks send alike
                assert sent == [share] * size


def test_pieces_of_unequal_length_cost_the_same_in_all_and_differ_by_a_piece(ranks):
    n_numbers = 61
    by_rank = ranks.run(on_ranks.bytes_sent, n_numbers)
    for found in by_rank:
        for size, rank, n_bytes, n_sends in found["all_reduce"]:
            lengths = [len(part) for part in torch.zeros(n_numbers).tensor_split(size)]
            left_out = lengths[rank] + lengths[(rank + 1) % size] if size > 1 else 2 * n_numbers
            assert n_bytes == 4 * (2 * n_numbers - left_out) and n_sends == 2 * (size - 1)
    for size in range(1, 6):
        total = sum(n_bytes for found in by_rank for of, _, n_bytes, _ in found["all_reduce"]
                    if of == size)
        assert Fraction(total, size) == 4 * n_numbers * SHARE_SENT["all_reduce"](size)


def test_the_naive_sum_costs_rank_0_one_tensor_for_every_other_rank(ranks):
    for rank, found in enumerate(ranks.run(on_ranks.bytes_sent, 120)):
        for size, number, n_bytes, _ in found["naive_all_reduce"]:
            assert n_bytes == 480 * ((size - 1) if number == 0 else 1), rank


def test_a_tree_takes_as_many_steps_as_doublings(ranks):
    steps = {size: n_sends for found in ranks.run(on_ranks.bytes_sent, 120)
             for size, number, _, n_sends in found["broadcast"] if number == 0}
    assert steps == {1: 0, 2: 1, 3: 2, 4: 2, 5: 3}


def test_large_tensors_do_not_deadlock(ranks):
    for number, (summed, part, gathered, exchanged, sent) in enumerate(
            ranks.run(on_ranks.large)):
        assert (summed, part, gathered, exchanged, sent) == (10, 10, 4, 4, 2), number


def test_what_cannot_be_cut_is_refused_with_the_cure(ranks):
    for gathered, rows, halfway, *_ in ranks.run(on_ranks.refused):
        assert "of a length of 17 among 5 ranks, rank" in gathered and "tensor_split" in gathered
        assert "7 rows for 5 ranks" in rows and "as both `sent` and `received` say" in halfway

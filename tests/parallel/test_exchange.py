"""A row of a table of exchanges: what one rank sends in all of them."""

from fractions import Fraction

from llama_from_scratch.parallel.exchange import Exchange


def test_bytes_are_the_ring_s_share_times_the_number_of_calls():
    row = Exchange(what="weights", op="all_gather", group="dp", size=4, n_bytes=100, times=3)
    assert row.sent_bytes == 3 * 75


def test_a_number_that_ranks_do_not_divide_stays_a_fraction():
    row = Exchange(what="weights", op="reduce_scatter", group="dp", size=3, n_bytes=10)
    assert row.sent_bytes == Fraction(20, 3)

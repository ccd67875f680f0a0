"""Tests of `parallel.differentiable`: what the ranks do is in `collectives_on_ranks`."""

import collectives_on_ranks as on_ranks
import pytest

from llama_from_scratch.parallel.launch import Ranks

ROUNDING = 1e-7
"""Central differences with a step of 1e-5 of sums around 100, in float64."""


@pytest.fixture(scope="module")
def ranks():
    with Ranks(on_ranks.N_RANKS, timeout_s=300.0) as ranks:
        ranks.run(on_ranks.make_groups)
        yield ranks


@pytest.mark.parametrize("name", on_ranks.PAIRS)
def test_gradients_are_those_of_finite_differences_across_ranks(ranks, name):
    for found in ranks.run(on_ranks.gradients, name):
        assert all(difference < ROUNDING for difference in found), found


def test_a_wrong_gradient_is_noticed(ranks):
    by_rank = ranks.run(on_ranks.wrong_gradients)
    for name in on_ranks.WRONG:
        assert max(found[name] for found in by_rank) > 0.01, name


def test_the_calls_of_the_backward_pass_have_a_note(ranks):
    for found in ranks.run(on_ranks.notes):
        assert found == [("all_gather", "tokens"), ("reduce_scatter", ""),
                         ("all_gather", "gradient"), ("reduce_scatter", "gradient of tokens")]


def test_a_group_of_one_is_free(ranks):
    assert all(ranks.run(on_ranks.alone_is_free))


def test_a_second_derivative_is_refused(ranks):
    assert all("differentiate twice" in found for found in ranks.run(on_ranks.twice))


def test_an_axis_that_the_ranks_do_not_divide_is_refused(ranks):
    for found in ranks.run(on_ranks.refused):
        scatter, reduce_scatter = found[-2:]
        assert scatter == ("scatter divides the axis evenly among the ranks; axis 1 of (5, 7) has "
                           "length 7 for 5 ranks. Pad it to a multiple of 5")
        assert reduce_scatter.startswith("reduce_scatter divides the axis evenly")

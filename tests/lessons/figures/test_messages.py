import pytest
import torch

from llama_from_scratch.lessons.figures.messages import Stuck, contents, trace
from llama_from_scratch.parallel import collectives


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 7])
def test_a_sum_is_complete_on_every_rank_after_two_rounds(n_ranks):
    traced = trace(collectives.all_reduce, n_ranks)
    assert traced.n_steps == 2 * (n_ranks - 1)
    assert len(traced.messages) == n_ranks * traced.n_steps
    everyone = tuple(range(n_ranks))
    for after in traced.after:
        assert contents(after) == [(piece, everyone) for piece in range(n_ranks)]
    if n_ranks > 1:
        assert {(message.to - message.source) % n_ranks for message in traced.messages} == {1}


def test_before_says_whose_numbers_and_which_pieces_there_are():
    assert [contents(x) for x in trace(collectives.reduce_scatter, 2).before] == [
        [(0, (0,)), (1, (0,))], [(0, (1,)), (1, (1,))]]
    assert [contents(x) for x in trace(collectives.all_gather, 2, is_cut=True).before] == [
        [(0, (0,))], [(1, (1,))]]


def test_the_messages_of_a_ring_are_one_piece_each():
    found = [(message.step, message.source, *contents(message.content)[0])
             for message in trace(collectives.reduce_scatter, 3).messages]
    assert found == [(0, 0, 2, (0,)), (0, 1, 0, (1,)), (0, 2, 1, (2,)),
                     (1, 0, 1, (0, 2)), (1, 1, 2, (0, 1)), (1, 2, 0, (1, 2))]


def test_a_tree_doubles_and_a_naive_sum_goes_one_by_one():
    tree = [(message.step, message.source, message.to)
            for message in trace(collectives.broadcast, 6).messages]
    assert tree == [(0, 0, 1), (1, 0, 2), (1, 1, 3), (2, 0, 4), (2, 1, 5)]
    naive = [(message.step, message.source, message.to)
             for message in trace(collectives.naive_all_reduce, 3).messages]
    assert naive == [(0, 1, 0), (1, 2, 0), (2, 0, 1), (3, 0, 2)]


def test_what_was_added_twice_or_mixed_is_seen():
    x = torch.tensor([[0, 2, 2, 1], [1, 1, 1, 1]])
    assert contents(x) == [(1, (0, 0, 1)), (-1, (0, 1))]


def test_ranks_that_all_send_first_are_stuck_and_the_cure_is_named():
    def sends_first(x, group):
        group.send(x, to=(group.rank + 1) % group.size)
        return group.receive(x, source=(group.rank - 1) % group.size)

    with pytest.raises(Stuck, match="rank 0 sends to rank 1, which does not receive it"):
        trace(sends_first, 3)


def test_a_receive_without_a_send_is_stuck():
    with pytest.raises(Stuck, match="rank 1 waits for rank 0, which sends nothing"):
        trace(lambda x, group: group.receive(x, source=0) if group.rank else x, 2)


def test_an_error_of_one_rank_is_raised_and_not_that_others_wait_for_it():
    def fails(x, group):
        if group.rank == 1:
            raise KeyError("my mistake")
        return group.receive(x, source=1)

    with pytest.raises(KeyError, match="my mistake"):
        trace(fails, 3)


def test_the_same_run_gives_the_same_messages():
    runs = [[(message.step, message.source, message.to) for message in trace(
        collectives.naive_all_reduce, 5).messages] for _ in range(5)]
    assert all(run == runs[0] for run in runs)

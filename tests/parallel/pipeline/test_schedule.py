import dataclasses

import pytest

from llama_from_scratch.parallel.pipeline.schedule import Op, Schedule


def test_a_pass_is_written_with_its_kind_its_micro_batch_and_its_chunk_if_not_the_first():
    assert str(Op(kind="F", micro_batch=3)) == "F3"
    assert str(Op(kind="W", micro_batch=12, chunk=2)) == "W12.2"


def test_pieces_go_round_the_ranks_and_home_is_the_inverse_of_piece():
    schedule = Schedule(name="x", n_ranks=4, n_chunks=2, n_micro_batches=1, ops=((),) * 4)
    assert [schedule.piece(rank, 0) for rank in range(4)] == [0, 1, 2, 3]
    assert [schedule.piece(rank, 1) for rank in range(4)] == [4, 5, 6, 7]
    assert schedule.n_pieces == 8
    for piece in range(8):
        assert schedule.piece(*schedule.home(piece)) == piece


def test_a_schedule_with_a_w_divides_backward():
    ops = tuple(Op(kind=kind, micro_batch=0) for kind in "FBW")
    schedule = Schedule(name="x", n_ranks=1, n_chunks=1, n_micro_batches=1, ops=(ops,))
    assert schedule.splits_backward
    assert not dataclasses.replace(schedule, ops=(ops[:2],)).splits_backward


def test_a_misspelled_field_is_named():
    with pytest.raises(ValueError, match="did you mean 'micro_batch'"):
        Op(kind="F", microbatch=0)

"""Who sends what to whom, and in the order of the sender whatever the receiver asks first."""

import on_ranks
import torch

from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline import mail, schedule
from llama_from_scratch.parallel.pipeline.schedules import make

on_ranks.by_value(__name__)


def test_messages_of_a_schedule_go_to_the_next_piece_and_back():
    order = make("interleaved", 2, n_micro_batches=2, n_chunks=2)
    sent = [mail.sent_by(order, rank, op) for rank in range(2) for op in order.ops[rank]]
    found = {(m.what, m.micro_batch, m.piece): (m.source, m.target, m.returns)
             for m in sent if m is not None}
    assert found["stream", 0, 1] == (0, 1, False) and found["stream", 0, 2] == (1, 0, True)
    assert found["gradient", 1, 2] == (1, 0, False) and found["gradient", 1, 1] == (0, 1, True)
    assert len(found) == 2 * 2 * 3


def test_one_rank_with_several_chunks_sends_nothing():
    order = schedule.Schedule(name="alone", n_ranks=1, n_chunks=2, n_micro_batches=1, ops=((
        *(schedule.Op(kind="F", micro_batch=0, chunk=c) for c in range(2)),
        *(schedule.Op(kind="B", micro_batch=0, chunk=c) for c in (1, 0))),))
    assert all(mail.sent_by(order, 0, op) is None for op in order.ops[0])


def asked_in_another_order(world, order, passes):
    """What rank 1 receives if it needs the second micro-batch first."""
    axes = Mesh(pp=2).on(world)
    box = mail.Mail(order, axes.pp, mail.channels(axes, n_chunks=1), lambda m: torch.empty(3))
    found = {}
    with box.closed_at_end():
        for op in passes[world.rank]:
            if world.rank == 0:
                box.send(op, torch.full((3,), 10.0 + op.micro_batch))
            else:
                found[op.micro_batch] = box.receive(op, mail.STREAM).tolist()
    return found


def test_what_comes_early_is_kept_until_it_is_needed():
    first, second = (schedule.Op(kind="F", micro_batch=m) for m in range(2))
    order = schedule.Schedule(name="odd", n_ranks=2, n_chunks=1, n_micro_batches=2,
                              ops=((first, second), (second, first)))
    assert on_ranks.launch(asked_in_another_order, 2, order, order.ops) == [
        {}, {1: [11.0] * 3, 0: [10.0] * 3}]

"""The debug mode: ranks that would not do the same are found, and both call sites are named."""

import importlib
import inspect
import re

import on_ranks
import pytest
import torch

from llama_from_scratch.parallel import differentiable
from llama_from_scratch.parallel.agreement import call_site, seconds
from llama_from_scratch.parallel.launch import RankFailed, Ranks, launch
from llama_from_scratch.parallel.mesh import Mesh

launching = importlib.import_module("llama_from_scratch.parallel.launch")

on_ranks.by_value(__name__)


def disagreement(function, n_ranks=2, **more):
    """The message of the error, without the ends of a rank's traceback."""
    with pytest.raises(RankFailed) as caught:
        on_ranks.launch(function, n_ranks, is_debug=True, **more)
    first = str(caught.value).split("\n")[0]
    assert re.match(r"rank \d raised Disagreement: ", first), first
    return first.partition(": ")[2]


def lines_of(function):
    """The numbers of the lines that are marked, in their order."""
    lines, first = inspect.getsourcelines(function)
    return [first + number for number, line in enumerate(lines) if line.rstrip().endswith("# here")]


def other_op(world, x):
    if world.rank == 1:
        return world.broadcast(x)  # here
    return world.all_reduce(x)  # here


def other_shape(world, x):
    return world.all_reduce(torch.cat([x] * (1 + world.rank)))


def other_dtype(world, x):
    return world.all_gather(x.double() if world.rank else x)


def other_reduction(world, x):
    return world.all_reduce(x, op="max" if world.rank else "sum")


def other_source(world, x):
    return world.broadcast(x, source=world.rank)


CASES = {
    other_op: ("all_reduce (sum) of (2,) float32", "broadcast (from 0) of (2,) float32"),
    other_shape: ("all_reduce (sum) of (2,) float32", "all_reduce (sum) of (4,) float32"),
    other_dtype: ("all_gather of (4,) float32", "all_gather of (4,) float64"),
    other_reduction: ("all_reduce (sum) of (2,) float32", "all_reduce (max) of (2,) float32"),
    other_source: ("broadcast (from 0) of (2,) float32", "broadcast (from 1) of (2,) float32"),
}


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_another_collective_is_found(function):
    def third(world):
        world.barrier()
        world.all_reduce(torch.ones(3))
        function(world, torch.ones(2))

    said = disagreement(third)
    assert "as number 3, rank " in said and "Look for a branch" in said
    for rank, what in enumerate(CASES[function]):
        assert f"rank {rank} calls {what} in group 'world' (test_agreement.py:" in said


def test_both_call_sites_are_named():
    said = disagreement(other_op, x=torch.ones(2))
    broadcast, all_reduce = lines_of(other_op)
    assert f"in group 'world' (test_agreement.py:{all_reduce} in other_op)" in said
    assert f"in group 'world' (test_agreement.py:{broadcast} in other_op)" in said


def test_a_call_inside_of_autograd_is_named_by_the_code_that_asked_for_it():
    def in_autograd(world):
        if world.rank == 0:
            differentiable.add_up(torch.ones(2, requires_grad=True), world)
        world.barrier()

    line = in_autograd.__code__.co_firstlineno + 2
    assert f"(test_agreement.py:{line} in in_autograd)" in disagreement(in_autograd)


def test_a_rank_that_ends_early_is_found_at_once():
    def early(world):
        world.all_reduce(torch.ones(2))
        if world.rank == 0:
            world.barrier()

    first = early.__code__.co_firstlineno
    assert disagreement(early) == (
        "all ranks of a group must call the same collectives; rank 0 calls barrier of (1,) float32 "
        f"in group 'world' (test_agreement.py:{first + 3} in early), and rank 1 has ended: its "
        "last call was all_reduce (sum) of (2,) float32 in group 'world', "
        f"test_agreement.py:{first + 1} in early")


def test_a_rank_that_never_begins_is_found_at_once():
    said = disagreement(lambda world: world.rank or world.barrier(), 3)
    assert "and rank 1 has ended: it called no collective" in said


def test_a_rank_that_is_elsewhere_is_found_after_a_while_with_the_place_where_it_is():
    def elsewhere(world):
        axes = Mesh(tp=2).on(world)
        (axes.tp if world.rank else world).all_reduce(torch.ones(1))

    with pytest.raises(RankFailed) as caught:
        launch(elsewhere, 2, timeout_s=3.0, is_debug=True)
    said = str(caught.value).split("\n")[0]
    assert "did not come within 1.5 s: its last call was all_reduce (sum) of (1,) float32" in said
    assert "in group 'world'" in said and "in group 'tp'" in said


def test_a_tensor_that_is_received_otherwise_than_it_was_sent_is_found():
    def mail(world):
        if world.rank == 0:
            world.send(torch.ones(3), to=1)
            world.send(torch.ones(4), to=1)
        else:
            world.receive(torch.ones(3), source=0)
            world.receive(torch.ones(5), source=0)

    first = mail.__code__.co_firstlineno
    assert disagreement(mail) == (
        "a rank receives tensors as they are sent; as number 2, rank 1 receives (5,) float32 "
        f"(test_agreement.py:{first + 6} in mail), and rank 0 sends (4,) float32 "
        f"(test_agreement.py:{first + 3} in mail). Make shape, dtype and order equal")


def test_a_message_that_nobody_sends_is_found():
    said = disagreement(lambda world: world.rank or world.receive(torch.ones(1), source=1))
    assert "rank 0 calls receive from rank 1" in said and "and rank 1 has ended" in said


def right(world):
    """Everything that must not be found: uneven rows, several groups, what is only started."""
    axes = Mesh(tp=2, dp=2).on(world)
    if axes.dp.rank:
        axes.tp.all_reduce(torch.ones(2))
    axes.tp.all_reduce(torch.ones(2 + axes.dp.rank))
    axes.dp.all_gather(torch.ones(2 + axes.tp.rank))
    pending = [world.start_all_reduce(torch.ones(2)), axes.tp.start_all_gather(torch.ones(2))]
    sent = [world.rank + to for to in range(4)]
    world.all_to_all(torch.ones(sum(sent), 2), sent=sent, received=sent)
    for each in pending:
        each.wait()
    going = world.start_send(torch.ones(2), to=(world.rank + 1) % 4)
    world.receive(torch.ones(2), source=(world.rank - 1) % 4)
    going.wait()
    return world.gather_objects("x" * world.rank)[-1]


def test_ranks_that_agree_compute_as_always_and_functions_begin_anew():
    def uneven(world):
        if world.rank == 0:
            world.send(torch.ones(1), to=1)
        elif world.rank == 1:
            world.receive(torch.ones(1), source=0)
            world.kept.n = 1

    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S, is_debug=True) as ranks:
        assert ranks.run(right) == ["xxx"] * 4
        ranks.run(uneven)
        assert ranks.run(right) == ["xxx"] * 4


def test_the_call_site_is_the_code_outside_the_group():
    assert re.fullmatch(r"\S+.py:\d+ in \w+", call_site())
    assert seconds(1.5).total_seconds() == 1.5

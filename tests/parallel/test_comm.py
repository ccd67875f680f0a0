"""Every collective against torch's own and against arithmetic, and what is refused."""

from fractions import Fraction

import on_ranks
import pytest
import torch
import torch.distributed as dist

from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.world import alone

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64)
on_ranks.by_value(__name__)


@pytest.fixture(scope="module", params=(2, 4))
def ranks(request):
    with Ranks(request.param, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


def values(rank, *shape, dtype):
    """Small whole numbers, other ones on each rank, whose sums bf16 holds exactly."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(-20, 20, shape, generator=generator).to(dtype)


def torchs_own(world, op, x):
    out, group = x.clone(), world.process_group
    if op in ("sum", "max", "min"):
        dist.all_reduce(out, getattr(dist.ReduceOp, op.upper()), group=group)
    elif op == "reduce_scatter":
        dist.reduce_scatter_tensor(out := x.new_empty(len(x) // world.size, *x.shape[1:]), x,
                                   group=group)
    elif op == "all_gather":
        dist.all_gather_into_tensor(out := x.new_empty(len(x) * world.size, *x.shape[1:]), x,
                                    group=group)
    elif op == "all_to_all":
        dist.all_to_all_single(out, x, group=group)
    else:
        dist.broadcast(out, src=1, group=group)
    return out


def ours(world, op, x):
    if op in ("sum", "max", "min"):
        return world.all_reduce(x, op=op)
    if op == "broadcast":
        return world.broadcast(x, source=1)
    return getattr(world, op)(x)


def by_hand(op, xs, rank):
    whole = torch.stack(xs)
    parts = whole.unflatten(1, (len(xs), -1))
    return {"sum": lambda: whole.sum(0), "max": lambda: whole.amax(0), "min": lambda: whole.amin(0),
            "reduce_scatter": lambda: parts[:, rank].sum(0), "broadcast": lambda: xs[1],
            "all_gather": lambda: whole.flatten(0, 1),
            "all_to_all": lambda: parts[:, rank].flatten(0, 1)}[op]()


OPS = ("sum", "max", "min", "reduce_scatter", "all_gather", "all_to_all", "broadcast")


def compare(world):
    wrong = []
    for dtype in DTYPES:
        for op in OPS:
            xs = [values(rank, 8, 3, dtype=dtype) for rank in range(world.size)]
            found = ours(world, op, xs[world.rank].clone())
            for which, other in (("torch", torchs_own(world, op, xs[world.rank])),
                                 ("by hand", by_hand(op, xs, world.rank))):
                if found.dtype != dtype or not torch.equal(found, other.to(dtype)):
                    wrong.append((dtype, op, which))
    return wrong


def test_every_collective_equals_torchs_and_arithmetic(ranks):
    assert ranks.run(compare) == [[]] * ranks.n_ranks


def in_place_or_not(world):
    x = values(world.rank, 8, dtype=torch.float32)
    before = x.clone()
    kept = all(torch.equal(x, before) and getattr(world, op)(x) is not x and torch.equal(x, before)
               for op in ("reduce_scatter", "all_gather", "all_to_all"))
    return kept, world.all_reduce(x) is x, world.broadcast(x) is x


def test_all_reduce_and_broadcast_change_their_tensor_and_the_others_do_not(ranks):
    assert ranks.run(in_place_or_not) == [(True, True, True)] * ranks.n_ranks


def strided(world):
    x = values(world.rank, 8, 8, dtype=torch.float64)
    return all(torch.equal(getattr(world, op)(x.T), getattr(world, op)(x.T.contiguous()))
               for op in ("reduce_scatter", "all_gather", "all_to_all"))


def test_inputs_may_have_any_strides(ranks):
    assert ranks.run(strided) == [True] * ranks.n_ranks


def begun_together(world):
    """Several collectives in flight, into tensors that are given; waited for in another order."""
    x = values(world.rank, 8, dtype=torch.float64)
    gathered, part = x.new_empty(8 * world.size), x.new_empty(8 // world.size)
    copies = [x.clone() for _ in range(3)]
    pending = [world.start_all_gather(x, out=gathered), world.start_reduce_scatter(x, out=part),
               *(world.start_all_reduce(copy) for copy in copies)]
    for each in reversed(pending):
        each.wait()
    is_same = pending[0].wait() is gathered and pending[1].wait() is part  # waiting twice is free
    rights = [world.all_gather(x), world.reduce_scatter(x), *[world.all_reduce(x.clone())] * 3]
    found = [gathered, part, *copies]
    return is_same, [torch.equal(a, b) for a, b in zip(found, rights, strict=True)]


def test_collectives_that_were_only_started_give_the_same(ranks):
    assert ranks.run(begun_together) == [(True, [True] * 5)] * ranks.n_ranks


def around(world):
    """Every rank sends to the next one: started first, so that no rank waits for itself."""
    x, received = values(world.rank, 5, dtype=torch.bfloat16), torch.zeros(5, dtype=torch.bfloat16)
    after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    sent = world.start_send(x, to=after)
    arrived = world.receive(received, source=before)
    sent.wait()
    if world.rank == 0:
        world.send(x[::2], to=1)
    elif world.rank == 1:
        world.receive(received[:3], source=0)
        expected = torch.cat((values(0, 5, dtype=x.dtype)[::2], values(0, 5, dtype=x.dtype)[3:]))
        return torch.equal(received, expected)
    return arrived is received and torch.equal(received, values(before, 5, dtype=x.dtype))


def test_send_and_receive_carry_a_tensor_around(ranks):
    assert ranks.run(around) == [True] * ranks.n_ranks


def ragged(world):
    """Rank r sends r + to rows to rank `to`: some of them none."""
    sent = [world.rank + to for to in range(world.size)]
    rows = torch.cat([torch.full((n, 2), 10.0 * world.rank + to) for to, n in enumerate(sent)])
    world.log.clear()
    found = world.all_to_all(rows, sent=sent, received=sent)
    right = torch.cat([torch.full((n, 2), 10.0 * source + world.rank)
                       for source, n in enumerate(sent)])
    return torch.equal(found, right), world.log.sent_bytes()


def test_all_to_all_with_uneven_rows_logs_exactly_what_leaves_the_rank(ranks):
    n = ranks.n_ranks
    rows = [sum(rank + to for to in range(n) if to != rank) for rank in range(n)]
    assert ranks.run(ragged) == [(True, 8 * leaving) for leaving in rows]


def to_one(world):
    """All rows go to rank 1, which sends none."""
    n = 3 * (world.rank != 1)
    sent = [n if to == 1 else 0 for to in range(world.size)]
    received = [3 * (source != 1) * (world.rank == 1) for source in range(world.size)]
    world.log.clear()
    found = world.all_to_all(torch.full((n, 2), float(world.rank)), sent=sent, received=received)
    return found[:, 0].tolist(), world.log.sent_bytes()


def test_a_rank_may_send_or_receive_no_row_at_all(ranks):
    right = [([], 24) for _ in range(ranks.n_ranks)]
    right[1] = [float(rank) for rank in range(ranks.n_ranks) if rank != 1 for _ in range(3)], 0
    assert ranks.run(to_one) == right
    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S, is_debug=True) as checked:
        assert checked.run(to_one) == [([], 24), ([0.0] * 3, 0)]


def objects(world):
    given = {"rank": world.rank, "text": "x" * 100 * world.rank}
    return world.gather_objects(given)


def test_objects_of_different_sizes_are_gathered(ranks):
    right = [{"rank": rank, "text": "x" * 100 * rank} for rank in range(ranks.n_ranks)]
    assert ranks.run(objects) == [right] * ranks.n_ranks


def complete_before_wait(world):
    pending = world.start_all_reduce(torch.ones(1000))
    while not pending._arrived_s:  # computes something
        torch.ones(100).sum()
    pending.wait()
    return world.log.calls[-1].exposed_s


def test_a_call_that_was_complete_while_the_rank_computed_ends_then_and_exposes_nothing(ranks):
    assert ranks.run(complete_before_wait) == [0.0] * ranks.n_ranks


def waits_from_the_beginning(world):
    world.log.clear()
    x = torch.ones(4 * world.size)
    for op in ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"):
        getattr(world, op)(x)
    world.barrier()
    world.start_all_reduce(x).wait()
    return [call.waited_s == call.began_s for call in world.log.calls]


def test_a_call_that_is_not_begun_early_is_waited_for_from_its_beginning(ranks):
    expected = [[True] * 6 + [False] if ranks.n_ranks > 1 else []] * ranks.n_ranks
    assert ranks.run(waits_from_the_beginning) == expected


def logged(world):
    world.log.clear()
    x = torch.zeros(12, dtype=torch.bfloat16)  # 24 bytes
    for op in ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"):
        getattr(world, op)(x, note=op[:3])
    world.barrier()
    if world.rank < 2:
        if world.rank == 0:
            world.send(x, to=1)
        else:
            world.receive(x, source=0)
    return [(call.op, call.group, call.size, call.n_bytes, call.note, call.sent_bytes,
             call.began_s <= min(call.waited_s, call.ended_s)) for call in world.log.calls]


def test_the_log_has_the_bytes_of_the_formulas(ranks):
    n = ranks.n_ranks
    for rank, found in enumerate(ranks.run(logged)):
        share = Fraction(n - 1, n)
        right = [("all_reduce", "world", n, 24, "all", 24 * 2 * share, True),
                 ("reduce_scatter", "world", n, 24, "red", 24 * share, True),
                 ("all_gather", "world", n, 24 * n, "all", 24 * (n - 1), True),
                 ("all_to_all", "world", n, 24, "all", 24 * share, True),
                 ("broadcast", "world", n, 24, "bro", 24 * share, True),
                 ("barrier", "world", n, 4, "", 0, True)]
        right += [[("send", "world", n, 24, "", 24, True)],
                  [("receive", "world", n, 24, "", 0, True)], [], []][rank]
        assert found == right
        assert all(sent.denominator == 1 for *_, sent, _ in found), "whole numbers of bytes"


def refusals(world):
    x, other = torch.zeros(8), torch.zeros(8, 2).T
    tries = {
        "op": lambda: world.all_reduce(x, op="mean"),
        "strided": lambda: world.all_reduce(other),
        "strided receive": lambda: world.receive(other, source=1 - world.rank % 2),
        "uneven": lambda: world.reduce_scatter(x[:7]),
        "uneven all_to_all": lambda: world.all_to_all(x[:7]),
        "scalar": lambda: world.all_gather(x[0]),
        "scalar parts": lambda: world.reduce_scatter(x[0]),
        "out": lambda: world.start_all_gather(x, out=x),
        "out dtype": lambda: world.start_reduce_scatter(x, out=x[: 8 // world.size].double()),
        "half told": lambda: world.all_to_all(x, sent=[8] + [0] * (world.size - 1)),
        "rows": lambda: world.all_to_all(x, sent=[1] * world.size, received=[1] * world.size),
        "negative": lambda: world.all_to_all(
            x, sent=[9, -1] + [0] * (world.size - 2), received=[4] * world.size),
        "source": lambda: world.broadcast(x, source=world.size),
        "behind": lambda: world.broadcast(x, source=-1),
        "self": lambda: world.send(x, to=world.rank),
    }
    world.log.clear()
    said = {}
    for name, attempt in tries.items():
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    return said, sorted(tries.keys() - said.keys()), len(world.log.calls)


def test_misuse_is_refused_before_anything_is_sent(ranks):
    for rank, (said, accepted, n_calls) in enumerate(ranks.run(refusals)):
        n = ranks.n_ranks
        assert accepted == [] and n_calls == 0
        assert said["op"] == "all_reduce takes op=sum, max, min; got 'mean'"
        assert "strides (1, 2) for shape (2, 8)" in said["strided"]
        assert f"got a length of 7 for {n} ranks. Pad it to a multiple of {n}" in said["uneven"]
        assert said["scalar"].endswith("Pass x[None]")
        assert said["out"] == (f"all_gather of (8,) float32 with {n} ranks needs `out` of "
                               f"({8 * n},) float32; got (8,) float32")
        assert "got only sent" in said["half told"]
        assert f"names a rank of group 'world', 0 to {n - 1}; got {n}" in said["source"]
        assert said["self"].endswith(f"got {rank} on that rank itself")


@pytest.mark.parametrize("op", ("reduce_scatter", "all_gather", "all_to_all"))
def test_a_group_of_one_rank_copies_and_logs_nothing(op):
    world, x = alone(), torch.arange(4.0)
    found = getattr(world, op)(x)
    assert torch.equal(found, x) and found.data_ptr() != x.data_ptr() and world.log.calls == []


def test_a_group_of_one_rank_refuses_what_a_larger_one_would():
    world = alone()
    with pytest.raises(ValueError, match="got 'mean'"):
        world.all_reduce(torch.ones(1), op="mean")
    with pytest.raises(ValueError, match="on that rank itself"):
        world.send(torch.ones(1), to=0)
    with pytest.raises(ValueError, match="got 1"):
        world.broadcast(torch.ones(1), source=1)

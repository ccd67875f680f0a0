"""Broken schedules are refused, each with its own message; right ones pass, and what they keep."""

import dataclasses

import pytest

from llama_from_scratch.parallel.pipeline.schedule import Op, Schedule
from llama_from_scratch.parallel.pipeline.schedules import (
    gpipe,
    interleaved,
    one_f_one_b,
    zero_bubble,
)
from llama_from_scratch.parallel.pipeline.validate import in_order, kept, needs, validate


def read(*lines, n_chunks=1, n_micro_batches=2):
    """A schedule from its ranks' passes as text, such as "F0 B0"."""
    ops = tuple(tuple(op(word) for word in line.split()) for line in lines)
    return Schedule(name="mine", n_ranks=len(ops), n_chunks=n_chunks,
                    n_micro_batches=n_micro_batches, ops=ops)


def op(word):
    m, _, chunk = word[1:].partition(".")
    return Op(kind=word[0], micro_batch=int(m), chunk=int(chunk or 0))


RIGHT = [read("F0 F1 B0 B1", "F0 B0 F1 B1"), read("F0 B0 W0 F1 B1 W1"),
         read("F0 B0", n_micro_batches=1), read("F0 F0.1 B0.1 B0", "F0 F0.1 B0.1 B0", n_chunks=2,
                                                n_micro_batches=1)]

BROKEN = {
    "a pass is missing": (
        read("F0 F1 B0", "F0 B0 F1 B1"), "rank 0 must do B1 exactly once; it does it 0 times"),
    "a pass is there twice": (
        read("F0 F1 B0 B1", "F0 B0 F1 B1 B1"), "rank 1 must do B1 exactly once; it does it 2"),
    "one W is missing": (
        read("F0 B0 W0 F1 B1"), "rank 0 must do W1 exactly once; it does it 0 times. Some passes "
        "of this schedule divide backward, so all must"),
    "one rank has no W at all": (
        read("F0 B0 W0 F1 B1 W1", "F0 B0 F1 B1"), "rank 1 must do W0 exactly once.*so all must"),
    "a backward pass before its own forward pass": (
        read("F0 B1 F1 B0", "F0 F1 B1 B0"), "B1 of rank 0 needs F1, which is after it.*B comes"),
    "weights before their backward pass": (
        read("F0 W0 B0 F1 B1 W1"), "W0 of rank 0 needs B0, which is after it.*W comes after B"),
    "a chunk before the chunk that feeds it": (
        read("F0.1 F0 B0.1 B0", n_chunks=2, n_micro_batches=1),
        r"F0\.1 of rank 0 needs F0, which is after it.*F comes after F of the piece before"),
    "backward through chunks in the forward order": (
        read("F0 F0.1 B0 B0.1", n_chunks=2, n_micro_batches=1),
        r"B0 of rank 0 needs B0\.1, which is after it.*and B of the piece after"),
    "two ranks wait for each other": (
        read("F0 B0 F1 B1", "F0 F1 B0 B1"),
        "would wait forever: rank 0 waits at B0 for B0 of rank 1, rank 1 waits at F1 for F1 of "
        "rank 0. Put what another rank waits for first"),
    "the other order of micro-batches on the next rank": (
        read("F0 B0 F1 B1", "F1 B1 F0 B0"), "wait forever: rank 0 waits at B0 for B0 of rank 1, "
        "rank 1 waits at F1 for F1 of rank 0"),
    "chunks in another order than on the rank before": (
        read("F0 F0.1 B0.1 B0", "F0.1 F0 B0.1 B0", n_chunks=2, n_micro_batches=1),
        r"F0\.1 of rank 0 needs|wait forever: rank 0 waits at F0\.1 for F0 of rank 1, rank 1 waits "
        r"at F0\.1 for F0\.1 of rank 0"),
    "an unknown kind": (
        read("F0 F1 X0 X1"), r"a pass is F \(forward\), B \(backward\) or W .*rank 0 has 'X'"),
    "a micro-batch that is not there": (
        read("F0 F1 F2 B2 B1 B0"), "the micro-batches are 0 to 1; rank 0 has F2"),
    "a chunk that is not there": (
        read("F0 F0.1 B0.1 B0", n_micro_batches=1),
        r"the chunks of a rank are 0 to 0; rank 0 has F0\.1, of chunk 1"),
    "a rank without a list": (
        dataclasses.replace(RIGHT[0], n_ranks=3), "passes for each of its 3 ranks; got 2 lists"),
    "no micro-batches": (
        read("", n_micro_batches=0), "Schedule.n_micro_batches must be at least 1; got 0"),
    "no chunks": (read("", n_chunks=0), "Schedule.n_chunks must be at least 1; got 0"),
    "no ranks": (read(), "Schedule.n_ranks must be at least 1; got 0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_schedule_is_refused_with_rank_pass_and_rule(what):
    schedule, message = BROKEN[what]
    with pytest.raises(ValueError, match=message):
        validate(schedule)


def test_every_broken_schedule_has_a_message_of_its_own():
    messages = []
    for schedule, _ in BROKEN.values():
        with pytest.raises(ValueError) as error:
            validate(schedule)
        messages.append(str(error.value))
    # the same ranks wait for the same passes in both
    assert len(set(messages)) >= len(messages) - 1 >= 10


@pytest.mark.parametrize("schedule", RIGHT)
def test_a_right_schedule_passes(schedule):
    validate(schedule)


def test_a_rank_that_keeps_too_much_is_named_with_the_pass():
    validate(one_f_one_b(4, 8), most_kept=4)
    with pytest.raises(ValueError, match="keep at most 4 micro-batches at once; rank 0 keeps 5 at "
                       "F4. Do a backward pass earlier"):
        validate(gpipe(4, 8), most_kept=4)


def test_what_is_kept_is_counted_until_the_last_pass_of_a_micro_batch():
    assert kept(read("F0 F1 B0 B1", "F0 B0 F1 B1")) == [2, 1]
    assert kept(read("F0 B0 F1 B1 W0 W1")) == [2]


def test_a_pass_needs_the_piece_before_or_after_and_its_own():
    schedule = interleaved(2, 2, n_micro_batches=2)
    assert needs(schedule, 0, op("F1")) == []
    assert needs(schedule, 0, op("F1.1")) == [("F", 1, 1)]
    assert needs(schedule, 1, op("B1")) == [("F", 1, 1), ("B", 1, 2)]
    assert needs(schedule, 1, op("B1.1")) == [("F", 1, 3)]
    assert needs(zero_bubble(2, 2), 1, op("W0")) == [("B", 0, 1)]


def test_the_order_has_every_pass_after_what_it_needs():
    schedule = interleaved(3, 2, n_micro_batches=5, n_together=4)
    done = set()
    for rank, each in in_order(schedule):
        assert done.issuperset(needs(schedule, rank, each))
        done.add((each.kind, each.micro_batch, schedule.piece(rank, each.chunk)))
    assert len(done) == 2 * 6 * 5


@pytest.mark.parametrize("made", [gpipe(3, 3), one_f_one_b(3, 3), zero_bubble(3, 3),
                                  interleaved(2, 2, n_micro_batches=2)])
def test_no_pass_of_a_schedule_may_be_left_out_or_done_twice(made):
    for rank, ops in enumerate(made.ops):
        for at in range(len(ops)):
            for changed in (ops[:at] + ops[at + 1:], ops[:at] + ops[at: at + 1] + ops[at:]):
                lists = (*made.ops[:rank], changed, *made.ops[rank + 1:])
                with pytest.raises(ValueError, match=f"rank {rank} must do {ops[at]} exactly once"):
                    validate(dataclasses.replace(made, ops=lists))

"""Small sweeps over all sizes: every schedule is right, and keeps what its formula says."""

import dataclasses
import itertools

import pytest

from llama_from_scratch.parallel.pipeline import schedules
from llama_from_scratch.parallel.pipeline.schedules import (
    SCHEDULES,
    gpipe,
    groups,
    interleaved,
    make,
    one_f_one_b,
    zero_bubble,
)
from llama_from_scratch.parallel.pipeline.validate import kept, validate

SIZES = list(itertools.product(range(1, 6), range(1, 9)))


def words(schedule):
    return [" ".join(map(str, ops)) for ops in schedule.ops]


@pytest.mark.parametrize(("n_ranks", "n"), SIZES)
def test_schedules_of_one_chunk_are_right_and_keep_what_their_papers_say(n_ranks, n):
    for made, expected in ((gpipe(n_ranks, n), [n] * n_ranks),
                           (one_f_one_b(n_ranks, n), [min(n_ranks - r, n) for r in range(n_ranks)]),
                           (zero_bubble(n_ranks, n), [min(n_ranks, n)] * n_ranks)):
        validate(made)
        assert kept(made) == expected, made.name


@pytest.mark.parametrize(("n_ranks", "n"), SIZES)
def test_interleaved_is_right_and_keeps_what_the_warm_up_says_for_every_n_together(n_ranks, n):
    for n_chunks in (1, 2, 3):
        for together in range(min(n_ranks, n), n + 1):
            made = interleaved(n_ranks, n_chunks, n_micro_batches=n, n_together=together)
            validate(made)
            largest = -(-n // (n // together))
            assert kept(made) == [min(2 * (n_ranks - 1 - r) + (n_chunks - 1) * largest + 1,
                                      n_chunks * n) for r in range(n_ranks)]


def test_depth_first_keeps_the_least_and_breadth_first_the_most():
    peaks = [max(kept(interleaved(4, 2, n_micro_batches=16, n_together=n))) for n in (4, 8, 16)]
    assert peaks == [11, 15, 23]
    # the first rank's share of layers times 1 + (P - 1) / (P V), arXiv:2205.05198, section 4.2.3
    assert peaks[0] == 4 * 2 + 4 - 1


def test_gpipe_goes_back_in_the_reverse_order_on_every_rank():
    assert words(gpipe(3, 2)) == ["F0 F1 B1 B0"] * 3


def test_one_f_one_b_alternates_after_its_warm_up():
    assert words(one_f_one_b(3, 4)) == ["F0 F1 F2 B0 F3 B1 B2 B3", "F0 F1 B0 F2 B1 F3 B2 B3",
                                        "F0 B0 F1 B1 F2 B2 F3 B3"]


def test_zero_bubble_delays_weights_on_later_ranks_and_never_keeps_more():
    assert words(zero_bubble(3, 4)) == [
        "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3", "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3",
        "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3"]


def test_zero_bubble_without_its_w_is_one_f_one_b():
    for n_ranks, n in SIZES:
        without = tuple(tuple(op for op in ops if op.kind != "W")
                        for ops in zero_bubble(n_ranks, n).ops)
        assert without == one_f_one_b(n_ranks, n).ops


def test_interleaved_does_n_together_micro_batches_before_the_next_chunk():
    first = words(interleaved(2, 2, n_micro_batches=4, n_together=2))
    assert first == ["F0 F1 F0.1 F1.1 F2 B0.1 F3 B1.1 F2.1 B0 F3.1 B1 B2.1 B3.1 B2 B3",
                     "F0 F1 F0.1 B0.1 F1.1 B1.1 F2 B0 F3 B1 F2.1 B2.1 F3.1 B3.1 B2 B3"]
    wide = words(interleaved(2, 2, n_micro_batches=4, n_together=4))[0]
    assert wide.startswith("F0 F1 F2 F3 F0.1 F1.1")


def test_micro_batches_that_are_left_over_go_to_the_first_groups():
    assert groups(10, 4) == [range(0, 5), range(5, 10)]
    assert groups(11, 3) == [range(0, 4), range(4, 8), range(8, 11)]
    assert groups(8, 4) == [range(0, 4), range(4, 8)]


def test_n_together_is_the_number_of_ranks_if_not_given():
    assert (interleaved(2, 2, n_micro_batches=6).ops
            == interleaved(2, 2, n_micro_batches=6, n_together=2).ops)
    assert interleaved(4, 2, n_micro_batches=3).ops


@pytest.mark.parametrize(("together", "cure"), [(3, 4), (0, 4), (9, 8)])
def test_an_n_together_out_of_its_bounds_is_refused_with_the_nearest_that_works(together, cure):
    with pytest.raises(ValueError, match=f"4 to 8 here; got {together}. With fewer, a rank would "
                       f"wait until the first is back. Take n_together={cure}"):
        interleaved(4, 2, n_micro_batches=8, n_together=together)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_made_by_its_name(name):
    made = make(name, 2, n_micro_batches=4, n_chunks=2 if name == "interleaved" else 1)
    assert made.name == name and made.n_ranks == 2 and made.n_micro_batches == 4
    assert made.n_chunks == (2 if name == "interleaved" else 1)
    assert made.splits_backward == (name == "zero_bubble")


def test_the_name_chooses_the_function_and_n_together_is_passed_on():
    assert make("1f1b", 4, n_micro_batches=6).ops == one_f_one_b(4, 6).ops
    assert (make("interleaved", 2, n_micro_batches=4, n_chunks=2, n_together=4).ops
            == interleaved(2, 2, n_micro_batches=4, n_together=4).ops)


@pytest.mark.parametrize(("name", "sizes", "message"), [
    ("1f1c", {}, "gpipe, 1f1b, interleaved, zero_bubble; got '1f1c'; did you mean '1f1b'"),
    ("1f1b", {"n_micro_batches": 3}, "4 ranks needs at least 4 micro-batches.*got 3. Divide the "
     "batch into 4 micro-batches or more, or take a pipeline of 3 ranks"),
    ("gpipe", {"n_micro_batches": 1}, "got 1.*or take a pipeline of 1 rank$"),
    ("1f1b", {"n_chunks": 2}, "only the schedule 'interleaved' has.*got 2 chunks for '1f1b'"),
    ("gpipe", {"n_together": 4}, "got n_together=4 for 'gpipe'. Leave it out, or take 'inter"),
    ("interleaved", {}, "at least 2 chunks per rank.*got 1. Take 2 chunks or more, or '1f1b'"),
    ("gpipe", {"n_micro_batches": 0}, "number of micro-batches must be a whole.*got 0"),
    ("gpipe", {"n_chunks": True}, "number of chunks must be a whole number.*got True"),
])
def test_what_cannot_be_made_is_refused_with_the_cure(name, sizes, message):
    with pytest.raises(ValueError, match=message):
        make(name, 4, **{"n_micro_batches": 8} | sizes)


def test_what_is_made_is_proved_first(monkeypatch):
    def forgets_the_last(n_ranks, n_micro_batches):
        right = gpipe(n_ranks, n_micro_batches)
        return dataclasses.replace(right, ops=tuple(ops[:-1] for ops in right.ops))

    monkeypatch.setitem(schedules._OF_ONE_CHUNK, "gpipe", forgets_the_last)
    with pytest.raises(ValueError, match="rank 0 must do B0 exactly once"):
        make("gpipe", 2, n_micro_batches=2)

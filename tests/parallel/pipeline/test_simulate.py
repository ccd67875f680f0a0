"""The simulated bubble is the papers' formula, as exact fractions, for many sizes and times."""

import itertools
from fractions import Fraction

import pytest

from llama_from_scratch.parallel.comm_log import Call, CommLog, Span
from llama_from_scratch.parallel.pipeline.schedule import Schedule
from llama_from_scratch.parallel.pipeline.schedules import (
    gpipe,
    interleaved,
    one_f_one_b,
    zero_bubble,
)
from llama_from_scratch.parallel.pipeline.simulate import (
    Times,
    closed_form,
    measured,
    simulate,
)
from llama_from_scratch.parallel.pipeline.validate import kept

UNEQUAL = Times(forward=3, backward=Fraction(5, 2), weights=2)


def ends(timeline, rank):
    return {str(each.op): (each.begin, each.end) for each in timeline.passes if each.rank == rank}


def test_a_small_pipeline_is_timed_as_by_hand():
    timeline = simulate(one_f_one_b(2, 2), Times(forward=1, backward=1, weights=1, hop=1))
    assert ends(timeline, 0) == {"F0": (0, 1), "F1": (1, 2), "B0": (6, 8), "B1": (9, 11)}
    assert ends(timeline, 1) == {"F0": (2, 3), "B0": (3, 5), "F1": (5, 6), "B1": (6, 8)}
    assert timeline.time == 11 and timeline.idle == (5, 5)
    assert timeline.idle_share == Fraction(10, 22) and timeline.bubble == Fraction(5, 6)


@pytest.mark.parametrize("times", [Times(), UNEQUAL, Times(recompute=True)])
@pytest.mark.parametrize("n_ranks", range(1, 7))
def test_the_bubble_of_gpipe_and_1f1b_is_ranks_less_one_by_micro_batches(n_ranks, times):
    for n in (1, 2, 5, 8, 11):
        for made in (gpipe(n_ranks, n), one_f_one_b(n_ranks, n)):
            bubble = simulate(made, times).bubble
            assert bubble == closed_form(made, times) == Fraction(n_ranks - 1, n)


@pytest.mark.parametrize("n_ranks", range(1, 6))
def test_chunks_divide_the_bubble_for_every_n_together(n_ranks):
    for n, n_chunks in itertools.product(range(n_ranks, 10), (2, 3)):
        for together in {n_ranks, min(n_ranks + 1, n), (n_ranks + n) // 2, n}:
            made = interleaved(n_ranks, n_chunks, n_micro_batches=n, n_together=together)
            bubble = simulate(made).bubble
            assert bubble == closed_form(made) == Fraction(n_ranks - 1, n_chunks * n), together


@pytest.mark.parametrize("n_ranks", range(1, 7))
def test_the_bubble_of_zb_h1_is_a_third_of_1f1b_if_all_passes_take_as_long(n_ranks):
    for n in range(n_ranks, 11, 2):
        made = zero_bubble(n_ranks, n)
        assert simulate(made).bubble == closed_form(made) == Fraction(n_ranks - 1, 3 * n)


@pytest.mark.parametrize(("forward", "backward", "weights"),
                         list(itertools.product((1, 2, 3), repeat=3)))
def test_the_bubble_of_zb_h1_follows_its_formula_for_other_times(forward, backward, weights):
    times = Times(forward=forward, backward=backward, weights=weights)
    for n_ranks, n in ((2, 2), (3, 5), (4, 9)):
        made = zero_bubble(n_ranks, n)
        assert simulate(made, times).bubble == closed_form(made, times)
        if weights <= min(forward, backward):  # as arXiv:2401.10241, table 2, has it
            assert closed_form(made, times) == Fraction(
                (n_ranks - 1) * (forward + backward - weights),
                n * (forward + backward + weights))


def test_a_pass_begins_when_its_rank_is_free_and_all_it_needs_has_arrived():
    times = Times(forward=(1, 2, 3, 4), backward=(4, 3, 2, 1), weights=1, hop=2)
    timeline = simulate(interleaved(2, 2, n_micro_batches=3), times)
    when = {(str(each.op), each.rank): each for each in timeline.passes}
    assert (when["F0.1", 0].end - when["F0.1", 0].begin) == 3
    assert (when["B0", 1].end - when["B0", 1].begin) == 3 + 1
    assert when["F0.1", 0].begin == max(when["F0", 1].end + 2, when["F2", 0].end)
    assert when["B0.1", 1].begin == when["F0.1", 1].end, "a hop within a rank takes no time"


def test_a_slow_piece_makes_all_wait():
    balanced = simulate(one_f_one_b(4, 8), Times(forward=(2, 2, 2, 2)))
    uneven = simulate(one_f_one_b(4, 8), Times(forward=(1, 1, 1, 5)))
    assert uneven.time > balanced.time and uneven.idle_share > balanced.idle_share


def test_slow_messages_cost_less_when_more_micro_batches_are_together():
    def time(together):
        made = interleaved(4, 2, n_micro_batches=16, n_together=together)
        return simulate(made, Times(hop=1)).time

    assert time(8) < time(4)


def test_the_peak_is_what_the_validator_counts_and_recomputing_keeps_inputs_only():
    for made in (gpipe(4, 6), one_f_one_b(4, 6), interleaved(4, 2, n_micro_batches=6),
                 zero_bubble(4, 6)):
        assert [simulate(made).peak(rank) for rank in range(4)] == kept(made)
    timeline = simulate(one_f_one_b(4, 6), Times(recompute=True))
    share = Fraction(1, 10)
    assert [timeline.peak(rank, input_share=share) for rank in range(4)] == [
        1 + 3 * share, 1 + 2 * share, 1 + share, 1]
    assert timeline.memory(3, input_share=share)[-1][1] == 0, "everything is freed"


def test_recomputing_lengthens_every_backward_pass_by_a_forward_pass():
    for made in (one_f_one_b(2, 3), zero_bubble(2, 3)):
        took = [{str(each.op): each.end - each.begin for each in simulate(made, times).passes}
                for times in (Times(forward=5), Times(forward=5, recompute=True))]
        assert {name: took[1][name] - t for name, t in took[0].items()} == {
            name: 5 * name.startswith("B") for name in took[0]}


def test_a_real_run_is_read_from_the_spans_with_the_names_of_passes():
    schedule, logs = one_f_one_b(2, 2), []
    for rank in range(2):
        log = CommLog()
        log.spans.append(Span(name="a whole step", began_s=0.0, ended_s=9.0))
        log.spans += [Span(name=str(op), began_s=1.0 + i + rank, ended_s=1.5 + i + rank)
                      for i, op in enumerate(schedule.ops[rank])]
        logs.append(log)
    timeline = measured(schedule, logs)
    assert timeline.unit == "ms" and timeline.begin == 1000 and timeline.time == 4500
    assert ends(timeline, 1)["B1"] == (5000, 5500)
    assert timeline.idle == (2500, 2500) and [timeline.peak(rank) for rank in range(2)] == [2, 1]
    logs[1].spans.pop()
    with pytest.raises(ValueError, match="log of rank 1 must have every pass.*got 3 passes for 4"):
        measured(schedule, logs)
    with pytest.raises(ValueError, match="2 ranks has as many logs; got 1"):
        measured(schedule, logs[:1])


def test_a_pass_of_a_real_run_begins_when_what_it_waits_for_is_received():
    schedule = gpipe(1, 1)
    log = CommLog()
    log.spans += [Span(name="F0", began_s=1.0, ended_s=4.0),
                  Span(name="B0", began_s=4.0, ended_s=6.0)]
    for op, waited_s, ended_s in (("receive", 1.5, 3.0), ("send", 3.5, 3.8), ("receive", 3.9, 4.5)):
        log.calls.append(Call(op=op, group="pp", size=2, n_bytes=8, note="", began_s=0.0,
                              waited_s=waited_s, ended_s=ended_s))
    timeline = measured(schedule, [log])
    assert ends(timeline, 0) == {"F0": (3000, 4000), "B0": (4000, 6000)}


@pytest.mark.parametrize(("times", "message"), [
    (Times(forward=(1, 2)), "Times.forward is one number, or one for each of the 4 pieces; got 2"),
    (Times(weights=0), "Times.weights must be above 0; got 0"),
    (Times(hop=-1), "Times.hop must not be below 0; got -1")])
def test_impossible_times_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        simulate(gpipe(4, 4), times)


@pytest.mark.parametrize(("made", "times", "message"), [
    (gpipe(4, 4), Times(hop=1), "equal for all pieces, and no hops"),
    (gpipe(4, 4), Times(forward=(1, 1, 1, 1)), "equal for all pieces, and no hops"),
    (gpipe(4, 4), Times(forward=0.5), "whole or rational times"),
    (zero_bubble(4, 3), Times(), "zero_bubble needs at least as many.*got 3 for 4 ranks"),
    (Schedule(name="mine", n_ranks=1, n_chunks=1, n_micro_batches=1, ops=((),)), Times(),
     "there are formulas for gpipe.*got 'mine'")])
def test_a_formula_that_does_not_hold_is_refused(made, times, message):
    with pytest.raises(ValueError, match=message):
        closed_form(made, times)

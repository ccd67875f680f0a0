"""What a log counts, and the formulas of what a rank sends."""

from fractions import Fraction

import pytest

from llama_from_scratch.parallel.comm_log import SHARE_SENT, Call, CommLog


def call(op="all_reduce", group="world", n_bytes=80, size=4, **more):
    return Call(op=op, group=group, size=size, n_bytes=n_bytes, note="",
                **{"began_s": 0.0, "waited_s": 1.0, "ended_s": 3.0} | more)


def ring_sent(op, n_ranks, n_parts):
    """What one rank sends in a ring, in parts of 1 / n_parts, counted step by step."""
    steps = n_ranks - 1
    return {"reduce_scatter": steps, "all_gather": steps, "all_reduce": 2 * steps}[op] * (
        n_parts // n_ranks)


@pytest.mark.parametrize("op", ("all_reduce", "reduce_scatter", "all_gather"))
@pytest.mark.parametrize("n_ranks", (1, 2, 3, 4, 7, 8))
def test_a_ring_sends_its_formula(op, n_ranks):
    assert SHARE_SENT[op](n_ranks) * 168 == ring_sent(op, n_ranks, 168)


@pytest.mark.parametrize("n_ranks", (2, 3, 8))
def test_broadcast_counts_each_receiver_once_over_all_ranks(n_ranks):
    assert n_ranks * SHARE_SENT["broadcast"](n_ranks) == n_ranks - 1


def test_a_call_knows_what_it_sent_and_how_long_the_caller_stood_still():
    assert call().sent_bytes == 120 and call().exposed_s == 2.0
    assert call(n_bytes=10, size=3).sent_bytes == Fraction(40, 3), "not rounded"
    assert call(op="all_to_all", uneven_bytes=7).sent_bytes == 7
    assert call(op="receive").sent_bytes == call(op="barrier").sent_bytes == 0


def test_a_log_adds_up_by_operation_and_group():
    log = CommLog()
    log.calls += [call(), call(op="send", group="tp"), call(op="all_gather"), call()]
    assert log.sent_bytes() == 120 + 80 + 60 + 120
    assert log.sent_bytes("all_reduce") == 240 and log.sent_bytes(group="tp") == 80
    assert log.sent_bytes("send", group="world") == 0
    assert log.counts() == {"all_reduce": 2, "send": 1, "all_gather": 1}


def test_a_span_is_recorded_even_if_its_block_fails():
    log = CommLog()
    with log.span("forward"):
        pass
    with pytest.raises(KeyError), log.span("backward"):
        raise KeyError
    assert [span.name for span in log.spans] == ["forward", "backward"]
    assert all(span.began_s <= span.ended_s for span in log.spans)


def test_clear_forgets_calls_and_spans():
    log = CommLog()
    log.calls.append(call())
    with log.span("x"):
        pass
    log.clear()
    assert (log.calls, log.spans, log.counts(), log.sent_bytes()) == ([], [], {}, 0)


def test_a_call_that_was_complete_before_the_caller_waited_exposes_nothing():
    assert call(waited_s=9.0).exposed_s == 0.0

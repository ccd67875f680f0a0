import threading
import time

import pytest

from llama_from_scratch.tune.running.timed import CallEnded, call_within, in_words


def test_a_value_an_error_and_every_other_end_are_outcomes():
    assert call_within(lambda a, b: a + b, {"a": 1, "b": 2}, time_s=60.0).value == 3
    assert call_within(lambda: int("x"), {}, time_s=60.0).error.startswith("ValueError: invalid")
    assert call_within(lambda: [][1], {}, time_s=60.0).error.startswith("IndexError: list index")

    def leave():
        raise SystemExit(3)

    def interrupt():
        raise KeyboardInterrupt

    assert call_within(leave, {}, time_s=60.0).error == "SystemExit: 3"
    assert call_within(interrupt, {}, time_s=60.0).error == "KeyboardInterrupt"
    assert "unexpected keyword argument" in call_within(leave, {"a": 1}, time_s=60.0).error


def test_an_endless_loop_is_stopped_also_if_it_catches_exceptions():
    turns = {"plain": 0, "catching": 0}

    def plain():
        while True:
            turns["plain"] += 1

    def catching():
        while True:
            try:
                turns["catching"] += 1
            except Exception:
                turns["catching"] = -10**9

    for function in (plain, catching):
        outcome = call_within(function, {}, time_s=0.1)
        assert outcome.is_late and not outcome.is_running and outcome.value is None
    before = dict(turns)
    time.sleep(0.1)
    assert turns == before and before["catching"] > 0, "neither goes on"


def test_what_cannot_be_stopped_is_left_and_reported():
    released = threading.Event()
    outcome = call_within(lambda: released.wait(60.0), {}, time_s=0.05)
    assert outcome.is_late and outcome.is_running
    released.set()


def test_the_thread_of_a_call_is_gone_when_it_ended():
    before = threading.active_count()
    for _ in range(5):
        call_within(lambda: 3, {}, time_s=60.0)
        call_within(lambda: [i for i in iter(int, 1)], {}, time_s=0.05)
    until = time.monotonic() + 30.0
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_error_is_one_short_line_whatever_its_class_does():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert in_words(Broken()) == "Broken"
    assert in_words(ValueError("a\n  b")) == "ValueError: a b"
    assert len(in_words(ValueError("a" * 9999))) == len("ValueError: ") + 300
    assert in_words(CallEnded()) == "CallEnded"


@pytest.mark.parametrize("time_s", [0.0, -1.0, float("nan")])
def test_a_call_without_time_is_refused(time_s):
    with pytest.raises(ValueError, match="needs more than 0 seconds"):
        call_within(int, {}, time_s=time_s)

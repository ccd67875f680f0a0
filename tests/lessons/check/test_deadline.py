"""A function that does not end is stopped, and the alarm with it."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest
from failing_checks import double, message, raises

from llama_from_scratch.lessons import check


def swallows_everything(x):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


@pytest.mark.parametrize("in_thread", [False, True])
def test_endless_loop_is_stopped_after_the_stated_time(in_thread):
    def endless(x):
        until = time.monotonic() + 60  # so that this test ends if the limit does not work
        while time.monotonic() < until:
            x += 1

    texts = []

    def work():
        texts.append(message(check.function, endless, double, inputs=[(1,)], time_limit_s=0.3))

    began = time.monotonic()
    if in_thread:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert time.monotonic() - began < 45
    assert "endless was still running after 0.3 s and was stopped in line" in texts[0]
    assert "with input 1 of 1: x = 1" in texts[0]


TRACED_AFTERWARDS = """
import sys, threading, time
from llama_from_scratch.lessons.check.deadline import TimeUp, time_limit

def limited(seconds):
    try:
        with time_limit(0.05):
            time.sleep(seconds)
    except TimeUp:
        pass

for seconds in (0.0, 0.2):
    thread = threading.Thread(target=limited, args=(seconds,))
    thread.start()
    thread.join()
sys.settrace(lambda frame, event, value: None)
print(list(i for i in range(3)))
"""


def test_functions_can_be_traced_after_a_limit_in_a_thread():
    done = subprocess.run([sys.executable, "-c", TRACED_AFTERWARDS], capture_output=True, text=True,
                          timeout=120)
    assert done.stdout == "[0, 1, 2]\n", done.stderr


def test_loop_that_swallows_every_exception_is_stopped_too():
    assert "still running" in message(check.function, swallows_everything, double, inputs=[(1,)],
                                      time_limit_s=0.2)


def test_time_limit_leaves_no_alarm_behind():
    check.function(double, double, inputs=[(1,)], time_limit_s=0.1)
    with pytest.raises(AttributeError):
        check.function(raises, double, inputs=[(1,)], time_limit_s=0.1)
    time.sleep(0.25)

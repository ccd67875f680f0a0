"""Stops a block of code with an exception when its time is over.

This stops an endless loop in an exercise. Used by `calling`, around everything that a reader wrote.
"""

import contextlib
import ctypes
import math
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

AGAIN_S = 1.0  # the next stop comes after this time, in case a bare `except:` caught the first one


class TimeUp(BaseException):
    """The time of a block is over.

    It is no Exception, so that `except Exception` inside an endless loop does not catch it.
    """


def time_limit(time_limit_s: float | int) -> contextlib.AbstractContextManager[None]:
    """Stops the block with an exception when the time is over.

    In the main thread a signal does this, which also ends a sleep. In other threads, and on
    Windows, Python raises the exception between two lines. Neither can interrupt a single long call
    into C, such as a product of two huge matrices.
    """
    if not 0 < time_limit_s < math.inf:
        raise ValueError(f"time_limit_s must be above 0 and finite; got {time_limit_s!r}")
    has_signals = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    return _by_signal(time_limit_s) if has_signals else _by_thread(time_limit_s)


@contextlib.contextmanager
def _by_signal(time_limit_s: float | int) -> Iterator[None]:
    def stop(*_: Any) -> NoReturn:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, time_limit_s, AGAIN_S)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # again, in case the alarm went off in the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _by_thread(time_limit_s: float | int) -> Iterator[None]:
    thread, is_over, was_sent = threading.get_ident(), threading.Event(), threading.Event()

    def watch() -> None:
        wait_s = time_limit_s
        while not is_over.wait(wait_s):
            was_sent.set()
            _send(thread)
            wait_s = AGAIN_S

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            yield
        finally:
            is_over.set()
    finally:
        is_over.set()
        watcher.join()
        if was_sent.is_set():
            _take_back(thread)


def _send(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))


def _take_back(thread: int) -> None:
    """Takes back a TimeUp that came too late to be raised, by raising one here.

    Python's own way, to send None, leaves the interpreter waiting for an exception that never
    comes. Under `sys.settrace`, Python 3.11 then repeats one instruction forever.
    """
    try:
        _send(thread)
        while True:  # it is raised between two of these rounds
            pass
    except TimeUp:
        pass

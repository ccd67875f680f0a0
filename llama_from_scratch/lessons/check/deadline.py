"""Ends a block of code with an exception when its time is over.

This way an endless loop in an exercise ends, too. Used by `calling`, around everything that a
reader wrote.
"""

import contextlib
import ctypes
import math
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

AGAIN_S = 1.0  # after the time is up, should a bare `except:` have caught the first stop


class TimeUp(BaseException):
    """Not an Exception, so that `except Exception` inside an endless loop does not swallow it."""


def time_limit(time_limit_s: float | int) -> contextlib.AbstractContextManager[None]:
    """Ends the block by an exception when the time is over.

    In the main thread by a signal, which also ends a sleep; elsewhere, and on Windows, by an
    exception that Python raises between two lines. Both wait for the end of a single long call into
    C, such as a product of two huge matrices.
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
    finally:  # once more, in case the alarm rang in the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _by_thread(time_limit_s: float | int) -> Iterator[None]:
    thread, is_over = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch() -> None:
        wait_s = time_limit_s
        while not is_over.wait(wait_s):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeUp))
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
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # what came too late to be raised

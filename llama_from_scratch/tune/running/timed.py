"""Calls a function in a thread, and stops waiting when its time is over.

What is promised: the caller goes on in time, whatever the function does. A function in Python is
stopped by an exception between two of its lines, which also ends an endless loop. What is not
promised: a long call into C, a sleep, or a read from a network cannot be ended in a thread. It
goes on in the background, and may still change something; `is_running` says so. A tool that must
end belongs in a process of its own: see `isolated`.

Notebook 56.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from llama_from_scratch.config import record

_GRACE_S = 0.5
_AGAIN_S = 0.05


class CallEnded(BaseException):
    """The time of a call is over. It is no Exception, so that `except Exception` lets it pass."""


@record
class CallOutcome:
    """What came of a call: a value, or an error in words, or neither because its time was over.

    `is_late`: its time was over. `is_running`: it could not be stopped, and may still do something.
    """

    value: object = None
    error: str | None = None
    is_late: bool = False
    is_running: bool = False


def call_within(
    function: Callable[..., object], arguments: Mapping[str, Any], *, time_s: float
) -> CallOutcome:
    """Returns what came of `function` with these arguments, within about `time_s` seconds.

    Whatever the function raises, also SystemExit, is an outcome. Ctrl-C ends the wait and is raised
    here. The function runs in a thread of its own.
    """
    if not time_s > 0:
        raise ValueError(f"a call needs more than 0 seconds; got {time_s!r}. Give it a second")
    call = _Call(function, arguments)
    call.thread.start()
    try:
        if call.done.wait(time_s):
            return call.outcome
    except BaseException:  # Ctrl-C
        call.stop()
        raise
    call.stop()
    return CallOutcome(is_late=True, is_running=not call.done.is_set())


class _Call:
    def __init__(self, function: Callable[..., object], arguments: Mapping[str, Any]) -> None:
        self.function, self.arguments = function, arguments
        self.outcome, self.done, self.lock = CallOutcome(), threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            try:
                outcome = CallOutcome(value=self.function(**self.arguments))
            except BaseException as error:  # a tool may raise anything, and the run goes on
                outcome = CallOutcome(error=in_words(error))
            self.outcome = outcome
            self.done.set()
        except CallEnded:  # it came between the lines above
            self.done.set()

    def stop(self) -> None:
        """Raises CallEnded in the thread, several times, because the function may catch it."""
        until = time.monotonic() + _GRACE_S
        while not self.done.is_set() and time.monotonic() < until:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(CallEnded))
            self.done.wait(_AGAIN_S)


def in_words(error: BaseException, *, max_chars: int = 300) -> str:
    """Returns an error as a line of text, also if its own text cannot be made."""
    name = type(error).__name__
    try:
        words = " ".join(str(error).split())
    except Exception:  # the error's own class fails
        words = ""
    return f"{name}: {words[:max_chars]}" if words else name

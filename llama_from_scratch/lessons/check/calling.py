"""Calls what the reader wrote, so that whatever it does is told in words: raise, never end, take other arguments.

Its errors are the reader's own, without a frame of this library before theirs, and with a note that says which input it was.
Used by `check`, in the exercises of every notebook.
"""

import contextlib
import copy
import ctypes
import inspect
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from llama_from_scratch.lessons.check.difference import describe, short

N_RANDOM_INPUTS = 5
AGAIN_S = 1.0  # after the time is up, should a bare `except:` have caught the first stop

Inputs = Iterable[Any] | Callable[[torch.Generator], Any]
Arguments = tuple | dict


class _Told(Exception):
    """An error whose words are enough: notebooks show them under the reader's own line, without a trace through ours."""

    def _render_traceback_(self) -> list[str]:
        here = str(Path(__file__).parent)
        frames = [frame for frame in traceback.extract_tb(self.__traceback__) if not frame.filename.startswith(here)]
        lines = [f"----> {frames[-1].lineno} {frames[-1].line}", ""] if frames else []
        return [*lines, f"{type(self).__name__}: {self}"]


class CheckFailed(_Told, AssertionError):
    """What the reader built is not what it should be; the message says where and, if it can be told, why."""


class NotWritten(_Told, NotImplementedError):
    """An exercise whose blank is still blank; the message is its task."""


class _TimeUp(BaseException):
    """Not an Exception, so that `except Exception` inside an endless loop does not swallow it."""


# --- arguments -------------------------------------------------------------------------------------------------------


def arguments(inputs: Inputs) -> list[Arguments]:
    """The arguments of each call. Raises ValueError if there are none, or `inputs` is itself an argument."""
    if callable(inputs):
        inputs = [inputs(torch.Generator().manual_seed(seed)) for seed in range(N_RANDOM_INPUTS)]
    is_one = isinstance(inputs, Mapping | str | bytes | Tensor | np.ndarray)
    calls = [] if is_one else [x if isinstance(x, tuple | dict) else (x,) for x in inputs]
    if not calls:
        raise ValueError("inputs is a list of tuples of arguments, or a function that makes one from a generator; "
                         f"got {short(inputs)}. For a single input write inputs=[(x,)]")
    return calls


def named(function: Callable, given: Arguments) -> dict[str, Any]:
    """The arguments under the names by which the function calls them."""
    if isinstance(given, dict):
        return given
    try:
        parameters = _signature(function).parameters.values()
    except (ValueError, TypeError):  # some functions written in C
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(given)]
    names += [f"argument {i + 1}" for i in range(len(names), len(given))]
    return dict(zip(names, given))


def about(function: Callable, given: Arguments, *, number: int, of: int) -> str:
    """A line that says which input it was."""
    shown = ", ".join(f"{name} = {describe(value)}" for name, value in named(function, given).items())
    return f"  with input {number} of {of}: {shown or 'no arguments'}"


def copied(value: Any) -> Any:
    """A copy that shares no tensor with the value; copies of tensors have no history."""
    match value:
        case Tensor():
            return value.detach().clone().requires_grad_(value.requires_grad)
        case torch.Generator():
            return value.clone_state()
        case _ if type(value) in (list, tuple):
            return type(value)(copied(item) for item in value)
        case _ if type(value) is dict:
            return {key: copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


def _signature(function: Callable) -> inspect.Signature:
    return inspect.signature(function.forward if isinstance(function, nn.Module) else function)


# --- the call --------------------------------------------------------------------------------------------------------


def call(function: Callable, given: Arguments) -> Any:
    """What the function returns."""
    __tracebackhide__ = True
    return function(**given) if isinstance(given, dict) else function(*given)


def guarded(mine: Callable, given: Arguments, *, name: str, note: str, time_limit_s: float | int) -> Any:
    """What the reader's function returns.

    Raises CheckFailed if it cannot take these arguments or takes longer than `time_limit_s`; NotWritten, with the task, if it
    raises NotImplementedError; and its own errors as it raised them, `note` added.
    """
    __tracebackhide__ = True
    _refuse_other_arguments(mine, given, name, note)
    try:
        with time_limit(time_limit_s):
            return mine(**given) if isinstance(given, dict) else mine(*given)
    except _TimeUp as stopped:
        late = CheckFailed(f"{name} was still running after {time_limit_s:g} s and was stopped{_line(stopped, mine)}. "
                           f"Does its loop ever end?\n{note}")
    except NotImplementedError as missing:
        late = NotWritten(f"{name} is yet to be written" + (f": {missing}" if str(missing) else ""))
    except Exception as error:
        error.add_note(f"raised by {name}\n{note}")
        raise error.with_traceback(_theirs(error)) from error.__cause__
    raise late from None


def _refuse_other_arguments(mine: Callable, given: Arguments, name: str, note: str) -> None:
    __tracebackhide__ = True
    try:
        signature = _signature(mine)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(**given) if isinstance(given, dict) else signature.bind(*given)
    except TypeError as problem:
        late = CheckFailed(f"{name}{signature} cannot be called as the task asks: {problem}.\n{note}")
    else:
        return
    raise late from None


def _theirs(error: BaseException):
    """The traceback from the reader's own code on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in (__file__, contextlib.__file__):
        frames = frames.tb_next
    return frames


def _line(stopped: BaseException, mine: Callable) -> str:
    """In which line of the reader's function it was stopped, counted from its `def`."""
    code, frames, line = getattr(mine, "__code__", None), stopped.__traceback__, None
    while frames is not None:
        if frames.tb_frame.f_code is code:
            line = frames.tb_lineno - code.co_firstlineno + 1
        frames = frames.tb_next
    return f" in its line {line}" if line else ""


# --- the time --------------------------------------------------------------------------------------------------------


def time_limit(time_limit_s: float | int) -> contextlib.AbstractContextManager[None]:
    """Ends the block by an exception when the time is over.

    In the main thread by a signal, which also ends a sleep; elsewhere, and on Windows, by an exception that Python raises
    between two lines. Both wait for the end of a single long call into C, such as a product of two huge matrices.
    """
    if not 0 < time_limit_s < math.inf:
        raise ValueError(f"time_limit_s must be above 0 and finite; got {time_limit_s!r}")
    has_signals = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    return _by_signal(time_limit_s) if has_signals else _by_thread(time_limit_s)


@contextlib.contextmanager
def _by_signal(time_limit_s: float | int) -> Iterator[None]:
    def stop(*_: Any) -> NoReturn:
        raise _TimeUp

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
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TimeUp))
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

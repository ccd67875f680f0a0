"""Calls the reader's code, and reports whatever happens.

The reader's code may raise an error, run forever, or take other arguments than the task says. Its
own errors are raised again without this library's frames in the traceback, and with a note that
says for which input. Used by `functions` and `models`, in the exercises of every notebook.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llama_from_scratch.lessons.check.deadline import TimeUp, time_limit
from llama_from_scratch.lessons.check.failures import CheckFailed, NotWritten
from llama_from_scratch.lessons.check.words import describe, short

N_RANDOM_INPUTS = 5

Inputs = Iterable[Any] | Callable[[torch.Generator], Any]
Arguments = tuple | dict


# --- arguments ------------------------------------------------------------------------------------


def arguments(inputs: Inputs) -> list[Arguments]:
    """Returns the arguments of each call.

    Raises ValueError if there are none, or if `inputs` is itself an argument.
    """
    if callable(inputs):
        inputs = [inputs(torch.Generator().manual_seed(seed)) for seed in range(N_RANDOM_INPUTS)]
    is_one = isinstance(inputs, Mapping | str | bytes | Tensor | np.ndarray)
    calls = [] if is_one else [x if isinstance(x, tuple | dict) else (x,) for x in inputs]
    if not calls:
        raise ValueError("`inputs` must be a list of tuples of arguments, or a function that "
                         f"makes one tuple from a generator; got {short(inputs)}. "
                         "For a single input write inputs=[(x,)]")
    return calls


def named(function: Callable, given: Arguments) -> dict[str, Any]:
    """Returns the arguments by the names of the function's parameters."""
    if isinstance(given, dict):
        return given
    try:
        parameters = _signature(function).parameters.values()
    except (ValueError, TypeError):  # some functions written in C
        parameters = ()
    names = [p.name for p in parameters
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(given)]
    names += [f"argument {i + 1}" for i in range(len(names), len(given))]
    return dict(zip(names, given, strict=True))


def about(function: Callable, given: Arguments, *, number: int, of: int) -> str:
    """Returns a line that says with which input the function was called."""
    shown = ", ".join(f"{name} = {describe(value)}"
                      for name, value in named(function, given).items())
    return f"  with input {number} of {of}: {shown or 'no arguments'}"


def copied(value: Any) -> Any:
    """Returns a copy that shares no tensor with the value; its tensors have no gradient history."""
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


def tensors(value: Any) -> list[Tensor]:
    """Returns all tensors in a value, a sequence or a mapping, in order."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        return []
    return [x for item in items for x in tensors(item)]


def _signature(function: Callable) -> inspect.Signature:
    return inspect.signature(function.forward if isinstance(function, nn.Module) else function)


# --- the call -------------------------------------------------------------------------------------


def call(function: Callable, given: Arguments) -> Any:
    """Returns what the function returns for these arguments."""
    __tracebackhide__ = True
    return function(**given) if isinstance(given, dict) else function(*given)


def guarded(
    mine: Callable, given: Arguments, *, name: str, note: str, time_limit_s: float | int
) -> Any:
    """Returns what the reader's function returns for these arguments.

    Raises CheckFailed if the function cannot take these arguments or runs longer than
    `time_limit_s`, and NotWritten, with the task, if it raises NotImplementedError. Its other
    errors are raised again, with `note` added.
    """
    __tracebackhide__ = True
    _refuse_other_arguments(mine, given, name, note)
    try:
        with time_limit(time_limit_s):
            return mine(**given) if isinstance(given, dict) else mine(*given)
    except TimeUp as stopped:
        late = CheckFailed(f"{name} was still running after {time_limit_s:g} s and was "
                           f"stopped{_line(stopped, mine)}. Is there a loop that never ends?"
                           f"\n{note}")
    except NotImplementedError as missing:
        late = NotWritten(f"{name} is not written yet" + (f": {missing}" if str(missing) else ""))
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
        late = CheckFailed(f"{name}{signature} does not take the arguments that the task gives "
                           f"it: {problem}. Compare its parameters with the task.\n{note}")
    else:
        return
    raise late from None


def _theirs(error: BaseException):
    """Returns the part of the traceback that begins with the reader's own code."""
    frames = error.__traceback__
    while (frames is not None
           and frames.tb_frame.f_code.co_filename in (__file__, contextlib.__file__)):
        frames = frames.tb_next
    return frames


def _line(stopped: BaseException, mine: Callable) -> str:
    """Returns words for the line where the reader's function was stopped, counted from its `def`.
    """
    code, frames, line = getattr(mine, "__code__", None), stopped.__traceback__, None
    while frames is not None:
        if frames.tb_frame.f_code is code:
            line = frames.tb_lineno - code.co_firstlineno + 1
        frames = frames.tb_next
    return f" in line {line} of the function" if line else ""

"""Calls a function in a process of its own, which is killed when its time is over.

What is promised: after `time_s` neither the function nor a process in its session runs. The price:
the function is imported again in each call, keeps nothing between calls, and takes and returns
JSON. It must be at the top level of a file. Its effects outside the process are not taken back.

Notebook 56.
"""

import importlib.machinery
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.tune.running import isolated_worker
from llama_from_scratch.tune.running.child import ChildDied, ChildLate, ChildProcess
from llama_from_scratch.tune.running.timed import CallOutcome


def call_isolated(
    function: Callable[..., object], arguments: Mapping[str, Any], *, time_s: float
) -> CallOutcome:
    """Returns what came of `function` with these arguments, in about `time_s` seconds at most.

    The time includes the start of Python and the imports of the function's file. Raises ValueError
    for a function that another process cannot import.
    """
    order = {**_place_of(function), "arguments": dict(arguments), "path": list(sys.path)}
    with ChildProcess(isolated_worker.__file__, is_bare=False) as child:
        try:
            answer = json.loads(child.ask(json.dumps(order).encode(), time_s=time_s))
        except ChildLate:
            return CallOutcome(is_late=True)
        except ChildDied as died:
            return CallOutcome(error=f"its process ended with status {died.code}, or wrote more "
                               "than an answer may have")
    return CallOutcome(value=answer.get("value"), error=answer.get("error"))


def check_place(function: Callable[..., object]) -> None:
    """Raises ValueError unless another process can import the function."""
    _place_of(function)


def _place_of(function: Callable[..., object]) -> dict[str, Any]:
    file, name = inspect.getsourcefile(inspect.unwrap(function)), function.__qualname__
    if file is None or not Path(file).is_file() or not name.isidentifier():
        raise ValueError("an isolated tool must be a function at the top level of a file, because "
                         f"another process imports it; got {name!r}. Move it to a file, or leave "
                         "is_isolated out")
    module = function.__module__
    spec = None if module == "__main__" else _spec(module)
    is_named = spec is not None and spec.origin == file
    return {"module": module if is_named else None, "file": file, "name": name}


def _spec(module: str):
    """Returns the spec of a module that is found on the path, None for any other."""
    try:
        if importlib.machinery.PathFinder.find_spec(module.partition(".")[0]) is None:
            return None
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None

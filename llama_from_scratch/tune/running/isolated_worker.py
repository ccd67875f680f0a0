"""The process of an isolated tool: imports one function, calls it, and answers in JSON.

It gets one line: where the function is, and its arguments. The answer goes to a pipe of its own,
so that nothing that the function prints can be taken for it. The process ends when its parent does.

Notebook 56. Run by `isolated`.
"""

import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import threading


def main() -> None:
    """Answers the one line on standard input."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    orders = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    order = json.loads(orders.readline())
    threading.Thread(target=_end_with, args=(orders,), daemon=True).start()
    try:
        sys.path[:] = order["path"]
        value = _function(order)(**order["arguments"])
        answer = json.dumps({"value": value if isinstance(value, str) else _plain(value)})
    except BaseException as error:  # a tool may raise anything; the parent reports it
        words = f"{type(error).__name__}: {error!s:.300}"
        answer = json.dumps({"error": words})
    answers.write(answer.encode() + b"\n")
    answers.close()
    os._exit(0)  # threads that the function left do not keep the process


def _function(order: dict):
    """Returns the function, from its module by name or by file. A tool is called as it was made."""
    if order["module"] is not None:
        module = importlib.import_module(order["module"])
    else:
        loader = importlib.machinery.SourceFileLoader("tools_of_a_file", order["file"])
        spec = importlib.util.spec_from_file_location(loader.name, order["file"], loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return getattr(module, order["name"])


def _plain(value: object) -> object:
    json.dumps(value, allow_nan=False)  # raises here, where the error becomes the answer
    return value


def _end_with(orders) -> None:
    orders.read()
    os._exit(1)


if __name__ == "__main__":
    main()

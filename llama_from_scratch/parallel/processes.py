"""How a process for a rank is started: a copy of a server that has already imported PyTorch.

A copy (`fork`) of a process that has computed with PyTorch can hang, because only one of its
threads is copied. A fresh process (`spawn`) imports PyTorch for seconds. The server process of
multiprocessing ("forkserver") has imported it and computed nothing, so its copies start at once and
are sound. Windows has no such server, and every rank there is a fresh process.

Notebook 40.
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import llama_from_scratch

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Variables of a rank: ranks share the machine's cores, and more threads than cores are slower than
one thread."""
PRELOADED = (
    "llama_from_scratch.parallel.worker", "llama_from_scratch.train.loop", "torch._dynamo")
"""What the server has imported. PyTorch's optimizers import `torch._dynamo` when the first of them
is made, which takes seconds, and every rank that trains would pay for it."""


def context() -> BaseContext:
    """Returns the way to start processes here, with a server that has imported PyTorch.

    Raises ValueError if the path of the temporary folder is too long for the server's socket.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([*PRELOADED])
    with _server_environment():
        try:
            multiprocessing.forkserver.ensure_running()
        except OSError as error:
            if "too long" not in str(error):
                raise
            raise ValueError("ranks are started through a socket, whose path has at most about 100 "
                             f"characters; the temporary folder {tempfile.gettempdir()} is too "
                             f"deep ({error}). Set the variable TMPDIR to a shorter path, such as "
                             "/tmp, before Python starts") from error
    return found


@contextlib.contextmanager
def _server_environment() -> Iterator[None]:
    """Sets the variables that the server process inherits."""
    root = str(Path(llama_from_scratch.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    changed = ONE_THREAD | {"PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Hides where `__main__` comes from, so that a new process does not execute it again."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__")
              if getattr(main, name, None) is not None}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)

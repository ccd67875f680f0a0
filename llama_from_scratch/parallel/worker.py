"""One rank, from the inside: joins the others, runs the functions it is sent, tells what happened.

`launch` starts the processes. A message from here is (kind, content): ("ready", None) when all
ranks have met; ("said", text) for output; ("returned", bytes) or ("raised", Raised) at the end of a
function. A rank ends when its connection closes, or when the process that started it is gone.

Notebook 40.
"""

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from llama_from_scratch.config import record
from llama_from_scratch.parallel.agreement import Agreement
from llama_from_scratch.parallel.output import Said
from llama_from_scratch.parallel.processes import ONE_THREAD
from llama_from_scratch.parallel.stacks import stack_on_request
from llama_from_scratch.parallel.travel import pack, pack_result, unpack
from llama_from_scratch.parallel.world import World, joined

_DEATH_S = 1.0
"""How long after its connections the process that started a rank may end."""
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}


@record
class Start:
    """What a rank must know to join the others.

    `folder`: a scratch folder of these ranks, in which they find each other. `path`, `environment`:
    `sys.path` and the variables of the process that starts the rank. `shared_folder`: the one that
    multiprocessing made for that process.
    """

    rank: int
    n_ranks: int
    folder: str
    shared_folder: str
    path: list[str]
    environment: dict[str, str]
    timeout_s: float
    is_debug: bool


@record
class Raised:
    """An error of a rank.

    `packed`: the exception and its `traceback.TracebackException`, each as bytes, or None if it
    cannot be copied. `traceback`: the same as text; without lines of the sources that only the
    process that started the rank has, such as a notebook's cells.
    """

    kind: str
    message: str
    traceback: str
    packed: tuple[bytes | None, bytes | None]


def serve(connection: Connection, start: Start) -> None:
    """Runs functions until an empty task comes."""
    # The process that started this one decides about its end. A rank has a process group of its
    # own, because a notebook's kernel is killed with its group, and then no process would clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_end_with_parent, args=(start,), daemon=True).start()
    _prepare(start)
    lock = threading.Lock()

    def tell(kind: str, content: Any = None) -> None:
        if kind != "said":
            said.finish()
        with lock, suppress(OSError):
            connection.send((kind, content))

    said = sys.stdout = sys.stderr = Said(lambda text: tell("said", text))
    with stack_on_request(start.folder, start.rank):
        try:
            # The process that started this one watches the time, so gloo may wait longer.
            store = dist.FileStore(str(Path(start.folder, "rendezvous")), start.n_ranks)
            agreement = Agreement(store, timeout_s=start.timeout_s / 2) if start.is_debug else None
            with joined(rank=start.rank, size=start.n_ranks, store=store,
                        device=torch.device("cpu"), timeout_s=4 * start.timeout_s + 60,
                        agreement=agreement) as world:
                tell("ready")
                _serve(connection, world, tell, start)
        except Exception as error:  # it is raised again in the process that started the rank
            tell("raised", _raised(error))
    connection.close()
    # Threads of PyTorch may still run; at a normal end of Python they can crash the process.
    os._exit(0)


def _prepare(start: Start) -> None:
    sys.path[:] = start.path
    os.environ.clear()
    os.environ.update(start.environment | ONE_THREAD)
    if sys.platform in _LOOPBACK:
        os.environ["GLOO_SOCKET_IFNAME"] = _LOOPBACK[sys.platform]
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _serve(connection: Connection, world: World, tell: Callable[..., None], start: Start) -> None:
    while True:
        try:
            task = connection.recv_bytes()
        except (EOFError, OSError):
            _end_abandoned(start)
        if not task:
            return
        tell(*_run(world, task))


def _run(world: World, task: bytes) -> tuple[str, Any]:
    """Returns the message about the end of a function."""
    if world.agreement is not None:
        world.agreement.begin()
    try:
        function, args, kwargs = unpack(task)
        packed = pack_result(function(world, *args, **kwargs))
    except BaseException as error:  # also SystemExit: a rank that ends takes the others along
        return "raised", _raised(error)
    if world.agreement is not None:
        world.agreement.end(world.rank)
    return "returned", packed


def _raised(error: BaseException) -> Raised:
    shown = traceback.TracebackException.from_exception(error, lookup_lines=False)
    while shown.stack and shown.stack[0].filename == __file__:
        del shown.stack[0]
    packed = _packed(error), _packed(shown)
    return Raised(kind=type(error).__name__, message=str(error), traceback="".join(shown.format()),
                  packed=packed)


def _packed(value: Any) -> bytes | None:
    try:
        return pack(value)
    except Exception:  # an error may hold anything
        return None


def _end_with_parent(start: Start) -> None:
    wait([parent_process().sentinel])
    _end_abandoned(start)


def _end_abandoned(start: Start) -> NoReturn:
    """Ends a rank whose program is gone, and removes what that program no longer can."""
    shutil.rmtree(start.folder, ignore_errors=True)
    if wait([parent_process().sentinel], timeout=_DEATH_S):
        shutil.rmtree(start.shared_folder, ignore_errors=True)
    os._exit(1)

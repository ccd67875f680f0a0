"""Sends functions of a test module to ranks, which cannot import test modules.

    import on_ranks

    def add_up(world, x): ...

    on_ranks.launch(add_up, 4, 10)

is `parallel.launch.launch` with time enough for a busy machine. For ranks that stay, or for helpers
of another test module, say once per module that it travels by value:

    on_ranks.by_value(__name__)

    @pytest.fixture(scope="module")
    def ranks():
        with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
            yield ranks

    def test_it(ranks):
        assert ranks.run(add_up, 10) == ...

What a function needs travels with it: the module's globals that it names. A fixture does not.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.launch import launch as launch_ranks

TIMEOUT_S = 300.0


def by_value(module: str) -> None:
    """Lets the functions and classes of a module travel with their code, not as a name."""
    cloudpickle.register_pickle_by_value(sys.modules[module])


def launch(
    function: Callable[..., Any], n_ranks: int, *args: Any, timeout_s: float = TIMEOUT_S,
    is_debug: bool = False, **kwargs: Any,
) -> list[Any]:
    """Returns what the function, of a test module, returned on each rank."""
    by_value(function.__module__)
    return launch_ranks(function, n_ranks, *args, timeout_s=timeout_s, is_debug=is_debug,
                        **kwargs)


def ranks(n_ranks: int) -> Ranks:
    """Returns ranks that stay; functions of the caller's module travel with their code."""
    by_value(sys._getframe(1).f_globals["__name__"])
    return Ranks(n_ranks, timeout_s=TIMEOUT_S)


def ends_of(started: Sequence[subprocess.Popen]) -> tuple[list[int], str]:
    """Returns the statuses of processes, and all that they printed. None of them is left."""
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    return [process.returncode for process in started], "\n".join(said)

"""How processes for ranks are started: from a server with PyTorch, and never by running main."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import on_ranks
import pytest

from llama_from_scratch.parallel.processes import (
    ONE_THREAD,
    PRELOADED,
    context,
    main_hidden,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_processes_are_copies_of_a_server():
    assert context().get_start_method() == "forkserver"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_a_temporary_folder_too_deep_for_a_socket_is_named(tmp_path):
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    code = ("from llama_from_scratch.parallel.processes import context\n"
            "try: context()\nexcept ValueError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"TMPDIR": str(deep), "PYTHONPATH": str(ROOT)})
    assert f"the temporary folder {deep} is too deep" in done.stdout, done.stderr
    assert "Set the variable TMPDIR to a shorter path" in done.stdout


def test_where_there_is_no_server_every_process_is_fresh(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert context().get_start_method() == "spawn"


def test_the_environment_is_as_before():
    before = dict(os.environ)
    context()
    assert dict(os.environ) == before


def test_a_rank_has_one_thread_whatever_library_computes():
    assert set(ONE_THREAD.values()) == {"1"} and "OMP_NUM_THREADS" in ONE_THREAD


def test_main_is_hidden_while_a_process_starts_and_back_afterwards(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "/somewhere/script.py", raising=False)
    spec = getattr(main, "__spec__", None)
    with pytest.raises(KeyError), main_hidden():
        assert main.__file__ is None and getattr(main, "__spec__", None) is None
        raise KeyError
    assert main.__file__ == "/somewhere/script.py" and getattr(main, "__spec__", None) is spec


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_what_the_server_has_imported_a_rank_need_not_import():
    found = on_ranks.launch(lambda world, names: [name in sys.modules for name in names], 1,
                            PRELOADED)
    assert found == [[True] * len(PRELOADED)]

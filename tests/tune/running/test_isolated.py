import importlib.util
import os
import sys
import textwrap
import time

import pytest

from llama_from_scratch.tune.running.isolated import call_isolated, check_place
from llama_from_scratch.tune.tools import tool

SOURCE = textwrap.dedent('''
    import os, sys, time
    def add(a: int, b: int) -> int:
        "Adds."
        print("noise", flush=True)
        os.write(1, b"noise")
        return a + b
    def fail():
        raise LookupError("nothing here")
    def leave():
        os._exit(7)
    def hang(path: str):
        open(path, "w").write(str(os.getpid()))
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
    def long(n: int) -> str:
        return "a" * n
    def thing():
        return object()
    def where() -> list:
        return [os.getcwd(), os.getpid()]
''')


@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "my_tools.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("my_tools", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_call_in_a_process_of_its_own_returns_a_value_or_an_error(module):
    assert call_isolated(module.add, {"a": 1, "b": 2}, time_s=60.0).value == 3
    assert call_isolated(module.fail, {}, time_s=60.0).error == "LookupError: nothing here"
    assert "status 7" in call_isolated(module.leave, {}, time_s=60.0).error
    assert call_isolated(module.long, {"n": 50_000}, time_s=60.0).value == "a" * 50_000
    folder, pid = call_isolated(module.where, {}, time_s=60.0).value
    assert folder == os.getcwd() and pid != os.getpid()


def test_a_value_that_json_has_not_is_an_error_and_too_much_is_not_read(module):
    assert "not JSON serializable" in call_isolated(module.thing, {}, time_s=60.0).error
    assert "more than an answer may have" in call_isolated(
        module.long, {"n": 1 << 23}, time_s=60.0).error


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_call_that_hangs_really_ends(module, tmp_path):
    path = tmp_path / "pid"
    outcome = call_isolated(module.hang, {"path": str(path)}, time_s=0.01)
    assert outcome.is_late and not outcome.is_running
    n_seconds = 1.0
    while not path.exists():  # a slow machine needs longer to start Python
        n_seconds *= 2
        outcome = call_isolated(module.hang, {"path": str(path)}, time_s=n_seconds)
        assert outcome.is_late and n_seconds < 60.0
    pid = int(path.read_text())
    until = time.monotonic() + 30.0
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_function_of_an_installed_module_is_imported_by_its_name():
    from llama_from_scratch.config import nearest

    found = call_isolated(nearest, {"word": "cat", "known": ["cart", "dog"]}, time_s=120.0)
    assert found.value == "did you mean 'cart'?"


def test_a_function_that_another_process_cannot_import_is_refused(module):
    def inner():
        """Inside of a test."""

    for function in (inner, lambda: 3, tool(inner).__call__):
        with pytest.raises(ValueError, match="at the top level of a file"):
            check_place(function)
    check_place(module.add)

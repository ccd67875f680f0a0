"""What can be copied to another process, by value, and how what cannot is named."""

import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from llama_from_scratch.parallel.travel import pack, pack_call, pack_result, unpack

LOCK = threading.Lock()
RATE = 3
namespace = {"__name__": "__main__", "LOCK": LOCK, "RATE": RATE}
"""As in a notebook: a module that another process cannot import."""


def in_a_cell(source, name="f", **more):
    cell = namespace | more
    exec(compile(source, "/nowhere/cell.py", "exec"), cell)
    return cell[name]


def test_a_function_travels_with_its_code_and_the_globals_that_it_uses():
    f = in_a_cell("def g(x): return RATE * x\ndef f(x, y=1): return g(x) + y")
    assert unpack(pack(f))(5) == 16
    assert unpack(pack(lambda x: x + RATE))(1) == 4


def test_it_works_in_a_process_that_knows_nothing_of_this_one(tmp_path):
    f = in_a_cell("def f(x): return RATE * x")
    (tmp_path / "call").write_bytes(pack_call(f, (2,), {}))
    code = ("import sys; from llama_from_scratch.parallel.travel import unpack\n"
            "f, args, kwargs = unpack(open(sys.argv[1], 'rb').read()); print(f(*args, **kwargs))")
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "call")], text=True,
                         capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(
                             filter(None, sys.path))})
    assert ran.stdout == "6\n", ran.stderr


def test_code_keeps_its_file_and_its_lines_for_tracebacks():
    f = unpack(pack(in_a_cell("\n\ndef f():\n    def inner(): pass\n    return inner")))
    assert (f.__code__.co_filename, f.__code__.co_firstlineno) == ("/nowhere/cell.py", 3)
    assert f().__code__.co_filename == "/nowhere/cell.py"


def test_a_recursive_function_and_a_class_from_a_cell_travel():
    assert unpack(pack(in_a_cell("def f(n): return 1 if n < 2 else n * f(n - 1)")))(5) == 120
    Box = in_a_cell("class Box:\n    def __init__(self, x): self.x = x", "Box")
    box = unpack(pack(Box(7)))
    assert box.x == 7 and type(box) is Box, "the same class, so that isinstance works"


class Holder:
    def __init__(self, held):
        self.held, self.itself = held, self

    def method(self, world):
        return self.held


@pytest.mark.parametrize(("function", "args", "kwargs", "name"), [
    (in_a_cell("def f(w): return LOCK"), (), {}, "the global 'LOCK', a lock,"),
    (in_a_cell("def f(w): return LOCK"), (3,), {"x": LOCK}, "the global 'LOCK', a lock,"),
    (in_a_cell("def f(w):\n    def g(): return LOCK\n    return g()"), (), {},
     "the global 'LOCK', a lock,"),
    (in_a_cell("def g(): return LOCK\ndef f(w): return g()"), (), {}, "the global 'LOCK', a lock,"),
    (in_a_cell("f = (lambda lock: lambda w: lock)(LOCK)"), (), {}, "the variable 'lock', a lock,"),
    (in_a_cell("def f(w, x=LOCK): return 1"), (), {}, "a default of the function, a lock,"),
    (in_a_cell("f = lambda w: 1"), (1, [2, {"a": LOCK}]), {}, "argument 1[1]['a'], a lock,"),
    (in_a_cell("f = lambda w: 1"), (), {"x": Holder(LOCK)}, "argument x.held, a lock,"),
    (Holder(LOCK).method, (), {}, "the owner of the function.held, a lock,"),
    (in_a_cell("f = lambda w: 1"), ((x for x in "ab"),), {}, "argument 0, a generator,"),
])
def test_what_cannot_be_copied_is_named_to_its_innermost_part(function, args, kwargs, name):
    with pytest.raises(ValueError) as caught:
        pack_call(function, args, kwargs)
    assert f"what a rank needs is copied to it; {name} cannot be copied (TypeError: " in str(
        caught.value)
    assert "Make it inside the function" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_result_that_cannot_be_copied_is_named():
    with pytest.raises(ValueError) as caught:
        pack_result({"loss": 1.0, "locks": [LOCK]})
    assert "the result['locks'][0], a lock, cannot be copied" in str(caught.value)
    assert "world.kept" in str(caught.value)


@pytest.mark.parametrize("wrong", (3, None, "f"))
def test_only_something_that_can_be_called_runs_on_ranks(wrong):
    with pytest.raises(ValueError, match="ranks run a function; got"):
        pack_call(wrong, (), {})


def test_a_partial_and_a_method_travel():
    for function, args in ((partial(pow, 2), (5,)), ("a-b".split, ("-",))):
        found, args, kwargs = unpack(pack_call(function, args, {}))
        assert found(*args, **kwargs) == function(*args)


def test_without_cloudpickle_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ValueError, match="pip install cloudpickle"):
        pack(1)


def test_the_library_loads_without_cloudpickle():
    code = ("import sys; sys.modules['cloudpickle'] = None\n"
            "import llama_from_scratch.parallel.launch")
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})

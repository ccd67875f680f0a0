import pytest

from llama_from_scratch.tune.agents.tool_file import tools_in
from llama_from_scratch.tune.running.isolated import call_isolated

SOURCE = '''
from os.path import join
from typing import Literal
from llama_from_scratch.tune.tools import tool

N = 3

def send(who: str) -> str:
    "Sends."
    return _helped(who)

def _helped(who):
    return who + "!"

@tool(is_consequential=False)
def get(who: str, what: Literal["a", "b"] = "a") -> str:
    "Looks up."
    return who

alias = get

class Thing:
    pass

@tool(is_consequential=False, is_isolated=True)
def add(a: int, b: int) -> int:
    "Adds."
    return a + b + N
'''


def written(tmp_path, source):
    path = tmp_path / "my tools.txt"
    path.write_text(source)
    return path


def test_public_functions_of_the_file_are_tools_in_their_order(tmp_path):
    send, get, add = tools_in(written(tmp_path, SOURCE))
    assert [each.name for each in (send, get, add)] == ["send", "get", "add"]
    assert send.is_consequential and not get.is_consequential and add.is_isolated
    assert send(who="Tom") == "Tom!"


def test_an_isolated_tool_of_a_file_runs_in_another_process(tmp_path):
    *_, add = tools_in(written(tmp_path, SOURCE))
    assert call_isolated(add.function, {"a": 1, "b": 2}, time_s=120.0).value == 6


def test_two_files_of_one_name_do_not_mix(tmp_path):
    (tmp_path / "b").mkdir()
    first = written(tmp_path, "def f() -> int:\n  'One.'\n  return 1")
    second = written(tmp_path / "b", "def f() -> int:\n  'Two.'\n  return 2")
    (one,), (two,) = tools_in(first), tools_in(second)
    assert (one(), two()) == (1, 2)


@pytest.mark.parametrize(("source", "words"), [
    ("x = 1", "must define a public function; .*my tools.txt defines none"),
    ("1 / 0", "my tools.txt fails with ZeroDivisionError: division by zero. Correct it"),
    ("raise SystemExit(3)", "fails with SystemExit: 3"), ("def f(", "fails with SyntaxError"),
    ("def f(x):\n  'It.'", "must have a type; got 'x' of 'f'"),
    ("def f(x: int): pass", "must have a docstring"),
    ("from llama_from_scratch.tune.tools import tool\ndef f():\n  'a'\ng = tool(f)",
     "a name of its own; got 'f' twice"),
])
def test_a_file_without_good_tools_is_refused(tmp_path, source, words):
    with pytest.raises(ValueError, match=words):
        tools_in(written(tmp_path, source))


def test_a_file_that_is_missing_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.py"):
        with pytest.raises(ValueError, match="there is no file at"):
            tools_in(path)

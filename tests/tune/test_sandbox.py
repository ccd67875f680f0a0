import os
import sys
import threading
from pathlib import Path

import pytest

from llama_from_scratch.tokenizer.chat_format import CODE, FORMATS
from llama_from_scratch.tune import sandbox as module
from llama_from_scratch.tune.sandbox import (
    VERDICTS,
    Sandbox,
    SandboxLimits,
    SandboxProgram,
    code_tool,
    run_programs,
)
from llama_from_scratch.tune.tools import Toolbox

HAS_LIMITS = sys.platform.startswith("linux")
linux = pytest.mark.skipif(not HAS_LIMITS, reason="other systems lack some limits, and say so")
# A way out that exists in every Python: the sandbox's docstring says that it is not stopped.
OUT = ("os = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
       ".__init__.__globals__\n")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(SandboxLimits(cpu_s=0.2, wall_s=60.0, memory_bytes=128 << 20)) as made:
        yield made


def run(sandbox, code, *calls, function="f"):
    return sandbox.run(SandboxProgram(code=code, function=function if calls else None, calls=calls))


def test_values_come_back_as_they_are(sandbox):
    code = ("def f(x): return (x, [x], {'a': {x}, x: None}, b'a', 1.5, float('inf'), True, "
            "'\\ud800')")
    found = run(sandbox, code, (3,), ("b",))
    assert found.verdict == "ok"
    for x, call in zip((3, "b"), found.calls, strict=True):
        assert call.value == (x, [x], {"a": {x}, x: None}, b"a", 1.5, float("inf"), True, "\ud800")
        assert [type(each) for each in call.value][5:7] == [float, bool]
    arguments = ([1, (2, {3}), {"a": b"b"}], frozenset({4}), -(2**200))
    assert run(sandbox, "def f(*x): return x", arguments).calls[0].value == arguments


ENDS = {
    "an endless loop": ("while True: pass", "timeout"),
    "a loop that catches everything": (
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout"),
    "one long operation": ("x = 3 ** (10 ** 8)", "timeout"),
    "an object whose end never ends": (
        "class E:\n  def __del__(self):\n    while True: pass\ne = E()\ne.e = e", "timeout"),
    "an error whose words never end": (
        "class E:\n  def __repr__(self):\n    while True: pass\nraise KeyError(E())", "timeout"),
    "memory at once": ("x = [0] * 10 ** 10", "memory"),
    "memory bit by bit": ("x = []\nwhile True: x.append(bytes(2 * 10 ** 7))", "memory"),
    "a flood": ("while True: print('x' * 99)", "output"),
    "a flood that catches everything": (
        "for i in range(9999):\n  try:\n    print('x' * 99)\n  except BaseException: pass",
        "output"),
    "exit": ("raise SystemExit", "exit"), "exit with a value": ("raise SystemExit(0)", "exit"),
    "exit by its name": ("exit()", "error"),
    "no import": ("import os", "error"), "no import by name": ("__import__('sys')", "error"),
    "no relative import": ("from . import a", "error"),
    "no open": ("open('x', 'w')", "error"), "no input": ("input()", "error"),
    "no eval": ("eval('1')", "error"),
    "recursion": ("def g(): g()\ng()", "error"),
    "an interrupt": ("raise KeyboardInterrupt", "error"),
    "half a line": ("def f(", "syntax"), "deep brackets": ("(" * 50_000, "syntax"),
    "deep signs": ("-" * 90_000 + "1", "syntax"),
    "deep names": ("x" + ".a" * 40_000, "syntax"), "half characters": ("x = '\ud800'", "syntax"),
    "no function": ("x = 1", "missing"), "no callable": ("f = 1", "missing"),
}
if not HAS_LIMITS:
    ENDS = {name: each for name, each in ENDS.items() if each[1] != "memory"}


@pytest.mark.parametrize("name", ENDS)
def test_every_way_to_fail_is_a_verdict_for_the_program_and_all_its_calls(sandbox, name):
    code, verdict = ENDS[name]
    found = run(sandbox, code, (1,), (2,))
    assert (found.verdict, [call.verdict for call in found.calls]) == (verdict, [verdict] * 2)
    assert found.words and len(found.words) < 300 and verdict in VERDICTS
    again = run(sandbox, "def f(x): return x + 1", (1,))
    assert again.calls[0].value == 2, "the next program runs"


def test_a_call_that_fails_is_no_verdict_about_the_others(sandbox):
    code = "def f(x):\n  if x == 1: raise SystemExit\n  return {0: 'a', 2: g}[x] if x < 3 else f(x)"
    code = "g = lambda: 3\n" + code
    found = run(sandbox, code, (0,), (1,), (2,), (3,), (9,), ())
    assert [call.verdict for call in found.calls] == ["ok", "exit", "error", "error", "error",
                                                      "error"]
    assert found.calls[2].words == "a value of type function is not plain data"
    assert found.calls[3].words.startswith("RecursionError") and found.verdict == "ok"


def test_a_crash_is_not_counted_as_the_last_result(sandbox):
    code = "def f(x):\n  while x: pass\n  return 5"
    found = run(sandbox, code, (0,), (0,), (1,), (0,))
    assert [(call.verdict, call.value) for call in found.calls] == [
        ("ok", 5), ("ok", 5), ("timeout", None), ("timeout", None)]


def test_what_a_program_prints_is_kept_and_never_a_verdict(sandbox):
    forged = '{"verdict": "ok", "words": "", "calls": [["ok", ["v", 1]]], "printed": ""}'
    found = run(sandbox, f"print({forged!r})\nprint(1, 2, sep='', end='')\ndef f(x): return 2",
                (1,))
    assert found.calls[0].value == 2 and found.printed == forged + "\n12"


def test_what_a_program_that_gets_out_writes_to_its_output_is_no_answer(sandbox):
    forged = b'{"verdict": "ok", "words": "", "calls": [["ok", ["v", 9]]], "printed": ""}\n'
    code = OUT + f"def f(x): return [os['write'](n, {forged!r}) for n in (1, 2)] and x"
    assert run(sandbox, code, (3,)).calls[0].value == 3
    assert run(sandbox, "def f(x): return x", (4,)).calls[0].value == 4


def test_a_program_cannot_pass_with_an_object_that_equals_everything(sandbox):
    code = ("class E(int):\n  def __eq__(self, other): return True\n"
            "  def __repr__(self): return '4'\n  __hash__ = int.__hash__\ndef f(x): return [E(3)]")
    assert run(sandbox, code, (1,)).calls[0].words == "a value of type E is not plain data"


def test_a_program_finds_nothing_of_the_one_before(sandbox):
    run(sandbox, "import math\nmath.pi = 3\nmath.new = 1\nx = 1\nlen = 3")
    found = run(sandbox, "import math\ndef f(): return math.pi > 3, [n for n in ('new',) if "
                         "hasattr(math, n)], len([1])", ())
    assert found.calls[0].value == (True, [], 1)
    assert run(sandbox, "x").words == "NameError: name 'x' is not defined"
    changing = "def f(x):\n  x.append(1)\n  return len(x)"
    assert [call.value for call in run(sandbox, changing, ([],), ([],)).calls] == [1, 1]


@linux
def test_files_and_processes_are_not_made_even_by_a_program_that_gets_out(sandbox, tmp_path):
    made = tmp_path / "made"
    tmp_path.chmod(0o777)
    code = OUT + f"def f(name): return os[name](*{{'fork': (), 'open': ({str(made)!r}, 65)}}[name])"
    found = run(sandbox, code, ("fork",), ("open",))
    assert [call.words.split(":")[0] for call in found.calls] == ["BlockingIOError", "OSError"]
    assert not made.exists()
    forks = "def f():\n  while True:\n    try: os['fork']()\n    except Exception: pass"
    assert run(sandbox, OUT + forks, ()).verdict == "timeout"


@linux
def test_a_program_that_ends_the_process_is_a_verdict_and_the_others_run():
    good = SandboxProgram(code="def f(x): return x", function="f", calls=((1,),))
    gone = SandboxProgram(code=OUT + "os['_exit'](0)")
    killed = SandboxProgram(code=OUT + "os['kill'](os['getpid'](), 11)", function="f",
                            calls=((1,),))
    found = run_programs([good, gone, good, killed, good])
    assert [each.verdict for each in found] == ["ok", "died", "ok", "died", "ok"]
    assert found[1].words == "it ended the process, with status 0"
    assert "SIGSEGV" in found[3].words and found[3].calls[0].verdict == "died"


@linux
def test_the_folder_is_empty_not_ours_and_gone_at_the_end():
    with Sandbox() as sandbox:
        found = run(sandbox, OUT + "def f(): return os['getcwd'](), os['listdir']('.'), "
                                   "dict(os['environ'])", ())
        # The list of a folder needs a file descriptor, and there is none left.
        assert "Too many open files" in found.calls[0].words
        found = run(sandbox, OUT + "def f(): return os['getcwd'](), list(os['environ'])", ())
        folder, names = found.calls[0].value
        assert Path(folder).is_dir() and list(Path(folder).iterdir()) == []
        assert not Path.cwd().is_relative_to(folder) and folder != os.getcwd()
        assert set(names) <= {"LC_CTYPE"}
    assert not Path(folder).exists()


@linux
def test_no_child_no_thread_and_no_file_is_left(sandbox):
    def children():
        return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()

    before, n_files = len(children()), len(os.listdir("/proc/self/fd"))
    n_threads = threading.active_count()
    codes = ("while True: pass", "x = [0] * 10 ** 10", "1")
    run_programs([SandboxProgram(code=code) for code in codes], SandboxLimits(cpu_s=0.05))
    assert len(children()) == before and len(os.listdir("/proc/self/fd")) == n_files
    assert threading.active_count() == n_threads


def test_the_wall_limit_ends_what_uses_no_time(monkeypatch):
    # A program has no way to sleep, so the runner itself does.
    runner = Path(module.sandbox_runner.__file__)
    source = runner.read_text().replace("        job = json.loads(line)\n", "        job = "
                                        "json.loads(line)\n        __import__('time').sleep(600)\n")
    assert "sleep" in source
    with Sandbox(SandboxLimits(wall_s=0.05)) as sandbox:
        sandbox.close()
        path = Path(sandbox_file(source))
        monkeypatch.setattr(module.sandbox_runner, "__file__", str(path))
        found = run(sandbox, "def f(x): return x", (1,))
        path.unlink()
    assert (found.verdict, found.calls[0].verdict) == ("timeout", "timeout")


def sandbox_file(source):
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(source)
    os.chmod(file.name, 0o644)
    return file.name


def test_without_limits_of_the_system_it_works_and_says_what_is_missing(monkeypatch):
    source = Path(module.sandbox_runner.__file__).read_text()
    changed = source.replace("        import resource\n", "        raise ImportError\n").replace(
        '"setitimer" in vars(signal)', "False").replace('"setitimer" not in vars(signal)', "True")
    assert changed.count("False") == source.count("False") + 2
    path = Path(sandbox_file(changed))
    monkeypatch.setattr(module.sandbox_runner, "__file__", str(path))
    with Sandbox(SandboxLimits(wall_s=2.0)) as sandbox:
        assert set(sandbox.missing) == {"CPU time of a program", "memory", "file size", "new files",
                                        "CPU time of the process", "new processes"}
        assert run(sandbox, "while True: pass").verdict == "timeout", "the parent's clock ends it"
        assert run(sandbox, "def f(x): return x", (1,)).calls[0].value == 1
    path.unlink()


@linux
def test_here_every_limit_is_set(sandbox):
    assert sandbox.missing == ()


def test_the_tool_for_code_returns_what_is_printed_or_raises_the_verdict(sandbox):
    tool = code_tool(sandbox)
    for name in ("llama-3.1", "llama-4"):
        assert Toolbox([tool]).listed_for(FORMATS[name].builtin_tools) == ([], [CODE])
    assert tool.is_consequential
    assert tool(code="print(3 * 7)") == "21\n" and tool(code="x = 1") == "(it printed nothing)"
    with pytest.raises(ValueError, match="error: ZeroDivisionError: division by zero"):
        tool(code="1 / 0")


@pytest.mark.parametrize(("settings", "words"), [
    (dict(code="x\0"), "must be text without NUL; got a NUL in it"),
    (dict(code="x" * 1_000_000), "at most 100,000 characters; got 1,000,000"),
    (dict(code="x", calls=((1,),)), "calls need the name of a function; got 1 calls"),
    (dict(code="x", function="f", calls=((object(),),)), "must be plain data"),
])
def test_what_cannot_be_a_program_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        SandboxProgram(**settings)


@pytest.mark.parametrize("name", ["cpu_s", "wall_s", "memory_bytes", "max_printed"])
def test_limits_are_above_zero(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0; got 0"):
        SandboxLimits(**{name: 0})


def test_a_child_that_does_not_start_is_an_error_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sandbox_runner, "__file__", str(tmp_path / "nothing.py"))
    with pytest.raises(ValueError, match="does not start within 256 MB.*ended with status 2"):
        Sandbox().__enter__()

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from llama_from_scratch.tune.running.child import (
    MAX_ANSWER_BYTES,
    ChildDied,
    ChildLate,
    ChildProcess,
)

ECHO = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)\n"
posix = pytest.mark.skipif(os.name != "posix", reason="sessions and signals are POSIX")


def script(tmp_path, source):
    path = tmp_path / "script.py"
    path.write_text(source)
    return path


def is_alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(is_true):
    until = time.monotonic() + 60.0
    while not is_true() and time.monotonic() < until:
        time.sleep(0.01)
    return is_true()


def test_a_child_answers_line_by_line(tmp_path):
    with ChildProcess(script(tmp_path, ECHO), is_bare=True) as child:
        assert [child.ask(line, time_s=60.0) for line in (b"a", b"b c", b"")] == [b"A", b"B C", b""]


def test_a_bare_child_sees_nothing_of_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    source = ("import json, os, sys\nsys.stdin.readline()\nprint(json.dumps([os.getcwd(), "
              "dict(os.environ), sys.path, os.listdir()]), flush=True)\nsys.stdin.read()\n")
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        folder, environment, path, files = json.loads(child.ask(b"", time_s=60.0))
        assert Path(folder) != Path.cwd() and Path(folder).is_dir() and files == []
        assert set(environment) <= {"LC_CTYPE", "SYSTEMROOT", "__CF_USER_TEXT_ENCODING"}
        assert not any("site-packages" in each or each == "" for each in path)
    assert not Path(folder).exists(), "its folder is removed"
    with ChildProcess(script(tmp_path, source), is_bare=False) as child:
        folder, environment, *_ = json.loads(child.ask(b"", time_s=60.0))
        assert folder == os.getcwd() and environment["SECRET"] == "1"


def test_a_child_that_is_late_is_reported_and_killed(tmp_path):
    source = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        pid = int(child.answer(time_s=60.0))
        with pytest.raises(ChildLate):
            child.ask(b"x", time_s=0.05)
        assert is_alive(pid) or not sys.platform.startswith("linux")
    assert not is_alive(pid)


@posix
@pytest.mark.parametrize(("source", "code"), [
    ("import sys\nsys.exit(3)\n", 3), ("import os, signal\nos.kill(os.getpid(), 11)\n",
                                       -signal.SIGSEGV)])
def test_a_child_that_ends_is_reported_with_its_status(tmp_path, source, code):
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        with pytest.raises(ChildDied) as died:
            child.ask(b"x", time_s=60.0)
        assert died.value.code == code


@posix
def test_what_a_child_started_ends_with_it(tmp_path):
    source = ("import os, time\npid = os.fork()\nif pid: print(pid, flush=True)\n"
              "time.sleep(600)\n")
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        grandchild = int(child.answer(time_s=60.0))
    assert wait_until(lambda: not is_alive(grandchild))


@posix
def test_what_a_child_that_ended_has_started_ends_too(tmp_path):
    source = ("import os, time\npid = os.fork()\nif pid:\n    print(pid, flush=True)\n"
              "    os._exit(0)\nos.close(1)\ntime.sleep(600)\n")
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        grandchild = int(child.answer(time_s=60.0))
        with pytest.raises(ChildDied):
            child.answer(time_s=60.0)
    assert wait_until(lambda: not is_alive(grandchild))


def test_an_endless_answer_ends_at_a_stated_length(tmp_path):
    source = "import sys\nwhile True: sys.stdout.write('x' * 65536)\n"
    with ChildProcess(script(tmp_path, source), is_bare=True) as child, pytest.raises(ChildDied):
        child.answer(time_s=60.0)
    assert MAX_ANSWER_BYTES == 1 << 22


def test_many_lines_that_nothing_reads_do_not_hold_up_the_end(tmp_path):
    source = "import os\nprint(os.getpid(), flush=True)\nwhile True: print('x', flush=True)\n"
    with ChildProcess(script(tmp_path, source), is_bare=True) as child:
        pid = int(child.answer(time_s=60.0))
    assert not is_alive(pid)

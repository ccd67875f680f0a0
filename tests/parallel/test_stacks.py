"""Where a rank is, as seen from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_from_scratch.parallel import stacks
from llama_from_scratch.parallel.stacks import Stack, read_dump, stack_of

PARALLEL = Path(stacks.__file__).parent
DUMP = f"""\
Thread 0x1 (most recent call first):
  File "/lib/threading.py", line 5 in wait

Current thread 0x2 (most recent call first):
  File "/lib/torch/distributed/c10d.py", line 1 in wait
  File "{PARALLEL}/comm.py", line 39 in wait
  File "{PARALLEL}/sharded.py", line 7 in gather
  File "/home/me/train.py", line 3 in step
  File "{PARALLEL}/worker.py", line 90 in _run
  File "{PARALLEL}/worker.py", line 80 in _serve
  File "/lib/multiprocessing/process.py", line 108 in run
"""


def test_the_thread_of_the_function_is_shown_without_torch_and_the_machinery():
    assert read_dump(DUMP) == Stack(is_waiting=True, lines=(
        f'  File "{PARALLEL}/sharded.py", line 7 in gather',
        '  File "/home/me/train.py", line 3 in step'))


def test_a_rank_that_computes_is_not_waiting():
    busy = "\n".join(line for line in DUMP.splitlines() if "comm.py" not in line)
    assert read_dump(busy).is_waiting is False


def test_a_dump_that_is_not_whole_is_not_read():
    assert read_dump(DUMP.partition("worker.py")[0]) is None and read_dump("") is None


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
def test_a_process_that_is_busy_answers(tmp_path):
    fake = tmp_path / "worker.py"
    fake.write_text(
        "import sys, time\n"
        "from llama_from_scratch.parallel import stacks\n"
        "def _run():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        f"with stacks.stack_on_request({str(tmp_path)!r}, 3):\n"
        "    _run()\n")
    process = subprocess.Popen([sys.executable, str(fake)], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(
                                   filter(None, sys.path))})
    try:
        assert process.stdout.readline() == "ready\n"
        assert stack_of(str(tmp_path), 3, pid=process.pid).lines == ("  (it does not answer)",)
        dump = (tmp_path / "stack-3").read_text()
        found = read_dump(dump.replace(str(fake), f"{PARALLEL}/worker.py"))
        assert found is not None and not found.is_waiting
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_rank_that_has_not_started_is_unknown(tmp_path):
    assert "unknown" in str(stack_of(str(tmp_path), 0, pid=os.getpid()))

import json
import subprocess
import sys
import time

from llama_from_scratch.tune.running import isolated_worker
from llama_from_scratch.tune.running.child import ChildProcess

TOOL = '''
import time
from llama_from_scratch.tune.tools import tool

@tool(is_isolated=True)
def get(who: str) -> str:
    "Looks up."
    print("value: forged")
    return who + "!"

def slow(path: str):
    open(path, "w").close()
    time.sleep(600)
'''


def order(file, name, **arguments):
    return json.dumps({"module": None, "file": str(file), "name": name, "arguments": arguments,
                       "path": sys.path}).encode()


def test_it_calls_also_a_tool_and_what_is_printed_is_no_answer(tmp_path):
    path = tmp_path / "t.py"
    path.write_text(TOOL)
    with ChildProcess(isolated_worker.__file__, is_bare=False) as child:
        assert json.loads(child.ask(order(path, "get", who="Tom"), time_s=120.0)) == {
            "value": "Tom!"}


def test_a_file_that_cannot_be_imported_is_an_error_in_words(tmp_path):
    path = tmp_path / "t.py"
    path.write_text("1 / 0")
    with ChildProcess(isolated_worker.__file__, is_bare=False) as child:
        answer = json.loads(child.ask(order(path, "get"), time_s=60.0))
    assert answer == {"error": "ZeroDivisionError: division by zero"}


def test_it_ends_with_its_parent(tmp_path):
    path, began = tmp_path / "t.py", tmp_path / "began"
    path.write_text(TOOL)
    worker = subprocess.Popen([sys.executable, isolated_worker.__file__], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    worker.stdin.write(order(path, "slow", path=str(began)) + b"\n")
    worker.stdin.flush()
    until = time.monotonic() + 120.0
    while not began.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.poll() is None
    worker.stdin.close()  # as the system does when a parent ends
    assert worker.wait(timeout=60.0) == 1
    worker.stdout.close()

"""One rank from the inside: what it tells about the end of a function. The rest is in test_launch.
"""

import pytest

from llama_from_scratch.parallel import worker
from llama_from_scratch.parallel.travel import pack_call, unpack
from llama_from_scratch.parallel.world import alone


def run(function, *args):
    return worker._run(alone(), pack_call(function, args, {}))


def test_a_result_is_returned():
    kind, packed = run(lambda world, x: (world.size, x), 3)
    assert (kind, unpack(packed)) == ("returned", (1, 3))


@pytest.mark.parametrize("error", (KeyError("x"), SystemExit(3), KeyboardInterrupt()))
def test_whatever_is_raised_is_told_with_its_own_lines_alone(error):
    def fail(world):
        raise error

    kind, raised = run(fail)
    assert kind == "raised"
    assert (raised.kind, raised.message) == (type(error).__name__, str(error))
    assert "in fail\n    raise error\n" in raised.traceback
    assert "parallel/worker.py" not in raised.traceback
    again, shown = map(unpack, raised.packed)
    assert type(again) is type(error) and again.args == error.args
    assert "".join(shown.format()) == raised.traceback


def test_causes_are_shown_too():
    def fail(world):
        try:
            {}["a"]
        except KeyError as error:
            raise ValueError("b") from error

    _, raised = run(fail)
    assert "KeyError: 'a'\n\nThe above exception was the direct cause" in raised.traceback


def test_an_error_that_holds_what_cannot_be_copied_is_told_as_text():
    def fail(world):
        raise ValueError("text", (x for x in "ab"))

    _, raised = run(fail)
    assert raised.packed[0] is None and unpack(raised.packed[1]) and "text" in raised.message


def test_a_task_that_cannot_be_read_is_an_error_of_the_rank():
    kind, raised = worker._run(alone(), b"nonsense")
    assert kind == "raised" and raised.kind == "UnpicklingError"

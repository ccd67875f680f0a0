"""The reader's function is called with copies, and its own errors stay its own."""

import traceback
from pathlib import Path

import pytest
import torch
from failing_checks import double, raises, random_inputs, scaled

from llama_from_scratch.lessons import check


def test_random_inputs_are_seeded_and_differ():
    seen = []
    check.function(lambda x, scale: seen.append(x) or x * scale, scaled, inputs=random_inputs)
    again = []
    check.function(lambda x, scale: again.append(x) or x * scale, scaled, inputs=random_inputs)
    assert len(seen) == 5 and all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))
    assert not torch.equal(seen[0], seen[1])


def test_error_of_the_reader_keeps_its_own_traceback_and_says_which_input():
    with pytest.raises(AttributeError, match="no_such_thing") as failed:
        check.function(raises, lambda x: x, inputs=[(3,)])
    assert failed.value.__notes__ == ["raised by raises\n  with input 1 of 1: x = 3"]
    names = [frame.name for frame in traceback.extract_tb(failed.value.__traceback__)]
    assert names[-2:] == ["raises", "deep_inside"]
    assert not {"call", "_by_signal"} & set(names)
    ours = [f.frame.f_locals
            for f in failed.traceback if str(f.path).startswith(str(Path(check.__file__).parent))]
    assert ours
    assert all("__tracebackhide__" in variables for variables in ours), (
        "IPython and pytest hide what is marked by it")


def test_unwritten_exercise_says_its_task_and_shows_no_trace():
    def stub(x):
        raise NotImplementedError("return the tensor as it was before")

    with pytest.raises(NotImplementedError, match="^stub is not written yet: return the "
                                                  "tensor as it was before$") as failed:
        check.function(stub, double, inputs=[(1,)])
    assert failed.value.__suppress_context__
    assert "stub" not in [frame.name for frame in traceback.extract_tb(failed.value.__traceback__)]

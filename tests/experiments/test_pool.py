import json
import pickle
import sys

import pytest
from tiny_sweeps import is_there

from llama_from_scratch.experiments.pool import Pool, moment_of


class Doing:
    """Calls a function in the process that unpickles it."""

    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def task(*call):
    return pickle.dumps((sys.path, pickle.dumps(Doing(*call))))


def test_a_worker_that_ends_takes_only_its_task_with_it_and_says_why():
    code = "import os, sys; print('out of luck', file=sys.stderr, flush=True); os._exit(3)"
    tasks = [task(int, "x"), task(exec, code), task(int, "y")]
    with Pool(tasks, n_workers=1) as pool:
        told = dict(pool.messages(lambda: False))
    assert [told[i]["kind"] for i in range(3)] == ["failed", "died", "failed"]
    assert "ValueError: invalid literal" in told[0]["error"] and told[0]["errno"] is None
    assert told[1]["error"] == "its process ended with status 3: out of luck"


def test_an_interrupt_begins_no_more_tasks_and_an_error_leaves_no_process():
    pids = []
    with pytest.raises(ZeroDivisionError), Pool([task(int, "1")] * 3, n_workers=1) as pool:
        messages = pool.messages(lambda: True)
        assert next(messages) == (-1, {"kind": "stopping"}) and pool.is_stopping
        pids = [worker._process.pid for worker in pool._workers]
        assert {number for number, _ in messages} <= {0}, "the others were not begun"
        raise ZeroDivisionError
    assert not any(map(is_there, pids))


def test_a_moment_survives_its_way_as_json():
    validation = {"loss": 2.0, "bits_per_byte": 1.25, "n_targets": 10, "n_bytes": 30}
    step = {"step": 4, "loss": 2.5, "lr": 1e-3, "grad_norm": 1.0, "n_tokens": 64, "time_s": 0.5}
    plain = {"what": "a", "n_steps": 9, "left_s": 2.0, "sample": "Tim"}
    for found in (None, validation):
        sent = json.loads(json.dumps(plain | {"step": step | {"validation": found}}))
        moment = moment_of(sent)
        assert (moment.n_done, moment.step.loss, moment.sample) == (5, 2.5, "Tim")
        assert (moment.step.validation is None) == (found is None)

import io
import json
import subprocess
import sys

import cloudpickle
from tiny_experiments import tiny
from tiny_sweeps import wait_until

from llama_from_scratch.experiments import Store, run
from llama_from_scratch.experiments.parts import part
from llama_from_scratch.experiments.running import variants_of
from llama_from_scratch.experiments.sweep import Task, _packed
from llama_from_scratch.experiments.worker import LENGTH_BYTES, _exactly


class Piecemeal(io.RawIOBase):
    """An input that gives a byte at a time."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def read(self, n_bytes=-1):
        return self._data.read(1)


def test_a_task_is_read_whole_or_not_at_all():
    assert _exactly(Piecemeal(b"abcd"), 3) == b"abc"
    assert _exactly(Piecemeal(b"ab"), 3) is None


def test_a_worker_trains_what_it_gets_and_stops_after_a_step_when_its_input_closes(tmp_path):
    marker = tmp_path / "waits"

    def schedule(step, *, n_steps, peak, n_warmup, final_ratio):
        import threading
        import time

        print("a part prints", step)
        # It ends when the thread has ended that reads the input, which is closed then.
        while peak == 0.02 and step == 3 and n_steps == 6 and threading.active_count() > 1:
            marker.touch()
            time.sleep(0.01)
        return peak

    base, store = tiny(tmp_path), Store(tmp_path / "S")
    process = subprocess.Popen([sys.executable, "-m", "llama_from_scratch.experiments.worker"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    experiments = [variants_of(base, settings={"train.peak_lr": rate}, seeds=1,
                               replace={"schedule": schedule})[0] for rate in (0.01, 0.02)]
    for one in experiments:
        task = _packed(Task(experiment=one, base=base), store)
        process.stdin.write(len(task).to_bytes(LENGTH_BYTES, "little") + task)
        process.stdin.flush()
    wait_until(lambda: marker.exists() or process.poll() is not None)
    process.stdin.close()
    printed = process.stderr.read().decode()
    messages = [json.loads(line) for line in process.stdout.read().decode().splitlines()]
    assert process.wait() == 0, printed
    process.stdout.close()
    process.stderr.close()
    assert "a part prints 5" in printed
    assert [one["kind"] for one in messages if one["kind"] != "step"] == ["done", "done"]
    moments = [one["moment"] for one in messages if one["kind"] == "step"]
    assert moments[0]["step"]["step"] == 0 and moments[0]["n_steps"] == 6
    first, second = (store.find(store.place(one, base=base)) for one in experiments)
    assert (first.state, second.state) == ("complete", "stopped")
    assert len(second.curves.steps) == 4, "it finished the step in progress"
    assert first.machine["n_threads"] == 1


def test_the_source_of_a_part_survives_the_way(tmp_path):
    done = run(tiny(tmp_path), replace={"mask": lambda q, k: k <= q}, kept_in=tmp_path / "S")
    sent = cloudpickle.loads(cloudpickle.dumps(part(lambda q, k: k <= q)))
    assert "lambda q, k: k <= q" in sent.described()["source"]
    assert "lambda q, k: k <= q" in done.parts["mask"]["source"]

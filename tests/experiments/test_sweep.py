import concurrent.futures
import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from tiny_experiments import tiny
from tiny_sweeps import at_the_gate, is_there, locks, wait_until, write_mine

from llama_from_scratch.experiments import Store, run, sweep
from llama_from_scratch.experiments.parts import part
from llama_from_scratch.experiments.sweep import combinations
from llama_from_scratch.files import locked

LEARNING_RATES = {"train.peak_lr": [1e-2, 2e-2]}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def states(variants):
    return [one.state for variant in variants for one in variant.runs]


def stored_states(folder):
    runs, damaged = Store(folder).runs()
    assert not damaged
    return sorted(one.state for one in runs)


def losses(variants):
    return [one.curves.loss.tolist() for variant in variants for one in variant.runs]


def started(folder):
    """A sweep of two values and two seeds in a process of its own, both of whose workers wait."""
    file = write_mine(folder)
    code = (f"from llama_from_scratch.experiments import sweep\n"
            f"from llama_from_scratch.experiments.parts import part\n"
            f"sweep(part({f'{file}:MINE'!r}).use, {LEARNING_RATES!r}, seeds=2, n_workers=2,\n"
            f"      replace={{'schedule': {f'{file}:schedule'!r}}}, kept_in={str(folder / 'S')!r})")
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True,
                               stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(at_the_gate(folder)) == 2 or process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    return process, at_the_gate(folder)


def again(folder, **options):
    file = f"{folder / 'mine.py'}"
    return sweep(part(f"{file}:MINE").use, LEARNING_RATES, seeds=2, kept_in=folder / "S",
                 replace={"schedule": f"{file}:schedule"}, **options)


def one_by_one(folder):
    """The same runs in this process, uninterrupted, in another store."""
    file = f"{folder / 'mine.py'}"
    return [run(part(f"{file}:MINE").use, seeds=2, kept_in=folder / "whole",
                replace={"schedule": f"{file}:schedule"}, **{"train.peak_lr": rate})
            for rate in LEARNING_RATES["train.peak_lr"]]


@pytest.mark.parametrize("is_group", [True, False], ids=["the group", "only the parent"])
def test_a_killed_sweep_goes_on_and_has_the_losses_of_an_uninterrupted_one(tmp_path, is_group):
    process, workers = started(tmp_path)
    (os.killpg if is_group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(map(is_there, workers)))
    assert stored_states(tmp_path / "S") == ["planned"] * 2 + ["stopped"] * 2
    (tmp_path / "open").touch()
    if not is_group:
        runs, _ = Store(tmp_path / "S").runs()
        assert [len(one.curves.steps) for one in runs if one.state == "stopped"] == [4, 4]
        return
    done = again(tmp_path, n_workers=1)
    assert states(done) == ["complete"] * 4
    assert losses(done) == losses(one_by_one(tmp_path))
    assert not locks(tmp_path / "S")
    before = [one.began for variant in done for one in variant.runs]
    assert [one.began for variant in again(tmp_path) for one in variant.runs] == before


def test_ctrl_c_saves_and_the_sweep_ends_in_order(tmp_path):
    process, workers = started(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, shown = process.communicate()
    assert process.returncode == 0 and "Traceback" not in shown
    assert "stopping after the steps in progress" in shown
    assert "stopped; the same call does the rest" in shown
    assert not any(map(is_there, workers)) and not locks(tmp_path / "S")
    assert stored_states(tmp_path / "S") == ["planned"] * 2 + ["stopped"] * 2
    (tmp_path / "open").touch()


def test_one_run_is_killed_one_diverges_one_fails_and_the_others_go_on(tmp_path):
    def schedule(step, *, n_steps, peak, n_warmup, final_ratio):
        if step == 3 and peak == 0.02:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 3 and peak == 0.04:
            raise RuntimeError("a broken part")
        return 1e29 if step == 3 and peak == 0.03 else peak

    class MyNorm(torch.nn.Module):
        def __init__(self, dim, *, eps):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * self.weight

    shown, base = [], tiny(tmp_path)
    rates = {"train.peak_lr": [0.01, 0.02, 0.03, 0.04, 0.05]}
    parts = {"schedule": schedule, "norm": MyNorm, "mask": lambda q, k: k <= q}
    done = sweep(base, rates, replace=parts, kept_in=tmp_path / "S", n_workers=2,
                 show=shown.append)
    assert states(done) == ["complete", "failed", "diverged", "failed", "complete"]
    errors = [variant.runs[0].error for variant in done]
    assert "SIGKILL" in errors[1] and "lr" in errors[2] and "a broken part" in errors[3]
    assert [one.n_ended for one in shown if one.news] == [1, 2, 3, 4, 5]
    assert shown[-1].n_runs == 5 and "The" in "".join(one.sample for one in shown)
    # What is defined in a cell or a test travels to the workers, and has the same results there.
    alone = run(base, replace=parts, kept_in=tmp_path / "alone", **{"train.peak_lr": 0.05})
    assert done[4].name == alone.name and losses([done[4]]) == losses([alone])
    assert done[0].parts["norm"]["source"].startswith("class MyNorm")
    # Neither complete nor diverged runs are repeated, so that no worker is started.
    kept = {"train.peak_lr": [0.01, 0.03, 0.05]}
    shown.clear()
    again = sweep(base, kept, replace=parts, kept_in=tmp_path / "S", show=shown.append)
    assert states(again) == ["complete", "diverged", "complete"]
    assert [one.words for one in shown] == ["3/3 runs, all ended: remembered"]


def test_a_part_that_cannot_travel_is_named_before_anything_starts(tmp_path):
    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self, step, *, n_steps, peak, n_warmup, final_ratio):
            return peak

    with pytest.raises(ValueError, match="the part 'schedule'.*Locked.*cannot be.*lock"):
        sweep(tiny(tmp_path), {}, replace={"schedule": Locked()}, kept_in=tmp_path / "S")
    assert not (tmp_path / "S").exists()


def test_a_full_disk_ends_the_sweep_and_the_next_call_does_the_rest(tmp_path):
    full = tmp_path / "full"
    full.touch()

    def schedule(step, *, n_steps, peak, n_warmup, final_ratio):
        if step == 3 and peak == 0.02 and full.exists():
            raise OSError(errno.ENOSPC, "no space is left")
        return peak

    rates = {"train.peak_lr": [0.01, 0.02, 0.03]}
    options = dict(replace={"schedule": schedule}, kept_in=tmp_path / "S", n_workers=1)
    with pytest.raises(OSError, match="1 of 3 runs are complete.*the same sweep") as caught:
        sweep(tiny(tmp_path), rates, **options)
    assert caught.value.errno == errno.ENOSPC and not locks(tmp_path / "S")
    assert "planned" in stored_states(tmp_path / "S"), "the third never began"
    full.unlink()
    assert states(sweep(tiny(tmp_path), rates, **options)) == ["complete"] * 3


def test_a_second_sweep_on_one_store_is_refused_and_the_holder_named(tmp_path):
    with locked(tmp_path / "S"), concurrent.futures.ThreadPoolExecutor() as other:
        call = other.submit(sweep, tiny(tmp_path), {}, kept_in=tmp_path / "S")
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
            call.result()
    assert not (tmp_path / "S").exists()


def test_a_grid_is_every_combination():
    assert combinations({}) == [{}]
    assert combinations({"a": [1, 2], "b": (3,)}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]


@pytest.mark.parametrize(("grid", "told"), [
    ({"train.peak_lr": []}, "at least one value"),
    ({"train.peak_lr": [0.1, 0.1]}, "each value once"),
    ({"data.path": "stories"}, r"Write \['stories'\]"),
    ({"train.peak_lrr": [0.1]}, "did you mean 'train.peak_lr'"),
    ({"train.n_steps": [0]}, "n_steps must be at least 1"),
    ({"seed": [0, 1]}, "the runs of a sweep must differ"),
    ({"data.path": ["/no/such/text"]}, "must exist")])
def test_what_cannot_be_swept_is_refused_before_anything_starts(tmp_path, grid, told):
    with pytest.raises(ValueError, match=told):
        sweep(tiny(tmp_path), grid, seeds=2, kept_in=tmp_path / "S", n_workers=1)
    assert not list((tmp_path / "S").rglob("run.json"))


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one worker; got n_workers=0"):
        sweep(tiny(tmp_path), {}, kept_in=tmp_path / "S", n_workers=0)

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_runs import BYTES, CONFIG, OTHER, STORIES, equal, make, run

from llama_from_scratch.checkpoint import native, safetensors_file
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loop import train


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 7, 8])
def test_a_run_interrupted_at_any_step_and_resumed_repeats_the_uninterrupted_one(
    stop_after, tmp_path, uninterrupted
):
    def stop(step):
        if step.step + 1 == stop_after:
            raise KeyboardInterrupt

    first, model = run(folder=tmp_path / "run", on_step=stop)
    assert len(first.steps) == stop_after
    assert first.is_complete == (stop_after == 8)
    loaded, _ = native.load(tmp_path / "run")
    assert equal(loaded, model), "the trained weights are kept and saved"
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    expected, straight = uninterrupted
    assert resumed.losses == expected.losses
    assert [s.grad_norm for s in resumed.steps] == [s.grad_norm for s in expected.steps]
    assert equal(model, straight)
    assert resumed.steps[: stop_after] == first.steps, "the history is kept"


def test_validations_survive_a_resume(tmp_path):
    def stop(step):
        if step.step == 4:
            raise KeyboardInterrupt

    run(folder=tmp_path / "run", validation=OTHER, on_step=stop)
    resumed, _ = run(make(seed=9), folder=tmp_path / "run", validation=OTHER, is_resumed=True)
    straight, _ = run(validation=OTHER)
    assert resumed.validations == straight.validations
    assert len(straight.validations) == 2


class FailingDisk:
    """From step 3 on, the `stage`-th call that changes the disk fails."""

    def __init__(self, patch, stage):
        self.is_armed, self.left = False, stage
        for owner, name in [(os, "rename"), (os, "fsync"), (os, "replace"),
                            (safetensors_file, "save_file"), (Path, "write_text")]:
            patch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            if self.is_armed:
                self.left -= 1
                if self.left == 0:
                    raise OSError(28, "No space left on device")
            return function(*args, **kwargs)
        return wrapped

    def arm(self, step):
        self.is_armed = step.step >= 2


def test_a_full_disk_at_any_stage_of_a_save_costs_only_the_steps_since_the_last_one(
    tmp_path, monkeypatch, uninterrupted
):
    for stage in range(1, 17):
        folder = tmp_path / str(stage)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            run(folder=folder, on_step=FailingDisk(patch, stage).arm)
        resumed, model = run(make(seed=9), folder=folder, is_resumed=True)
        assert resumed.losses == uninterrupted[0].losses, f"stage {stage}"
        assert equal(model, uninterrupted[1])


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from tiny_runs import run
def kill(step):
    if step.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
run(folder={folder!r}, on_step=kill)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_process_resumes_to_the_same_losses(tmp_path, uninterrupted):
    script = KILLED.format(tests=str(Path(tiny_runs.__file__).parent), folder=str(tmp_path / "run"))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           env=os.environ | threads)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    resumed, model = run(make(seed=9), folder=tmp_path / "run", is_resumed=True)
    assert resumed.losses == uninterrupted[0].losses
    assert equal(model, uninterrupted[1])


def test_a_new_run_does_not_replace_a_checkpoint(tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a checkpoint"):
        run(folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(config=dataclasses.replace(CONFIG, seq_len=16)),
         "config.seq_len is 24 there and 16 here"),
        (dict(config=dataclasses.replace(CONFIG, peak_lr=1e-3, seed=4)),
         "peak_lr is 0.01 there and 0.001 here; config.seed"),
        (dict(model=make(ffn_dim=64)), "model.ffn_dim is 32 there and 64 here"),
        (dict(validation=OTHER), "validation is None there"),
    ],
)
def test_resuming_with_other_settings_names_the_differing_keys(change, message, tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        run(folder=tmp_path / "run", is_resumed=True, **change)


def test_resuming_with_other_data_names_it(tmp_path):
    run(folder=tmp_path / "run")
    refusal = r"data.n_documents is 9 there and 8 here; data.n_tokens is .*data.digest"
    with pytest.raises(ValueError, match=refusal):
        train(make(), Packed(STORIES[1:], BYTES), config=CONFIG, folder=tmp_path / "run",
              is_resumed=True)


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="needs a folder with the checkpoint of a run; got None"):
        run(is_resumed=True)
    refusal = "needs a folder with the checkpoint of a run; got .*nothing"
    with pytest.raises(ValueError, match=refusal):
        run(folder=tmp_path / "nothing", is_resumed=True)
    native.save(tmp_path / "model", make(), BYTES)
    with pytest.raises(ValueError, match="holds a model and no run to resume"):
        run(folder=tmp_path / "model", is_resumed=True)


def test_a_damaged_run_is_refused(tmp_path):
    run(folder=tmp_path / "run")
    file = tmp_path / "run/optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"whole safetensors file at .*optimizer.safetensors"):
        run(folder=tmp_path / "run", is_resumed=True)


def test_a_run_that_is_replaced_between_its_record_and_its_optimizer_is_refused(
    tmp_path, monkeypatch
):
    run(folder=tmp_path / "run")
    run(make(seed=3), folder=tmp_path / "other")
    saved = resume.read(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "other").rename(tmp_path / "run")
    monkeypatch.setattr(resume, "read", lambda _: saved)
    with pytest.raises(ValueError, match="was replaced by a newer one meanwhile"):
        run(folder=tmp_path / "run", is_resumed=True)


def stop_after(n):
    def stop(step):
        if step.step + 1 == n:
            raise KeyboardInterrupt
    return stop


@pytest.mark.parametrize("taken", [5, 8])
def test_a_run_goes_on_to_more_steps_with_the_learning_rates_of_a_run_of_that_length(
    taken, tmp_path
):
    longer = dataclasses.replace(CONFIG, n_steps=14, checkpoint_every=3, validate_every=5)
    first, _ = run(folder=tmp_path / "run", on_step=stop_after(taken))
    history, model = run(make(seed=9), config=longer, folder=tmp_path / "run", is_resumed=True)
    assert history.steps[:taken] == first.steps and history.is_complete
    straight, _ = run(config=longer)
    rates = [step.lr for step in straight.steps]
    assert [step.lr for step in history.steps[taken:]] == rates[taken:]
    assert history.steps[taken].lr > first.steps[-1].lr, "it does not go on at the end of a cosine"
    assert resume.read(tmp_path / "run").config == longer

    # And the longer run, stopped and resumed, repeats itself bit for bit.
    run(folder=tmp_path / "again", on_step=stop_after(taken))
    run(make(seed=9), config=longer, folder=tmp_path / "again", is_resumed=True,
        on_step=stop_after(11))
    again, other = run(make(seed=7), config=longer, folder=tmp_path / "again", is_resumed=True)
    assert again.losses == history.losses and equal(model, other)


def test_a_run_does_not_go_on_to_fewer_steps_than_it_has_taken(tmp_path):
    run(folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"has taken 8, got n_steps=7. Choose more"):
        run(config=dataclasses.replace(CONFIG, n_steps=7), folder=tmp_path / "run", is_resumed=True)


def test_where_the_data_came_from_is_kept_and_decides_nothing(tmp_path):
    run(folder=tmp_path / "run", source={"data": "a.txt"})
    assert resume.read(tmp_path / "run").source == {"data": "a.txt"}
    longer = dataclasses.replace(CONFIG, n_steps=9)
    run(config=longer, folder=tmp_path / "run", is_resumed=True, source={"data": "b.txt"})
    assert resume.read(tmp_path / "run").source == {"data": "b.txt"}


def test_a_run_of_an_earlier_version_without_a_source_is_read(tmp_path):
    run(folder=tmp_path / "run", source={"data": "a.txt"})
    file = tmp_path / "run/training.json"
    record = json.loads(file.read_text())
    del record["source"]
    file.write_text(json.dumps(record))
    (tmp_path / "run/checksums.json").unlink()
    assert resume.read(tmp_path / "run").source is None
    run(folder=tmp_path / "run", is_resumed=True)

"""Real kills of a real job under torchrun, and a rank that hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import make, run

from llama_from_scratch.parallel import failures
from llama_from_scratch.parallel.failures import Job, NotSurvived, survive, training_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found "
                                "in /proc, which only Linux has")
TRAINING = training_of("dp=2", zero="3", steps="12")


@pytest.mark.slow
def test_a_training_survives_the_death_of_its_ranks_with_the_same_losses(tmp_path):
    kills = survive(tmp_path, TRAINING, n_ranks=2, n_kills=2, seed=3)
    assert len(kills) == 2 and all(kill.rank in (0, 1) for kill in kills)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith("-logs")) == [
        "text.txt", "undisturbed"]


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_with_what_the_others_wait_in(tmp_path):
    (tmp_path / "text.txt").write_text(failures.TEXT)
    job = Job(tmp_path / "job", [*TRAINING, "--data", str(tmp_path / "text.txt")], n_ranks=2,
              n_restarts=0)
    while not job.is_training():
        time.sleep(0.01)
    ranks = job.ranks()
    os.kill(ranks[1], signal.SIGSTOP)
    with pytest.raises(NotSurvived) as caught:
        job.finish(timeout_s=8.0)
    assert "ends within 8 seconds of its last failure; this one hangs" in str(caught.value)
    assert "rank 1 is in\n  it does not answer (its state is T)" in str(caught.value)
    assert "rank 0 is in\n  File" in str(caught.value)
    assert not any("process" in each for each in job.left()), job.left()


def test_another_loss_or_something_left_is_not_survived(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(make(seed=seed), folder=tmp_path / name / "run")
    job = Job.__new__(Job)
    job._seen, job.run = set(), tmp_path / "b/run"
    failures._refuse_other_end(tmp_path / "a/run", job)
    job.run = tmp_path / "c/run"
    with pytest.raises(NotSurvived, match="has the numbers of the undisturbed one; step 0: loss"):
        failures._refuse_other_end(tmp_path / "a/run", job)
    job.run = tmp_path / "b/run"
    (tmp_path / "b/.run.unfinished").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        job._seen = {alive.pid}
        with pytest.raises(NotSurvived, match=rf"found process {alive.pid}, .run.unfinished"):
            failures._refuse_other_end(tmp_path / "a/run", job)
        alive.stdin.close()

"""Kills ranks of a training at random moments, and checks that it ends as if nothing had happened.

    python -m llama_from_scratch.parallel.failures --kills 30

Machines fail. Training goes on from the last checkpoint, and must have the same losses. Here a
small training under torchrun loses a rank with `kill -9`, again and again: half of the times while
a checkpoint is being saved, otherwise at any time. torchrun ends the other ranks and starts all of
them again, and each time they resume. At the end every loss, gradient length and weight must be the
one of an undisturbed run, bit for bit, with no process and no unfinished file left.

Notebook 47. Linux only, because it reads /proc. Llama 3's interruptions: arXiv:2407.21783, table 5.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import llama_from_scratch
from llama_from_scratch.checkpoint import native
from llama_from_scratch.config import record
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.processes import ONE_THREAD
from llama_from_scratch.train import resume
from llama_from_scratch.train.difference import differences_of

TEXT = "".join(f"The {who} saw a {what}. The {what} ran home, and the {who} ran after it.\n"
               for who in ("cat", "dog", "owl", "old man", "fox")
               for what in ("mouse", "cow", "bee", "hen", "small red bird")) * 4
"""Short, so that a start takes little more than importing PyTorch."""
KILLS_PER_RUN = 5
"""After this many kills a run may end; then the next one begins."""
_POLL_S = 0.002
_GRACE_S = 20.0


class NotSurvived(RuntimeError):
    """A disturbed run hung, failed, or did not end like the undisturbed one."""


@record
class Kill:
    """One kill. `is_in_save`: whether a checkpoint was being saved then."""

    rank: int
    is_in_save: bool
    n_saved: int


class Job:
    """A training under torchrun, in the folder `place / "run"`, and all its ranks so far."""

    def __init__(self, place: Path, training: Sequence[str], *, n_ranks: int, n_restarts: int
                 ) -> None:
        self.run, self._n_ranks = place / "run", n_ranks
        self._logs = place.with_name(place.name + "-logs")
        place.mkdir()
        self._seen: set[int] = set()
        path = os.pathsep.join([str(Path(llama_from_scratch.__file__).parents[1]),
                                os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             str(n_ranks), "--max-restarts", str(n_restarts), "--monitor-interval", "0.1",
             "--redirects", "3", "--log-dir", str(self._logs), "-m", "llama_from_scratch", "train",
             *training, "--out", str(self.run)],
            env=os.environ | ONE_THREAD | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    @property
    def n_saved(self) -> int:
        """The number of steps in the last checkpoint."""
        try:
            return len(resume.read(self.run).steps)
        except ValueError:  # none yet, or it is being replaced
            return 0

    @property
    def is_saving(self) -> bool:
        return self.run.with_name(f".{self.run.name}.unfinished").exists()

    def ranks(self) -> dict[int, int]:
        """Returns the ranks that are alive, as number -> process."""
        found = {}
        for pid in _children(self._process.pid):
            if (number := _rank_of(pid)) is not None:
                found[number] = pid
        self._seen |= set(found.values())
        return found

    def is_training(self) -> bool:
        """Returns whether all ranks are there, and rank 0 holds the folder."""
        ranks = self.ranks()
        lock = self.run.with_name(f".{self.run.name}.lock")
        try:
            return len(ranks) == self._n_ranks and f"process {ranks[0]} " in lock.read_text()
        except OSError:
            return False

    def finish(self, *, timeout_s: float) -> None:
        """Waits for the end. Raises NotSurvived if it fails or hangs, naming where each rank is."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise NotSurvived(f"a training ends within {timeout_s:g} seconds of its last failure; "
                              f"this one hangs.\n\n{self._where()}") from None
        finally:
            self.close()
        if status:
            raise NotSurvived(f"a training ends well after failures; this one has the status "
                              f"{status}.\n\n{self._last_words()}")

    def left(self) -> list[str]:
        """Returns what is left: processes, and files except the run."""
        alive = [f"process {pid}" for pid in sorted(self._seen) if _state(pid)]
        return alive + [path.name for path in self.run.parent.iterdir() if path != self.run]

    def close(self) -> None:
        """Ends all processes."""
        if not self.is_over:
            self._process.terminate()  # so that it starts no ranks again, and sees them end
            for pid in self.ranks().values():
                _kill(pid)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def _where(self) -> str:
        """Returns for each rank the lines of Python it executes, or that it does not answer."""
        ranks, before = self.ranks(), self._errors()
        for pid in ranks.values():
            if hasattr(signal, "SIGUSR1"):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(1.0)
        told = []
        for number, pid in sorted(ranks.items()):
            after = self._errors().get(number, "").removeprefix(before.get(number, ""))
            lines = [line for line in after.split("\n\n")[-1].splitlines() if "File" in line]
            words = "\n".join(lines[:6]) or f"  it does not answer (its state is {_state(pid)})"
            told.append(f"rank {number} is in\n{words}")
        return "\n\n".join(told)

    def _errors(self) -> dict[int, str]:
        """Returns what each rank has written to its standard error, since the last start."""
        attempts = sorted(self._logs.glob("*/attempt_*"), key=lambda path: path.stat().st_mtime)
        return {int(file.parent.name): file.read_text("utf-8", errors="replace")
                for file in attempts[-1].glob("*/stderr.log")} if attempts else {}

    def _last_words(self) -> str:
        return "\n".join(f"rank {number}: {text[-1000:]}"
                         for number, text in sorted(self._errors().items()))


def survive(
    place: Path, training: Sequence[str], *, n_ranks: int, n_kills: int, seed: int = 0,
    timeout_s: float = 300.0,
) -> list[Kill]:
    """Returns what was killed when, after every disturbed run ended like the undisturbed one.

    `place`: an empty folder. `training`: arguments of `llama train` without --out and --data.
    Raises NotSurvived if a run hangs, fails, leaves something, or has another number.
    """
    draw, kills = random.Random(seed), []
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    training = [*training, "--data", str(place / "text.txt")]
    known = Job(place / "undisturbed", training, n_ranks=n_ranks, n_restarts=0)
    while not known.is_over and not known.is_training():
        time.sleep(_POLL_S)
    began = time.monotonic()
    known.finish(timeout_s=timeout_s)
    took_s, number = time.monotonic() - began, 0
    while len(kills) < n_kills:
        n_here = min(n_kills - len(kills), KILLS_PER_RUN)
        job = Job(place / f"disturbed-{number}", training, n_ranks=n_ranks, n_restarts=n_here)
        try:
            for _ in range(n_here):
                kill = _disturb(job, draw, in_save=bool(draw.randrange(2)), took_s=took_s,
                                timeout_s=timeout_s)
                if kill is None:  # it was faster
                    break
                kills.append(kill)
            job.finish(timeout_s=timeout_s)
        finally:
            job.close()
        _refuse_other_end(known.run, job)
        shutil.rmtree(job.run.parent)
        number += 1
    return kills


def _disturb(
    job: Job, draw: random.Random, *, in_save: bool, took_s: float, timeout_s: float
) -> Kill | None:
    """Kills a random rank at a random moment of the training; returns None if it was over."""
    deadline = time.monotonic() + timeout_s
    while not job.is_over and not job.is_training():
        if time.monotonic() > deadline:
            job.finish(timeout_s=0.01)
        time.sleep(_POLL_S)
    n_before = job.n_saved
    if not in_save:
        time.sleep(draw.random() * took_s)
    while in_save and not job.is_over and not job.is_saving:
        time.sleep(_POLL_S)
    if in_save:
        time.sleep(draw.random() * 0.01)
    ranks = job.ranks()
    if job.is_over or len(ranks) == 0:
        return None
    number = draw.choice(sorted(ranks))
    is_saving = job.is_saving
    _kill(ranks[number])
    while number in (now := job.ranks()) and now[number] == ranks[number] and not job.is_over:
        time.sleep(_POLL_S)  # until torchrun has seen it
    return Kill(rank=number, is_in_save=is_saving, n_saved=n_before)


def _refuse_other_end(known: Path, job: Job) -> None:
    if left := job.left():
        raise NotSurvived(f"after a training nothing is left except its run; found "
                          f"{', '.join(left)}")
    steps, others = resume.read(known).steps, resume.read(job.run).steps
    if found := next(differences_of(steps, others), None):
        raise NotSurvived(f"a disturbed run has the numbers of the undisturbed one; {found}")
    pairs = zip(native.open_checkpoint(known).tensors(None),
                native.open_checkpoint(job.run).tensors(None), strict=True)
    if other := [name for (name, a), (_, b) in pairs if not torch.equal(a, b)]:
        raise NotSurvived(f"a disturbed run ends with the weights of the undisturbed one; "
                          f"{', '.join(other[:4])} are different")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended
        return


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if len(fields) > 1 and fields[1] == str(pid) and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _state(pid: int) -> str:
    """Returns the letter of a process's state; empty if there is no such process."""
    return next(iter(_stat(pid)), "")


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _rank_of(pid: int) -> int | None:
    """Returns the rank that torchrun gave to a process; None for its other processes."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(each[5:]) for each in variables if each.startswith(b"RANK=")), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every kill; returns 0 if all runs survived, 1 if not, 2 on another system."""
    parser = argparse.ArgumentParser(description="Kills ranks of a small training, and compares")
    parser.add_argument("--kills", type=int, default=30, help="how often (default 30)")
    parser.add_argument("--mesh", default="dp=2", help="of the training (default dp=2)")
    parser.add_argument("--zero", default="3", help="its ZeRO stage (default 3)")
    parser.add_argument("--steps", default="60", help="its length (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="for the moments (default 0)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS",
                        help="after which a run hangs (default 300)")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/stat").exists():
        print("failures are tried on Linux only, because processes are found in /proc",
              file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="llama-failures-") as folder:
        try:
            kills = survive(Path(folder), training_of(
                options.mesh, zero=options.zero, steps=options.steps),
                n_ranks=Mesh.parse(options.mesh).size, n_kills=options.kills, seed=options.seed,
                timeout_s=options.timeout)
        except NotSurvived as error:
            print(f"not survived: {error}", file=sys.stderr)
            return 1
    for number, kill in enumerate(kills, 1):
        print(f"{number:3}  rank {kill.rank} killed after {kill.n_saved} saved steps"
              f"{', while saving' * kill.is_in_save}")
    print(f"survived {len(kills)} kills: all runs ended like the undisturbed one, bit for bit")
    return 0


def training_of(mesh: str, *, zero: str, steps: str) -> list[str]:
    """Returns the arguments of a training that takes seconds and saves at every third step."""
    return ["--mesh", mesh, "--zero", zero, "--steps", steps, "--every", "3", "--vocab", "280",
            "--dim", "16", "--layers", "2", "--heads", "2", "--kv-heads", "2", "--seq-len", "16",
            "--context", "32", "--batch", "4", "--validation", "0.1", "--sharded-checkpoints",
            "--resume-if-saved"]


if __name__ == "__main__":
    sys.exit(main())

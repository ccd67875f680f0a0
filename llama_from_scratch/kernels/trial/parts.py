"""Runs the steps of a part in a process of its own, so that no failure stops the other steps.

A kernel that reads beyond its tensors costs a process its GPU, and a kernel that waits for a
barrier that no thread reaches never ends. Neither can be caught inside the process. So a child
process carries out the steps and writes a line of JSON before and after each. Its parent reads
these lines. If the child ends in the middle of a step, or the step takes too long, the parent
records the step with the reason and starts another child, which continues after it.

Notebook 30.
"""

import contextlib
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import torch

from llama_from_scratch.config import record

Say = Callable[[str], None]
Outcomes = dict[str, dict[str, Any]]   # by the step's name, ready for JSON
STATUSES = ("right", "wrong", "failed", "not run")
NO_TIME, STOPPED, NOT_REACHED = "for lack of time", "stopped by Ctrl-C", "not reached"
ITSELF = "the part itself"   # stands for a step where a child failed outside of any step
START_SECONDS = 120.0        # for Python, PyTorch and the list of steps
_PAUSE_SECONDS, _END_SECONDS = 0.05, 20.0


@record
class Finding:
    """What a step found. `wrong`: a line for each result that is wrong. `data`: for the report.

    `why_not`: why the step cannot run on this machine, if it cannot.
    """

    wrong: tuple[str, ...] = ()
    why_not: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@record
class TrialStep:
    """One piece of a part: the smallest that is saved, repeated or left out."""

    name: str
    run: Callable[[Say], Finding]


@record
class TrialPart:
    """A named part of the trial.

    `steps(device)` lists the steps and does not run them. `minutes`: how long the part may start
    new steps. `step_seconds`: after this time, a step counts as one that never ends.
    """

    name: str
    what: str
    minutes: float
    step_seconds: float
    steps: Callable[[torch.device], Sequence[TrialStep]]


def carry_out(
    steps: Sequence[TrialStep], *, into: Path, done: Sequence[str], seconds: float, say: Say,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs the steps that are not done yet, and appends to `into` what each of them found.

    This is the child's side. After `seconds` no further step begins. An exception ends the child,
    because its GPU may be lost.
    """
    ends = clock() + seconds
    with open(into, "a") as lines:
        def write(**line: Any) -> None:
            print(json.dumps(line), file=lines, flush=True)

        write(plan=[step.name for step in steps])
        for step in steps:
            if step.name in done:
                continue
            if clock() >= ends:
                return
            write(begins=step.name)
            began = clock()
            found = step.run(say)
            write(ends=step.name, outcome=_outcome(found, clock() - began))


def _outcome(found: Finding, seconds: float) -> dict[str, Any]:
    if found.why_not:
        return {"status": "not run", "why": found.why_not}
    return {"status": "wrong" if found.wrong else "right", "seconds": seconds,
            "wrong": list(found.wrong), **found.data}


@runtime_checkable
class Child(Protocol):
    """What is used of `subprocess.Popen`."""

    returncode: Any

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float) -> int: ...


Start = Callable[[Path, Sequence[str], float, TextIO], Child]
"""Starts a child: (where its lines go, names of the steps that are done, seconds, its stderr)."""


def supervise(
    start: Start, *, seconds: float, step_seconds: float, save: Callable[[Outcomes], None],
    clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep,
) -> Outcomes:
    """Returns the outcome of every step, including those that failed or had no time.

    This is the parent's side. `save` gets the outcomes after each step. On Ctrl-C the child is
    ended, `save` is called a last time, and KeyboardInterrupt is raised again.
    """
    watched = _Watched(save)
    ends = clock() + seconds
    with tempfile.TemporaryDirectory(prefix="llama_from_scratch-trial-") as folder:
        for attempt in itertools.count():
            lines, errors = (Path(folder) / f"{attempt}.{kind}" for kind in ("jsonl", "txt"))
            with open(errors, "w+") as stderr:
                try:
                    child = start(lines, list(watched.outcomes), max(0.0, ends - clock()), stderr)
                    with _ended_after(child):
                        why = watched.follow(child, lines, step_seconds, clock, pause)
                except KeyboardInterrupt:
                    watched.stop()
                    raise
            failed = watched.running or (ITSELF if why or child.returncode else None)
            if failed is None:
                break
            log = errors.read_text(errors="replace")
            watched.fail(failed, why or _reason(log, child.returncode), log)
            if failed == ITSELF or clock() >= ends:
                break
    watched.finish()
    return watched.outcomes


class _Watched:
    """What is known of a part while it runs, over all of its child processes."""

    def __init__(self, save: Callable[[Outcomes], None]) -> None:
        self._save = save
        self._plan: list[str] = []
        self.outcomes: Outcomes = {}
        self.running: str | None = None

    def follow(
        self, child: Child, lines: Path, step_seconds: float,
        clock: Callable[[], float], pause: Callable[[float], None],
    ) -> str:
        """Reads a child's lines to its end. Returns why it was ended, or "" if it ended itself."""
        self.running = None
        since, limit, n_read = clock(), START_SECONDS, 0
        while True:
            is_ended = child.poll() is not None   # asked first, so that no last line is missed
            text = lines.read_bytes() if lines.exists() else b""
            whole = text[n_read:text.rfind(b"\n") + 1]
            n_read += len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))
                since, limit = clock(), step_seconds
            if is_ended:
                return ""
            if clock() - since > limit:
                return f"it took longer than {limit:.0f} s, so its process was ended"
            pause(_PAUSE_SECONDS)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "plan" in line:
            self._plan = line["plan"]
        elif "begins" in line:
            self.running = line["begins"]
        else:
            self.running = None
            self.outcomes[line["ends"]] = line["outcome"]
        self._save(self._with_rest(NOT_REACHED))

    def _with_rest(self, why: str) -> Outcomes:
        rest = {name: {"status": "not run", "why": why} for name in self._plan
                if name not in self.outcomes}
        return {**{name: (self.outcomes | rest)[name] for name in self._plan}, **self.outcomes}

    def fail(self, name: str, why: str, log: str) -> None:
        self.outcomes[name] = {"status": "failed", "why": why, "log": log[-4000:]}
        self._save(self._with_rest(NOT_REACHED))

    def stop(self) -> None:
        self.outcomes = self._with_rest(STOPPED)
        self._save(self.outcomes)

    def finish(self) -> None:
        self.outcomes = self._with_rest(
            "because the part failed" if ITSELF in self.outcomes else NO_TIME)
        self._save(self.outcomes)


def _reason(log: str, code: int) -> str:
    """Returns the last line of an error, or how the process ended if it wrote none."""
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "")
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    # A process that was killed by the system writes no error of its own.
    return f"its process ended with {ended}{f': {last.strip()}' if last else ''}"


@contextlib.contextmanager
def _ended_after(child: Child) -> Iterator[None]:
    try:
        yield
    finally:
        child.kill()   # does nothing if it has ended
        with contextlib.suppress(subprocess.TimeoutExpired):   # a driver may hold it for long
            child.wait(timeout=_END_SECONDS)


def lines_of(outcomes: Outcomes) -> Iterator[str]:
    """Yields what a reader must know: each wrong result, failure, and step that was not run."""
    for name, outcome in outcomes.items():
        if outcome["status"] == "wrong":
            yield from (f"wrong: {line}" for line in outcome["wrong"])
        elif outcome["status"] == "failed":
            yield f"failed: {name}: {outcome['why']}"
        elif outcome["status"] == "not run":
            yield f"not run: {name}, {outcome['why']}"


def summary(outcomes: Outcomes) -> str:
    """Returns how many steps had which status: "4 right, 1 failed"."""
    counts = {status: sum(each["status"] == status for each in outcomes.values())
              for status in STATUSES}
    return ", ".join(f"{n} {status}" for status, n in counts.items() if n) or "nothing to run"

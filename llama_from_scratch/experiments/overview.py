"""Where several runs are while they train: how many have ended, the losses, the time left.

`train.progress` shows it on a terminal, in a log and in a notebook, as it shows one run.

Notebook 09.
"""

import time
from collections.abc import Sequence

from llama_from_scratch.config import record
from llama_from_scratch.train.progress import TrainingMoment, duration


@record
class Overview:
    """Where some runs are. `n_steps`, `n_done`: the steps of all runs together.

    `running`: where each run in progress is. `left_s`: the seconds that the rest will take, or None
    before the first step. `news`: the result of a run that has just ended, or "". `sample`: what
    one of the models has written last, or "".
    """

    what: str
    n_steps: int
    n_done: int
    n_runs: int
    n_ended: int
    running: tuple[TrainingMoment, ...]
    left_s: float | None
    news: str
    sample: str

    @property
    def is_kept(self) -> bool:
        return bool(self.news)

    @property
    def words(self) -> str:
        """Runs that have ended, time left, and the news or the runs in progress."""
        left = "starting" if self.left_s is None else f"{duration(self.left_s)} left"
        if self.n_ended == self.n_runs:
            left = "all ended"
        rest = self.news or " | ".join(
            f"{run.what}, {run.n_done}/{run.n_steps}, loss {run.step.loss:.3f}"
            for run in self.running)
        return f"{self.n_ended}/{self.n_runs} runs, {left}{': ' if rest else ''}{rest}"


class Tracker:
    """Puts together where some runs are, from what is known of each.

    `n_steps`: of each run that has still to be trained. `n_ended`: how many others ended before.
    """

    def __init__(self, *, what: str, n_steps: Sequence[int], n_ended: int) -> None:
        self._what, self._n_steps, self._n_ended = what, list(n_steps), n_ended
        self._n_runs = len(n_steps) + n_ended
        self._done = [0] * len(n_steps)
        self._first: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._running: dict[int, TrainingMoment] = {}
        self._began_s: float | None = None
        self._sample = ""

    def moved(self, number: int, moment: TrainingMoment) -> Overview:
        """Returns the overview after a step of a run."""
        if self._began_s is None:
            self._began_s = time.monotonic() - moment.step.time_s
        first = self._first.setdefault(number, moment.n_done - 1)  # a resumed run begins late
        self._taken[number] = moment.n_done - first
        self._done[number], self._running[number] = moment.n_done, moment
        self._sample = moment.sample or self._sample
        return self.now()

    def ended(self, number: int, news: str) -> Overview:
        """Returns the overview after the end of a run. `news`: its name and its result."""
        last = self._running.pop(number, None)
        self._done[number] = self._n_steps[number]
        self._n_ended += 1
        self._sample = last.sample if last is not None else ""
        return self.now(news)

    def now(self, news: str = "") -> Overview:
        """Returns the overview as it is."""
        total, done = sum(self._n_steps), sum(self._done)
        left_s = None
        if self._began_s is not None:
            per_step_s = (time.monotonic() - self._began_s) / sum(self._taken.values())
            left_s = per_step_s * (total - done)
        if not self._n_steps:  # a full bar
            total = done = 1
        return Overview(what=self._what, n_steps=total, n_done=done, n_runs=self._n_runs,
                        n_ended=self._n_ended, running=tuple(self._running.values()),
                        left_s=left_s, news=news, sample=self._sample)

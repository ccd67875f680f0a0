"""The progress of a run while it trains: steps done, loss, speed, time left, and the latest sample.

`train(..., on_step=TrainingProgress(n_steps=300))` shows it on a terminal, in a log or in a
notebook. The command line, sweeps and the live plot of the notebooks use the same callback, each
with its own `show`.

Notebooks 09 and 17.
"""

import shutil
import sys
import time
from collections.abc import Callable
from io import TextIOBase
from typing import Any, Protocol, runtime_checkable

from llama_from_scratch.config import record
from llama_from_scratch.train.records import Step

_WIDTH = 24
_SHOW_EVERY_S = 0.1


def duration(time_s: float) -> str:
    """Returns a time for people: 8.4 -> "8 s", 95 -> "1 min 35 s", 7300 -> "2 h 1 min"."""
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@runtime_checkable
class Shown(Protocol):
    """What `TerminalLine` and the page show: where a run is, or where several runs are.

    `words`: the state in a line. `is_kept`: whether its line stays when the next one comes.
    """

    what: str
    n_steps: int
    n_done: int
    words: str
    sample: str
    is_kept: bool


@record
class TrainingMoment:
    """Where a run is after a step.

    `what`: the name of the run, or "". `left_s`: the seconds that the rest will take, without
    validations still to come. `sample`: what the model wrote at the latest validation, or "".
    """

    what: str
    n_steps: int
    step: Step
    left_s: float
    sample: str

    @property
    def n_done(self) -> int:
        return self.step.step + 1

    @property
    def is_last(self) -> bool:
        return self.n_done == self.n_steps

    @property
    def is_kept(self) -> bool:
        return self.is_last or self.step.validation is not None

    @property
    def words(self) -> str:
        """The line without its bar: steps, loss, speed and time left, or the validation."""
        step = self.step
        text = (f"{self.n_done}/{self.n_steps}, loss {step.loss:.3f}, "
                f"{step.tokens_per_s:,.0f} tokens/s, {duration(self.left_s)} left")
        if step.validation is not None:
            text += (f", validation {step.validation.loss:.3f} = "
                     f"{step.validation.bits_per_byte:.3f} bits per byte")
        return text


def line(moment: Shown) -> str:
    """Returns a line about the run: bar, steps, loss in nats, tokens per second, time left."""
    filled = _WIDTH * moment.n_done // moment.n_steps
    bar = "#" * filled + "." * (_WIDTH - filled)
    return f"{moment.what}{' ' if moment.what else ''}[{bar}] {moment.words}"


class TrainingProgress:
    """Shows a run while it trains, when it is called with each step.

    `sample()` returns what the model writes now; it is called at each validation. `show(moment)`
    shows where the run is, by default on the page of a notebook or on the terminal. `samples` keeps
    the pairs (steps done, text).
    """

    def __init__(
        self, *, n_steps: int, what: str = "", sample: Callable[[], str] | None = None,
        show: Callable[[TrainingMoment], Any] | None = None,
    ) -> None:
        self._n_steps, self._what, self._sample = n_steps, what, sample
        self._show = here() if show is None else show
        self._began_s: float | None = None
        self._first = 0
        self.samples: list[tuple[int, str]] = []

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if self._began_s is None:  # a resumed run begins late
            self._began_s, self._first = now - step.time_s, step.step
        per_step_s = (now - self._began_s) / (step.step + 1 - self._first)
        if step.validation is not None and self._sample is not None:
            self.samples.append((step.step + 1, self._sample()))
        self._show(TrainingMoment(
            what=self._what, n_steps=self._n_steps, step=step,
            left_s=per_step_s * (self._n_steps - step.step - 1),
            sample=self.samples[-1][1] if self.samples else ""))


class TerminalLine:
    """Keeps one line of `stream` up to date, at most ten times a second.

    Each validation keeps a line of its own, with the sample below it. A line that will be
    overwritten ends where the terminal does, because a longer one could not be overwritten. If
    `stream` is a file or a log, not a terminal, only validations and the last step are written.
    """

    def __init__(self, stream: TextIOBase) -> None:
        self._stream, self._drawn_s = stream, -1.0

    def __call__(self, moment: Shown) -> None:
        now, is_kept = time.monotonic(), moment.is_kept
        if self._stream.isatty() and (is_kept or now - self._drawn_s > _SHOW_EVERY_S):
            text = line(moment) + "\n" if is_kept else _fitting(moment)
            self._stream.write("\r\x1b[K" + text)
            self._drawn_s = now
        elif is_kept:
            self._stream.write(line(moment) + "\n")
        if is_kept and moment.sample:
            self._stream.write(f"  {moment.sample!r}\n")
        self._stream.flush()


def _fitting(moment: Shown) -> str:
    """Returns the line, without its bar or its end if it is too wide to be overwritten."""
    n_columns = shutil.get_terminal_size().columns - 1
    text = line(moment)
    if len(text) > n_columns:
        text = f"{moment.what} {moment.words}".strip()
    return text[:n_columns]


def here() -> Callable[[Shown], Any]:
    """Returns what shows progress here: a widget in a notebook with ipywidgets, else a terminal."""
    kernel = sys.modules.get("IPython")
    shell = kernel.get_ipython() if kernel is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return TerminalLine(sys.stderr)
    from llama_from_scratch.train.page import Page

    try:
        return Page()
    except ImportError:  # a kernel without ipywidgets
        return TerminalLine(sys.stderr)

"""A progress bar for the terminal: steps done, loss, speed, and the time left.

Notebook 17 draws its own picture from the same step records.
"""

import time
from io import TextIOBase

from llama_from_scratch.train.records import Step

_WIDTH = 24


def duration(time_s: float) -> str:
    """Returns a time for people: 8.4 -> "8 s", 95 -> "1 min 35 s", 7300 -> "2 h 1 min"."""
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line(step: Step, *, n_steps: int, left_s: float) -> str:
    """Returns a line about the run after `step`: bar, steps, loss in nats, speed, time left."""
    n_done = step.step + 1
    filled = _WIDTH * n_done // n_steps
    bar = "#" * filled + "." * (_WIDTH - filled)
    return (f"[{bar}] {n_done}/{n_steps}  loss {step.loss:.3f}  "
            f"{step.tokens_per_s:,.0f} tokens/s  {duration(left_s)} left")


class ProgressBar:
    """Keeps one line of `stream` up to date when it is called with each step.

    The line changes at most ten times a second. Each validation keeps a line of its own. If
    `stream` is a file or a log, not a terminal, only validations and the last step are written,
    each on its own line.
    """

    def __init__(self, stream: TextIOBase, *, n_steps: int) -> None:
        self._stream, self._n_steps = stream, n_steps
        self._began: float | None = None
        self._first, self._drawn = 0, -1.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if self._began is None:  # a resumed run begins late
            self._began, self._first = now - step.time_s, step.step
        per_step_s = (now - self._began) / (step.step + 1 - self._first)
        text = line(step, n_steps=self._n_steps,
                    left_s=per_step_s * (self._n_steps - step.step - 1))
        is_last = step.step + 1 == self._n_steps
        if step.validation is not None:
            text += (f"  validation {step.validation.loss:.3f} = "
                     f"{step.validation.bits_per_byte:.3f} bits per byte")
        is_kept = is_last or step.validation is not None
        if self._stream.isatty() and (is_kept or now - self._drawn > 0.1):
            self._stream.write("\r\x1b[K" + text + ("\n" if is_kept else ""))
            self._drawn = now
        elif is_kept:
            self._stream.write(text + "\n")
        self._stream.flush()

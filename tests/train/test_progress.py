import io

import pytest

from llama_from_scratch.train.progress import (
    TerminalLine,
    TrainingMoment,
    TrainingProgress,
    duration,
    here,
    line,
)
from llama_from_scratch.train.records import Evaluation, Step

EVALUATION = Evaluation(loss=2.0, bits_per_byte=1.25, n_targets=10, n_bytes=30)


def step(number, validation=None):
    return Step(step=number, loss=3.14159, lr=1e-3, grad_norm=1.0, n_tokens=2048, time_s=0.5,
                validation=validation)


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0.4, "0 s"), (8.4, "8 s"), (59.6, "1 min 0 s"), (95.0, "1 min 35 s"),
     (3600.0, "1 h 0 min"), (7300.0, "2 h 1 min")])
def test_durations_are_said_as_people_say_them(time_s, text):
    assert duration(time_s) == text


def test_a_line_shows_bar_steps_loss_speed_and_time_left():
    first, last = (TrainingMoment(what="", n_steps=40, step=step(n), left_s=left_s, sample="")
                   for n, left_s in ((9, 15.2), (39, 0.0)))
    assert line(first) == (
        "[######..................] 10/40, loss 3.142, 4,096 tokens/s, 15 s left")
    assert line(last).startswith("[" + "#" * 24 + "] 40/40")


def test_a_terminal_gets_one_line_that_is_overwritten_and_keeps_validations():
    stream = Tty()
    show = TrainingProgress(n_steps=3, show=TerminalLine(stream))
    show(step(0))
    show(step(1, EVALUATION))
    show(step(2))
    drawn = stream.getvalue().split("\r\x1b[K")[1:]
    assert [text.endswith("\n") for text in drawn] == [False, True, True]
    assert "validation 2.000 = 1.250 bits per byte" in drawn[1]


@pytest.mark.parametrize(("n_columns", "begin"), [(120, "small [####"), (60, "small 1/3, loss"),
                                                  (20, "small 1/3, loss 3.14")])
def test_a_line_that_is_overwritten_fits_into_the_terminal(monkeypatch, n_columns, begin):
    # A wider line would wrap, and only its last row would be overwritten.
    monkeypatch.setenv("COLUMNS", str(n_columns))
    stream = Tty()
    show = TrainingProgress(n_steps=3, what="small", show=TerminalLine(stream))
    show(step(0))
    drawn, = stream.getvalue().split("\r\x1b[K")[1:]
    assert drawn.startswith(begin[: n_columns - 1]) and len(drawn) < n_columns
    show(step(1, EVALUATION))
    kept = stream.getvalue().split("\r\x1b[K")[-1]
    assert "bits per byte\n" in kept, "what stays is whole"


def test_a_file_gets_only_validations_and_the_end():
    stream = io.StringIO()
    show = TrainingProgress(n_steps=5, show=TerminalLine(stream))
    for number in range(5):
        show(step(number, EVALUATION if number == 1 else None))
    assert [text.split("]")[1].split(",")[0].strip()
            for text in stream.getvalue().splitlines()] == ["2/5", "5/5"]
    assert "\r" not in stream.getvalue()


def test_the_time_left_of_a_resumed_run_counts_only_the_steps_it_takes_itself(monkeypatch):
    clock = iter([100.0, 100.0, 102.0, 102.0])  # each step asks twice
    monkeypatch.setattr("llama_from_scratch.train.progress.time.monotonic", lambda: next(clock))
    stream = Tty()
    show = TrainingProgress(n_steps=100, show=TerminalLine(stream))
    show(step(90))  # began half a second before 100.0
    show(step(91))
    assert stream.getvalue().endswith("10 s left"), "2.5 s for two steps, eight are left"


def test_each_validation_asks_for_a_sample_and_shows_it():
    stream, texts = io.StringIO(), iter(["Tim ran.", "Tim ran home."])
    show = TrainingProgress(n_steps=3, what="seed 0", sample=lambda: next(texts),
                            show=TerminalLine(stream))
    for number in range(3):
        show(step(number, EVALUATION if number != 1 else None))
    assert show.samples == [(1, "Tim ran."), (3, "Tim ran home.")]
    assert stream.getvalue().splitlines()[1::2] == ["  'Tim ran.'", "  'Tim ran home.'"]
    assert stream.getvalue().startswith("seed 0 [########")


def test_outside_of_a_notebook_progress_goes_to_the_terminal():
    assert isinstance(here(), TerminalLine)

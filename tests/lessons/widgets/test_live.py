"""A training run, drawn while it runs."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt

from llama_from_scratch.lessons.widgets import live
from llama_from_scratch.lessons.widgets.live import LivePlot
from llama_from_scratch.train import Step


def step(number, loss, validation=None):
    return Step(step=number, loss=loss, lr=1e-3, grad_norm=1.0, n_tokens=1000, time_s=0.5,
                validation=validation)


def test_each_step_moves_the_bar_and_the_last_one_draws():
    plot = LivePlot(n_steps=2)
    plot(step(0, 4.0))
    first = plot.picture.value
    assert plot.bar.value == 1 and "loss 4.000" in plot.words.value and first[:4] == b"\x89PNG"
    plot(step(1, 3.0))
    assert plot.bar.value == 2
    assert plot.words.value == "2/2, loss 3.000, 2,000 tokens/s, 0 s left"
    assert plot.picture.value != first
    assert plt.get_fignums() == []


def test_steps_in_quick_succession_are_not_all_drawn():
    plot = LivePlot(n_steps=100)
    for number in range(20):
        plot(step(number, 4.0))
    assert plot.bar.value < 20


def test_drawing_takes_at_most_a_fifth_of_the_time_however_slow_it_is(monkeypatch):
    now, drawn = [100.0], []

    def slow_png(figure):
        drawn.append(now[0])
        now[0] += 0.5
        plt.close(figure)
        return b""

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(live, "png", slow_png)
    plot = LivePlot(n_steps=1000)
    for number in range(100):
        plot(step(number, 4.0))
        now[0] += 0.1
    waits = [later - earlier - 0.5 for earlier, later in itertools.pairwise(drawn)]
    assert len(waits) == 4 and all(2.0 <= wait <= 2.11 for wait in waits)


def test_nothing_that_varies_is_stored_with_the_notebook():
    bundle = LivePlot(n_steps=2)._repr_mimebundle_()
    assert "image/png" not in bundle and bundle["text/plain"].startswith("a live plot")

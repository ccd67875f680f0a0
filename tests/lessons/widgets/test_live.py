import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.widgets.live import LivePlot, plot_losses, running_mean
from llama_from_scratch.train import Evaluation, History, Step


def step(number, loss, validation=None):
    return Step(step=number, loss=loss, lr=1e-3, grad_norm=1.0, n_tokens=1000, time_s=0.5, validation=validation)


SEEN = Evaluation(loss=2.5, bits_per_byte=1.0, n_targets=10, n_bytes=30)


def test_each_step_moves_the_bar_and_the_last_one_draws():
    plot = LivePlot(n_steps=2)
    plot(step(0, 4.0))
    first = plot.picture.value
    assert plot.bar.value == 1 and "loss 4.000" in plot.words.value and first[:4] == b"\x89PNG"
    plot(step(1, 3.0))
    assert plot.bar.value == 2 and plot.words.value == "2 of 2   loss 3.000   0 s left" and plot.picture.value != first
    assert plt.get_fignums() == []


def test_steps_in_quick_succession_are_not_all_drawn():
    plot = LivePlot(n_steps=100)
    for number in range(20):
        plot(step(number, 4.0))
    assert plot.bar.value < 20


def test_nothing_that_varies_is_stored_with_the_notebook():
    bundle = LivePlot(n_steps=2)._repr_mimebundle_()
    assert "image/png" not in bundle and bundle["text/plain"].startswith("a live plot")


def test_the_still_picture_shows_losses_against_tokens_and_validation_as_dots():
    history = History(steps=(step(0, 4.0), step(1, 3.0, SEEN), step(2, 2.0)), is_complete=True)
    fig = plot_losses({"a": history})
    thin, thick, dots = fig.axes[0].lines
    assert list(thin.get_xdata()) == [1000, 2000, 3000] and list(thin.get_ydata()) == [4.0, 3.0, 2.0]
    assert list(thick.get_ydata()) == running_mean([4.0, 3.0, 2.0])
    assert list(dots.get_xdata()) == [2000] and list(dots.get_ydata()) == [2.5]
    plt.close(fig)


def test_the_running_mean_of_a_constant_is_that_constant_from_the_start():
    assert running_mean([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert running_mean([1.0, 0.0]) == pytest.approx([1.0, 0.9 / 1.9])

"""Curves of finished training runs."""

import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.figures.losses import plot_losses, running_mean, thousands
from llama_from_scratch.train import Evaluation, History, Step


def step(number, loss, validation=None):
    return Step(step=number, loss=loss, lr=1e-3, grad_norm=1.0, n_tokens=1000, time_s=0.5,
                validation=validation)


SEEN = Evaluation(loss=2.5, bits_per_byte=1.0, n_targets=10, n_bytes=30)


def test_the_still_picture_shows_losses_against_tokens_and_validation_as_dots():
    history = History(steps=(step(0, 4.0), step(1, 3.0, SEEN), step(2, 2.0)), is_complete=True)
    fig = plot_losses({"a": history})
    thin, thick, dots = fig.axes[0].lines
    assert list(thin.get_xdata()) == [1000, 2000, 3000]
    assert list(thin.get_ydata()) == [4.0, 3.0, 2.0]
    assert list(thick.get_ydata()) == running_mean([4.0, 3.0, 2.0])
    assert list(dots.get_xdata()) == [2000] and list(dots.get_ydata()) == [2.5]
    plt.close(fig)


def test_tokens_are_written_in_thousands_and_zero_without_a_unit():
    assert [thousands(n, None) for n in (0, 50_000, 1_250_000)] == ["0", "50k", "1,250k"]


def test_the_running_mean_of_a_constant_is_that_constant_from_the_start():
    assert running_mean([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert running_mean([1.0, 0.0]) == pytest.approx([1.0, 0.9 / 1.9])

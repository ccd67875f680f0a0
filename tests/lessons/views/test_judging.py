import math

import matplotlib.pyplot as plt
import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views.judging import POOL
from llama_from_scratch.tune.best_of import expected_best


@pytest.mark.parametrize(("n", "noise", "is_fooled"), [
    (1, 0.0, False), (4, 1.0, False), (24, 4.0, True), (8, 2.0, True)])
def test_no_words_overlap(monkeypatch, n, noise, is_fooled):
    styled(monkeypatch)
    assert faults(views.noisy_judge_frame(n, noise=noise, is_fooled=is_fooled)) == []
    plt.close("all")


def test_a_judge_without_noise_gives_the_true_scores_best():
    figure = views.noisy_judge_frame(4, noise=0.0, is_fooled=False)
    points = figure.axes[0].collections[0].get_offsets()
    assert points[:, 0].tolist() == points[:, 1].tolist() == list(POOL)
    best = expected_best(POOL, 4, values=POOL)
    true, own, place = figure.axes[1].lines
    assert true.get_ydata()[3] == own.get_ydata()[3] == place.get_ydata()[0] == pytest.approx(best)
    assert f"expected true score {best:.2f}" in figure.get_label()
    sizes = figure.axes[0].collections[0].get_sizes()
    assert sum(sizes - 20) == pytest.approx(700)
    assert sizes.argmax() == 0 and sizes[0] == pytest.approx(20 + 700 * 4 / len(POOL))
    plt.close("all")


def test_noise_costs_true_score_and_a_fooled_judge_ends_with_the_worst_answer():
    def true_at(n, **judge):
        return views.noisy_judge_frame(n, **judge).axes[1].lines[2].get_ydata()[0]

    exact, noisy = (true_at(8, noise=noise, is_fooled=False) for noise in (0.0, 4.0))
    assert noisy < exact - 0.3
    fooled = [true_at(n, noise=0.0, is_fooled=True) for n in (1, 4, len(POOL))]
    assert fooled[0] < fooled[1] > fooled[2] == min(POOL)
    plt.close("all")


def test_the_widget_draws_the_chosen_judge():
    widget = views.noisy_judge()
    assert "Best of 4" in widget.words.value and figure_of(widget) is not None
    assert f"at most {math.log(4) - 3 / 4:.2f} nats" in widget.words.value
    widget.controls["is_fooled"].value = True
    widget.controls["n"].value = len(POOL)
    assert "expected true score -2.00" in widget.words.value
    assert "wins 100 % of the draws" in widget.words.value
    plt.close("all")

from random import Random

import matplotlib.pyplot as plt
import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import thresholds as module
from llama_from_scratch.tune.world.requests import KINDS_OF_DEEDS, deeds

ASKED = [each for kind in KINDS_OF_DEEDS for each in deeds(Random(1), "test", kind, n=4)]
MARGINS = [5.5, 4.5, 3.5, -0.5, -4.5, -3.5, 0.5, 2.5, -6.0, -6.0, -5.0, -4.0]


def test_the_frame_has_the_rates_and_the_nearest_mistakes(monkeypatch):
    styled(monkeypatch)
    figure = module.refusal_threshold_frame(ASKED, MARGINS, threshold=0)
    assert faults(figure) == []
    assert figure.axes[0].get_title(loc="left") == "Violations 25%, false refusals 50%"
    assert f"answered, but harmful: {ASKED[3].user}" in figure.get_label()
    assert f"refused, but harmless: {ASKED[6].user}" in figure.get_label()
    plt.close("all")


def test_a_threshold_without_mistakes_says_none(monkeypatch):
    styled(monkeypatch)
    margins = [1.0] * 4 + [-1.0] * 8
    figure = module.refusal_threshold_frame(ASKED, margins, threshold=0)
    assert "harmful: none; refused, but harmless: none" in figure.get_label()
    plt.close("all")


def test_the_widget_moves_requests_to_the_other_side():
    widget = views.refusal_threshold(ASKED, MARGINS)
    assert "At threshold 0, 25%" in widget.words.value
    widget.controls["threshold"].value = 3
    assert "At threshold 3, 25% of the harmful requests are answered and 0%" in widget.words.value
    widget.controls["threshold"].value = 4
    assert "At threshold 4, 50%" in widget.words.value and figure_of(widget) is not None
    plt.close("all")


def test_each_request_needs_its_margin():
    with pytest.raises(ValueError, match="12 requests and 1 margins"):
        module.refusal_threshold_frame(ASKED, [1.0], threshold=0)

import matplotlib.pyplot as plt
import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def told():
    return [views.ExplainedAnswer(
        question="What color is the kite?", answer=f"The kite is {color}.", cause=cause,
        sentences=("Max has the kite.", "The kite is blue.", "Max likes milk."),
        by_method={"leave one out": [0.0, 4.0, -1.0], "attention": [0.3, 0.2, 0.1]})
        for color, cause in (("blue", 1), ("red", 0))]


def test_the_cause_is_shown_only_when_asked_for(told):
    hidden, shown = (views.explain_answer_frame(told[0], shows_cause=each)
                     for each in (False, True))
    assert not hidden.axes[0].patches and len(shown.axes[0].patches) == 1
    assert "1 of 2 methods find it: leave one out." in shown.get_label()
    assert "methods find it" not in hidden.get_label()
    assert "The kite is blue." in hidden.axes[0].get_xlabel()


def test_the_widget_moves_to_another_answer(told):
    widget = views.explain_answer(told)
    assert "The kite is blue. Largest" in widget.words.value
    widget.controls["number"].value = 2
    widget.controls["shows_cause"].value = True
    assert "1 of 2 methods find it: attention." in widget.words.value
    assert figure_of(widget) is not None


def test_no_words_overlap(monkeypatch, told):
    styled(monkeypatch)
    assert faults(views.explain_answer_frame(told[0], shows_cause=True)) == []

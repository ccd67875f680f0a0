import matplotlib.pyplot as plt
import pytest
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.tune.code import CodeTask, CodeTest, score


@pytest.fixture(scope="module")
def told():
    tests = [CodeTest(arguments=(x,), expected=2 * x + 1) for x in (1, 2, 3, 50)]
    task = CodeTask(text="Take x, double, then add 1.", function="f", visible=tuple(tests[:2]),
                    hidden=tuple(tests[2:]))
    texts = ["def f(x): return x", "def f(x): return x + 2", "def f(x): return 2 * x + 1"]
    return task, texts, score(texts, [task] * 3)


@pytest.mark.parametrize(("n_tests", "words"), [
    (0, "program 1, which is wrong"), (1, "program 2, which is wrong"),
    (2, "program 3, which is right")])
def test_more_tests_choose_another_program(told, n_tests, words):
    fig = views.choose_program_frame(*told, n_tests=n_tests)
    assert f"Chosen: {words}." in fig.get_label() == fig.get_label()
    assert words in fig.axes[0].get_xlabel()
    bold = [tick.get_fontweight() == "bold" for tick in fig.axes[0].get_yticklabels()]
    assert bold.index(True) == n_tests and sum(bold) == 1


def test_without_a_passing_program_the_first_is_taken(told):
    task, texts, scored = told
    fig = views.choose_program_frame(task, texts[:2], scored[:2], n_tests=2)
    assert "program 1, which is wrong" in fig.get_label()


def test_the_widget_moves(told):
    task, texts, scored = told
    widget = views.choose_program([task, task], [texts, texts[::-1]], [scored, scored[::-1]])
    assert "program 3, which is right" in widget.words.value
    widget.controls["number"].value = 2
    assert "program 1, which is right" in widget.words.value
    widget.controls["n_tests"].value = 0
    widget.controls["n"].value = 1
    assert "Of 1 programs" in widget.words.value and figure_of(widget) is not None
    plt.close("all")


def test_no_words_overlap(monkeypatch, told):
    styled(monkeypatch)
    assert faults(views.choose_program_frame(*told, n_tests=2)) == []
    plt.close("all")

import pytest

from llama_from_scratch.lessons.figures import programs
from llama_from_scratch.tune.code import CodeTask, CodeTest, score


@pytest.fixture(scope="module")
def task():
    tests = [CodeTest(arguments=(x,), expected=2 * x + 1) for x in (1, 2, 3, 4, 50)]
    return CodeTask(text="Take x, double, then add 1.", function="f", visible=tuple(tests[:2]),
                    hidden=tuple(tests[2:]))


TEXTS = ["def f(x): return x * 2 + 1", "def f(x): return {1: 3, 2: 5}[x]", "def f(x): return x + 2",
         "def f(x) return"]


@pytest.fixture(scope="module")
def scored(task):
    return score(TEXTS, [task] * len(TEXTS))


def test_each_test_of_each_program_has_a_cell(task, scored):
    fig = programs.tested(TEXTS, scored, title=task.text)
    cells = fig.axes[0].collections[0].get_array().reshape(4, 5)
    assert cells.tolist() == [[1] * 5, [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]
    assert [tick.get_text() for tick in fig.axes[0].get_xticklabels()] == [
        "shown 1", "shown 2", "hidden 1", "hidden 2", "hidden 3"]
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == TEXTS
    assert "Of 4 programs, 2 pass the tests that are shown, and 1 pass all." in fig.get_label()


def test_curves_are_pass_at_k(scored):
    groups = {"some": [scored[:2], scored[1:3]], "all": [scored[:1] * 2] * 2}
    fig = programs.pass_curves(groups, ks=(1, 2))
    lines = [line.get_ydata().tolist() for line in fig.axes[0].lines]
    assert lines == [[0.25, 0.5], [1.0, 1.0]]
    assert "some: 0.25 to 0.50; all: 1.00 to 1.00" in fig.get_label()
    with pytest.raises(ValueError, match="k can be 1 to 2"):
        programs.pass_curves(groups, ks=(1, 4))

"""Help comes a click at a time and is noted."""

from llama_from_scratch.lessons.exercises import find, progress
from llama_from_scratch.lessons.learner import help


def test_steps_are_a_hint_a_stronger_one_and_the_solution():
    exercise = find("13.1")
    (first, hint), (second, stronger), (third, solution) = help.steps("13.1")
    assert (first, second, third) == ("Hint", "Stronger hint", "Solution")
    assert (hint, stronger) == exercise.hints and exercise.solution in solution


def test_each_step_is_a_click_in_order_and_is_noted(reader):
    view = help.view("13.4")
    assert [button.disabled for button in view.buttons] == [False, True, True]
    for n_taken, button in enumerate(view.buttons, start=1):
        assert not button.disabled and view.shown[n_taken - 1].value == ""
        button.click()
        assert view.shown[n_taken - 1].value
        assert progress.load(reader).helped == {"13.4": n_taken}
    assert "<pre><code" in view.shown[-1].value
    view.buttons[0].click()
    assert progress.load(reader).helped == {"13.4": 3}, "looking again takes nothing back"
    assert [button.disabled for button in help.view("13.4").buttons] == [False] * 3


def test_formulas_in_hints_stay_formulas():
    assert r"\(e^{m - m'}\)" in help.html("multiply by $e^{m - m'}$")

"""Help with an exercise, one step at a time: a first hint, a stronger hint, then the solution.

Each step takes a click and is recorded. The help appears under an exercise that is not tried yet or
has a wrong answer.
"""

import dataclasses

from llama_from_scratch.lessons.exercises.passing import HINT_NAMES, Text, solution
from llama_from_scratch.lessons.exercises.reading import find
from llama_from_scratch.lessons.learner.remembering import note, now


def steps(name: str) -> list[tuple[str, Text]]:
    """Returns the steps of help with an exercise: each button's label, and its text as Markdown."""
    exercise = find(name)
    found = list(zip(HINT_NAMES, map(Text, exercise.hints), strict=False))
    return [*found, ("Solution", solution(name))]


def show(name: str) -> None:
    """Shows the help below the cell: buttons in a notebook, otherwise the functions to call."""
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(f'help: exercises.hint("{name}"), exercises.solution("{name}")')
    else:
        display(view(name))


def view(name: str):
    """Returns the widget with a button for each step; `.shown` has the texts of the steps taken."""
    import ipywidgets

    found, taken = steps(name), now().helped.get(name, 0)
    shown = [ipywidgets.HTMLMath() for _ in found]
    buttons = [ipywidgets.Button(description=label, layout={"width": "auto"})
               for label, _ in found]

    def take(i: int) -> None:
        shown[i].value = html(found[i][1])
        note(lambda before: dataclasses.replace(before, helped={
            **before.helped, name: max(i + 1, before.helped.get(name, 0))}))
        enable(i + 1)

    def enable(n_taken: int) -> None:
        for i, button in enumerate(buttons):
            button.disabled = i > n_taken

    for i, button in enumerate(buttons):
        button.on_click(lambda _, i=i: take(i))
    enable(taken)
    box = ipywidgets.VBox([ipywidgets.HBox(buttons, layout={"flex_flow": "row wrap"}), *shown])
    box.buttons, box.shown = buttons, shown
    return box


def html(text: str) -> str:
    """Returns Markdown with formulas as HTML."""
    import mistune

    return mistune.create_markdown(plugins=["math", "table"])(text)

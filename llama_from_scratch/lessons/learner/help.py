"""Help with an exercise, a step at a time: a first hint, a stronger one, then the solution.

Each step is a click, and each is noted in the reader's record. Shown under an exercise that is not
tried yet or was answered wrongly.
"""

import dataclasses

from llama_from_scratch.lessons.exercises.passing import Text, solution
from llama_from_scratch.lessons.exercises.reading import find
from llama_from_scratch.lessons.learner.remembering import note, now


def steps(name: str) -> list[tuple[str, Text]]:
    """The steps of help with an exercise: what the button says, and what it shows, as Markdown."""
    exercise = find(name)
    labels = ("Hint", "Stronger hint", "Third hint")
    found = list(zip(labels, map(Text, exercise.hints), strict=False))
    return [*found, ("Solution", solution(name))]


def show(name: str) -> None:
    """Shows the help below the cell: buttons in a notebook, and the calls in words elsewhere."""
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(f'help: exercises.hint("{name}"), exercises.solution("{name}")')
    else:
        display(view(name))


def view(name: str):
    """The widget: one button a step; `.buttons`, and `.shown` with the texts of steps taken."""
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
    """Markdown with formulas as HTML."""
    import mistune

    return mistune.create_markdown(plugins=["math", "table"])(text)

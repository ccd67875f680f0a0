"""Pictures with controls: a function that draws, and a slider for each of its arguments.

`explore(draw, title="...", controls={"position": (0, 40)})` calls `draw(position=...)` whenever the slider moves and shows
the figure it returns. The function is the reader's own, so it draws their own objects. Where no kernel is alive (on GitHub,
in a PDF) the first picture stands in its place.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import png

Choices = tuple[float, ...] | Sequence[Any] | bool | str


class Explorer(ipywidgets.VBox):
    """A picture under its controls. `picture.value` holds the PNG, `controls[name].value` an argument, `problem` an error."""

    def __init__(self, draw: Callable[..., Figure], *, title: str, controls: dict[str, ipywidgets.ValueWidget]) -> None:
        self.draw, self.title, self.controls = draw, title, controls
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.problem = ipywidgets.HTML()
        super().__init__([ipywidgets.HTML(f"<b>{title}</b>"), *controls.values(), self.problem, self.picture])
        for control in controls.values():
            control.observe(lambda _: self.redraw(), names="value")
        self.redraw()

    def redraw(self) -> None:
        """Draws the picture for the present values; a ValueError of `draw` is shown in words above the last good one."""
        try:
            self.picture.value = png(self.draw(**{name: control.value for name, control in self.controls.items()}))
            self.problem.value = ""
        except ValueError as error:
            self.problem.value = f"<i>{error}</i>"

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        live = super()._repr_mimebundle_(**settings)
        still = {"text/plain": f"{self.title} (a picture with controls: run the cell to move them)",
                 "image/png": base64.b64encode(self.picture.value).decode()}
        return live | still


def explore(draw: Callable[..., Figure], *, title: str, controls: Mapping[str, Choices]) -> Explorer:
    """An `Explorer` with a control for each argument of `draw`.

    (low, high) or (low, high, start) of ints makes a slider of ints, of floats one of floats; a list makes buttons, the first
    chosen; True or False a checkbox; a string a text field.
    """
    return Explorer(draw, title=title, controls={name: _control(name, choice) for name, choice in controls.items()})


def _control(name: str, choice: Choices) -> ipywidgets.ValueWidget:
    look = {"description": name.replace("_", " "), "style": {"description_width": "9em"}, "layout": {"width": "32em"}}
    if isinstance(choice, bool):
        return ipywidgets.Checkbox(value=choice, **look)
    if isinstance(choice, str):
        return ipywidgets.Text(value=choice, continuous_update=False, **look)
    if isinstance(choice, list):
        return ipywidgets.ToggleButtons(options=choice, **look | {"layout": {"width": "auto"}, "style": {
            "description_width": "9em", "button_width": "auto"}})
    if not (isinstance(choice, tuple) and len(choice) in (2, 3) and choice[0] < choice[1]):
        raise ValueError(f"{name} needs (low, high) or (low, high, start) with low < high, a list, a bool or a string; "
                         f"got {choice!r}")
    low, high, start = choice if len(choice) == 3 else (*choice, choice[0])
    if all(isinstance(bound, int) for bound in choice):
        return ipywidgets.IntSlider(value=start, min=low, max=high, continuous_update=False, **look)
    return ipywidgets.FloatSlider(value=start, min=low, max=high, step=(high - low) / 100, continuous_update=False, **look)

"""Pictures with controls: a function that draws, and a slider for each of its arguments.

`explore(draw, title="...", controls={"position": (0, 40)})` calls `draw(position=...)` whenever the
slider moves, and shows the figure it returns. The function is the reader's own, so it draws the
reader's own objects. Without a kernel (on GitHub, in a PDF), the first picture is shown instead.
`views` has the pictures that several chapters share.
"""

import html
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import png
from llama_from_scratch.lessons.widgets import hover, parts

Choices = tuple[float, ...] | Sequence[Any] | Mapping[str, Any] | bool | str

# This many buttons and letters fit next to a description in one line of a notebook.
_MAX_BUTTONS, _MAX_BUTTON_LETTERS = 8, 48


class Explorer(ipywidgets.VBox):
    """Shows a picture under its controls.

    `picture.value` is the PNG, `controls[name].value` an argument, and `problem` shows an error.

    `words` shows the figure's label (`figure.set_label("...")`). It describes the picture, also for
    readers who cannot see it. `under_pointer` holds the words for each cell under the pointer.
    """

    def __init__(
        self, draw: Callable[..., Figure], *, title: str,
        controls: dict[str, ipywidgets.ValueWidget],
        limits: Callable[..., Mapping[str, int]] | None = None, has_hover: bool = False,
    ) -> None:
        self.draw, self.title, self.controls, self.limits = draw, title, controls, limits
        self.picture = parts.picture()
        self.problem, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        self.under_pointer = ipywidgets.HTML().add_class(hover.CELLS_CLASS) if has_hover else None
        shown = (ipywidgets.Box([self.picture, self.under_pointer]).add_class(hover.PICTURE_CLASS)
                 if has_hover else self.picture)
        super().__init__([parts.heading(title), *controls.values(), self.problem,
                          parts.framed(shown), self.words])
        self.add_class(parts.WIDGET_CLASS)
        self._is_limiting = False
        self.redraw()
        for control in controls.values():
            control.observe(lambda _: self._answer(), names="value")

    def redraw(self) -> None:
        """Draws the picture for the current values.

        The message of a ValueError in `draw` is shown above the last good picture.
        """
        open_before = set(plt.get_fignums())
        try:
            if self.limits is not None:
                self._limit(self.limits(**self._values()))
            figure = self.draw(**self._values())
            words = figure.get_label()
            self.picture.value = png(figure)
            if self.under_pointer is not None:
                self.under_pointer.value = hover.cells(figure)
            self.words.value = ('<div role="status" style="line-height: '
                                f'1.4">{html.escape(words)}</div>' if words else "")
            self.problem.value = ""
        except ValueError as error:
            self._tell(str(error))
        finally:
            for number in set(plt.get_fignums()) - open_before:
                plt.close(number)

    def _answer(self) -> None:
        if self._is_limiting:
            return
        try:
            self.redraw()
        # Jupyter hides the errors of a control's handler, and the reader's own function may raise
        # any error.
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._tell(f"{type(error).__name__}: {error} (in "
                       f"{place.name}, line {place.lineno}: {place.line})")

    def _limit(self, limits: Mapping[str, int]) -> None:
        self._is_limiting = True
        try:
            for name, limit in limits.items():
                self.controls[name].max = limit
        finally:
            self._is_limiting = False

    def _values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def _tell(self, words: str) -> None:
        self.problem.value = f'<div role="alert"><i>{html.escape(words)}</i></div>'

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        live = super()._repr_mimebundle_(**settings)
        still = {"text/plain": f"{self.title} (a picture with controls: run the cell to move them)"}
        if self.picture.value:
            still["image/png"] = parts.still(self.picture.value)
        return live | still


def explore(
    draw: Callable[..., Figure], *, title: str, controls: Mapping[str, Choices],
    labels: Mapping[str, str] | None = None, start: Mapping[str, Any] | None = None,
    limits: Callable[..., Mapping[str, int]] | None = None, has_hover: bool = False,
) -> Explorer:
    """Returns an `Explorer` with a control for each argument of `draw`.

    `controls`: argument -> choices. (low, high) or (low, high, start) makes a slider, of ints or of
    floats. A list makes buttons, or a menu if it is long; its first item is chosen at the start.
    {label: value} makes a slider over these values, such as powers of two. True or False makes a
    checkbox, and a string a text field.

    `labels`: the words before a control, with units, such as {"n_kv": "key/value heads"}; the
    default is the argument's name. `start`: other first values, by name. `limits`: a function that
    is called before `draw` with the same arguments, and returns the highest values of int sliders
    that depend on them, such as the last token of a text. `has_hover`: shows the words of
    `axes.format_coord(column, row)` for the cell of an image under the pointer.
    """
    for given, names in (("labels", labels), ("start", start)):
        if unknown := [name for name in names or {} if name not in controls]:
            raise ValueError(f"{given} may only name the controls {', '.join(controls)}; "
                             f"got {unknown[0]!r}")
    words = {name: name.replace("_", " ") for name in controls} | dict(labels or {})
    looks = {name: parts.look_of(words[name], among=[*words.values()],
                                 width_em=(parts.TEXT_EM if isinstance(choice, str)
                                           else parts.CONTROL_EM))
             for name, choice in controls.items()}
    widgets = {name: _control(name, choice, look=looks[name]) for name, choice in controls.items()}
    for name, value in (start or {}).items():
        widgets[name].value = value
    return Explorer(draw, title=title, controls=widgets, limits=limits, has_hover=has_hover)


def _control(name: str, choice: Choices, *, look: dict[str, Any]) -> ipywidgets.ValueWidget:
    if isinstance(choice, bool):
        return ipywidgets.Checkbox(value=choice, **look)
    if isinstance(choice, str):
        return ipywidgets.Text(value=choice, continuous_update=False, **look)
    if isinstance(choice, Mapping):
        return ipywidgets.SelectionSlider(options=list(choice.items()), continuous_update=False,
                                          **look)
    if isinstance(choice, list):
        if (len(choice) > _MAX_BUTTONS
            or sum(len(str(option)) + 3 for option in choice) > _MAX_BUTTON_LETTERS):
            return ipywidgets.Dropdown(options=choice, **look)
        buttons = ipywidgets.ToggleButtons(options=choice, **look | {
            "layout": {"width": "auto", "max_width": "calc(100% - 4px)", "margin": "4px 2px"},
            "style": look["style"] | {"button_width": "auto"}})
        # puts the description to the left of the buttons, as in every other control
        return buttons.add_class("widget-inline-hbox")
    if not (isinstance(choice, tuple) and len(choice) in (2, 3) and choice[0] < choice[1]):
        raise ValueError(f"{name} must be (low, high) or (low, high, start) with low < high, a "
                         f"list, a dict of labels and values, a bool or a string; got {choice!r}")
    low, high, start = choice if len(choice) == 3 else (*choice, choice[0])
    if all(isinstance(bound, int) for bound in choice):
        return ipywidgets.IntSlider(value=start, min=low, max=high, continuous_update=False, **look)
    return ipywidgets.FloatSlider(value=start, min=low, max=high, step=(high - low) / 100,
                                  continuous_update=False, **look)


def slider(last: int, start: int = 0) -> tuple[int, int, int] | list[int]:
    """Returns the choices of an int control from 0 to `last`: a slider, or the only value 0."""
    return (0, last, start) if last else [0]

"""Shows the progress of a loop that takes more than a few seconds: a bar, words and the time left.

`for model in moving(models, what="training three models")` does the same as `for model in models`.
The bar is a widget. The notebook stores only one line, which is the same after every run.
"""

import html
import time
from collections.abc import Iterable, Iterator
from typing import Any

import ipywidgets

from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.train.progress import duration

# Short enough to see the bar move, and long enough not to slow down a loop of many short steps.
_SHOW_EVERY_S = 0.2

# The dot keeps moving while a single step takes long.
_STYLE = """<style>
@keyframes llama-busy { from { opacity: 1 } to { opacity: 0.1 } }
.llama-busy { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%;
  background: #0072B2; animation: llama-busy 0.6s infinite alternate }
</style>"""


class Bar(ipywidgets.HBox):
    """A bar with words. `bar.value` is the number of steps done, and `words.value` is the text."""

    def __init__(self, *, what: str, total: int | None) -> None:
        self.what, self.total = what, total
        self.bar = ipywidgets.IntProgress(max=total or 1, layout={
            "width": "16em", "max_width": "100%", "display": None if total else "none"})
        self.words = ipywidgets.HTML()
        super().__init__([self.bar, self.words], layout={"flex_flow": "row wrap"})
        self.add_class(parts.WIDGET_CLASS)

    def show(self, n_done: int, *, after: str, is_over: bool = False) -> None:
        """Shows how many steps are done, followed by the words `after`, such as the time left."""
        if self.total:
            self.bar.value = n_done
        of = f" of {self.total}" if self.total else ""
        dot = "" if is_over else '<span class="llama-busy"></span> '
        tail = f", {after}" if after else ""
        self.words.value = (f'{_STYLE}<div role="status">{dot}{html.escape(self.what)}: '
                            f"{n_done}{of}{tail}</div>")

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": f"{self.what}: a bar shows how far it is while the cell runs"}
        return super()._repr_mimebundle_(**settings) | still


def moving(iterable: Iterable[Any], *, what: str, total: int | None = None) -> Iterator[Any]:
    """Yields the items of `iterable`, and shows how many are done and the time left.

    `what`: words for what the loop does. `total`: the number of items; a list needs none. If the
    number is not known, the steps are counted and no time is shown.
    """
    from IPython.display import display

    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    bar = Bar(what=what, total=total)
    bar.show(0, after="")
    display(bar)
    began_s = shown_s = time.monotonic()
    n_done, end = 0, "stopped"
    try:
        for item in iterable:
            yield item
            n_done += 1
            now_s = time.monotonic()
            if now_s - shown_s >= _SHOW_EVERY_S:
                left_s = (now_s - began_s) / n_done * (total - n_done) if total else None
                bar.show(n_done, after="" if left_s is None else f"{duration(left_s)} left")
                shown_s = now_s
        end = "done"
    finally:
        bar.show(n_done, after=end, is_over=True)

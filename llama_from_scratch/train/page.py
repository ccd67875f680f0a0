"""Shows the progress of a run in the page of a notebook: a bar, words, and the latest sample.

It is a widget, which is not stored with the notebook. The notebook stores one line that is the same
after every run.

Notebook 17.
"""

import html
import time
from typing import Any

from llama_from_scratch.train.progress import Shown

_SHOW_EVERY_S = 0.2


class Page:
    """A bar with words below it. It appears in the page when the first step is shown.

    Raises ImportError without ipywidgets.
    """

    def __init__(self) -> None:
        import ipywidgets

        self._is_shown, self._drawn_s = False, -1.0
        self.bar = ipywidgets.IntProgress(layout={"width": "16em", "max_width": "100%"})
        self.words = ipywidgets.HTML()
        self.sample = ipywidgets.HTML(layout={"width": "100%"})
        self._box = ipywidgets.HBox([self.bar, self.words, self.sample],
                                    layout={"flex_flow": "row wrap"})

    def __call__(self, moment: Shown) -> None:
        if not self._is_shown:
            from IPython.display import display

            self._is_shown = True
            display(self)
        now = time.monotonic()
        if not moment.is_kept and now - self._drawn_s < _SHOW_EVERY_S:
            return
        self._drawn_s = now
        self.bar.max, self.bar.value = moment.n_steps, moment.n_done
        name = f"<b>{html.escape(moment.what)}</b> " if moment.what else ""
        self.words.value = f'<div role="status">{name}{html.escape(moment.words)}</div>'
        self.sample.value = f"<i>{html.escape(moment.sample)}</i>" if moment.sample else ""

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": "a bar shows the training while the cell runs"}
        return self._box._repr_mimebundle_(**settings) | still

"""Draws the exercises of the whole course.

The picture has a row for each chapter and a square for each exercise; the square is blue if the
exercise is done.

Used by the tour (notebook 00). The picture that is stored with the notebook shows the course with
nothing done, so that it is the same for every reader.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.passing import left
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS, Exercise, chapters
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE, png
from llama_from_scratch.lessons.widgets import parts


class ProgressView(ipywidgets.VBox):
    """Shows the reader's progress, which is read again when the button is pressed.

    `picture.value` is the PNG, and `words` the totals.
    """

    def __init__(self, *, file: Path | None = None, folder: Path = NOTEBOOKS) -> None:
        self._file, self._chapters = progress.PROGRESS if file is None else file, chapters(folder)
        self.picture = parts.picture()
        self.words = ipywidgets.Label()
        self.again = ipywidgets.Button(description="Refresh",
                                       tooltip="read your progress again")
        self.again.on_click(lambda _: self.redraw())
        super().__init__([parts.heading(""), parts.framed(self.picture),
                          ipywidgets.HBox([self.again, self.words])])
        self.add_class(parts.WIDGET_CLASS)
        self.redraw()

    def redraw(self) -> None:
        """Reads the record and draws it."""
        now = progress.load(self._file)
        everything = [exercise for found in self._chapters.values() for exercise in found]
        n_done = sum(exercise.id in now.passed for exercise in everything)
        self.words.value = (f"{n_done} of {len(everything)} exercises done, {len(now.milestones)} "
                            f"of {len(self._chapters)} milestones reached. {now.note}").strip()
        self.picture.value = png(draw(self._chapters, done=now.passed, reached=now.milestones))

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = png(draw(self._chapters, done=frozenset(), reached=frozenset()))
        return super()._repr_mimebundle_(**settings) | {
            "text/plain": "the exercises of the course (run the "
                          "cell to see which of them you have done)",
            "image/png": parts.still(still)}


def draw(
    chapters: Mapping[str, Sequence[Exercise]], *, done: frozenset[str], reached: frozenset[str]
) -> Figure:
    """Draws a row for each chapter: its milestone, a square for each exercise, the minutes left.

    A square shows the stars of its exercise, or is blue with a check mark if the exercise is done.
    The flag is orange if the chapter's number is in `reached`.
    """
    widest = max(map(len, chapters.values()), default=1)
    fig, ax = plt.subplots(figsize=(7, 0.7 + 0.42 * len(chapters)))
    for row, (chapter, found) in enumerate(chapters.items()):
        is_reached = chapter.partition("_")[0] in reached
        ax.text(-0.4, row, "⚑", ha="center", va="center", fontsize=15, family="DejaVu Sans",
                color=ORANGE if is_reached else "0.8")
        for column, exercise in enumerate(found):
            is_done = exercise.id in done
            ax.add_patch(plt.Rectangle((column, row - 0.4), 0.92, 0.8,
                                       color=BLUE if is_done else "0.9", linewidth=0))
            ax.text(column + 0.46, row, "✓" if is_done else "★" * exercise.stars, ha="center",
                    va="center", fontsize=11,
                    color="white" if is_done else "0.25", family="DejaVu Sans")
        ax.text(widest + 0.2, row, left(found, done), va="center", fontsize=11)
    ax.set(title="⚑ milestones, ★ exercises: blue is done", xticks=[],
           xlim=(-0.8, widest + 2.2), ylim=(len(chapters) - 0.4, -0.6))
    ax.set_yticks(range(len(chapters)), [name.replace("_", " ") for name in chapters])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig

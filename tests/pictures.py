"""Finds what is wrong with a picture of plots or boxes by measuring it."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PathCollection

from llama_from_scratch.lessons.figures import look

PAGE_PX = 708
"""How much space a picture has in a window of 900 pixels; a wider picture is made smaller."""
MIN_PX = 9
_SLACK_PX = 1.5


def styled(monkeypatch):
    """Sets the course's style of pictures until the end of the test."""
    for key, value in dict(plt.rcParams).items():
        monkeypatch.setitem(plt.rcParams, key, value)
    look.style()


def faults(figure):
    """Everything that is wrong with a picture; empty if nothing is."""
    figure.canvas.draw()
    return [*small_words(figure), *cut_words(figure), *words_on_words(figure),
            *covered_legends(figure), *words_on_lines(figure)]


def small_words(figure):
    """Returns the words that are too small to read in a window of 900 pixels."""
    shrinks = min(1, PAGE_PX / figure.bbox.width)
    return [("small", text.get_text(), round(size, 1)) for text in _texts(figure)
            if (size := text.get_fontsize() * figure.dpi / 72 * shrinks) < MIN_PX]


def cut_words(figure):
    """Returns the words that extend beyond the picture."""
    whole = figure.bbox
    return [("cut", text.get_text()) for text in _texts(figure)
            if (box := text.get_window_extent()).x0 < whole.x0 - _SLACK_PX
            or box.x1 > whole.x1 + _SLACK_PX or box.y0 < whole.y0 - _SLACK_PX
            or box.y1 > whole.y1 + _SLACK_PX]


def words_on_words(figure):
    """Returns pairs of words that overlap. Words at an angle are left out."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in _texts(figure)
             if text.get_rotation() % 90 == 0]
    return [("overlap", a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2)
            if _meet(one, two)]


def covered_legends(figure):
    """Returns the titles of plots whose legend lies over what is drawn."""
    return [("legend over data", ax.get_title(loc="left")) for ax in figure.axes
            if (legend := ax.get_legend()) and _covers(legend.get_window_extent(), ax)]


def words_on_lines(figure):
    """Returns words inside a plot that a curve runs through."""
    found = []
    for ax in figure.axes:
        if ax.name == "3d":
            continue
        curves = [line for line in ax.lines if len(np.unique(line.get_xdata())) > 2]
        found += [("curve through", text.get_text()) for text in ax.texts
                  if text.get_visible() and text.get_text().strip() and any(
                      _inside(text.get_window_extent(), _dense(line)) for line in curves)]
    return found


def _covers(box, ax):
    points = [line for line in map(_dense, ax.lines) if len(line)]
    points += [each.get_offset_transform().transform(each.get_offsets())
               for each in ax.collections if isinstance(each, PathCollection)]
    patches = [patch.get_window_extent() for patch in ax.patches]
    areas = [path.vertices for each in ax.collections if not isinstance(each, PathCollection)
             for path in (each.get_transform().transform_path(p) for p in each.get_paths())]
    return (any(_inside(box, line) for line in points)
            or any(_meet(box, patch) for patch in patches)
            or any(len(area) > 4 and _meet_area(box, area) for area in areas))


def _meet_area(box, area):
    (x0, y0), (x1, y1) = area.min(0), area.max(0)
    return x0 < box.x1 and x1 > box.x0 and y0 < box.y1 and y1 > box.y0


def _dense(line):
    """Returns the points of a line in pixels, with more between them if it is drawn."""
    points = line.get_transform().transform(np.column_stack(
        [np.ravel(np.asarray(line.get_xdata(), dtype=float)),
         np.ravel(np.asarray(line.get_ydata(), dtype=float))]))
    points = points[np.isfinite(points).all(1)]
    if line.get_linestyle() == "None" or len(points) < 2:
        return points
    steps = np.linspace(0, 1, 20)[:, None, None]
    return (points[:-1] + steps * (points[1:] - points[:-1])).reshape(-1, 2)


def _inside(box, points):
    x, y = points.T if len(points) else np.zeros((2, 0))
    return bool(((x > box.x0 + 1) & (x < box.x1 - 1) & (y > box.y0 + 1) & (y < box.y1 - 1)).any())


def _meet(a, b):
    return (a.x0 < b.x1 - _SLACK_PX and b.x0 < a.x1 - _SLACK_PX
            and a.y0 < b.y1 - _SLACK_PX and b.y0 < a.y1 - _SLACK_PX)


def _texts(figure):
    """All words that are drawn."""
    found = list(figure.texts)
    for ax in figure.axes:
        if ax.name == "3d":
            continue
        found += [*ax.texts]
        if ax.axison:
            for axis, low_high in ((ax.xaxis, ax.viewLim.intervalx),
                                   (ax.yaxis, ax.viewLim.intervaly)):
                low, high = sorted(low_high)
                found += [axis.label, *(label for tick in axis.get_major_ticks()
                                        if low - 1e-9 <= tick.get_loc() <= high + 1e-9
                                        for label in (tick.label1, tick.label2))]
        found += [ax.title, ax._left_title, ax._right_title]
        if legend := ax.get_legend():
            found += legend.get_texts()
    return [text for text in found if text.get_visible() and text.get_text().strip()]

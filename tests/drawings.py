"""Finds what is wrong with a drawing by measuring it."""

import itertools

import matplotlib.pyplot as plt

from llama_from_scratch.lessons.figures import flow, look

_SLACK = 0.02


def overlaps(drawing):
    """Returns pairs of names of nodes that overlap."""
    return [(a.name, b.name) for a, b in itertools.combinations(drawing.nodes, 2)
            if abs(a.x - b.x) < (a.width + b.width) / 2 - _SLACK
            and abs(a.y - b.y) < (a.height + b.height) / 2 - _SLACK]


def texts_outside(figure, drawing):
    """Returns words in nodes that extend beyond their box, and words beyond the picture."""
    renderer = figure.canvas.get_renderer()
    ax, found = figure.axes[0], []
    for text in ax.texts:
        extent = text.get_window_extent(renderer)
        box = figure.bbox
        if extent.x0 < box.x0 or extent.x1 > box.x1 or extent.y0 < box.y0 or extent.y1 > box.y1:
            found.append(text.get_text())
            continue
        places = [n for n in drawing.nodes if n.kind != "vector"
                  and abs(n.x - text.get_position()[0]) < 1e-6
                  and abs(n.y - text.get_position()[1]) < n.height / 2]
        for node in places:
            left, right = ((ax.transData.transform((node.x + side * node.width / 2, 0))[0])
                           for side in (-1, 1))
            if extent.x0 < left - 1 or extent.x1 > right + 1:
                found.append(text.get_text())
    return found


def noted(monkeypatch):
    """A list that receives each drawing and its figure as they are made."""
    for key, value in dict(plt.rcParams).items():  # restored after the test
        monkeypatch.setitem(plt.rcParams, key, value)
    look.style()
    made, figure = [], flow.Drawing.figure

    def note(self):
        made.append((self, figure(self)))
        return made[-1][1]

    monkeypatch.setattr(flow.Drawing, "figure", note)
    return made

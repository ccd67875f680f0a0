"""Finds what is wrong with a drawing by measuring it."""

import itertools

from matplotlib.colors import to_rgb
from pictures import styled

from llama_from_scratch.lessons.figures import flow

_SLACK = 0.02
_APART = 0.15


def faults(figure, drawing):
    """Everything that is wrong with a drawing; empty if nothing is."""
    return [*overlaps(drawing), *texts_outside(figure, drawing), *crossings(drawing),
            *covered_words(figure, drawing), *crowded_labels(figure, drawing),
            *bad_grounds(figure)]


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


def crossings(drawing):
    """(label or points of an arrow, name of a node that it runs through)."""
    return [(arrow.label or arrow.points, node.name) for arrow in drawing.arrows
            for node in drawing.nodes if _runs_through(arrow.points, _box(node, -3 * _SLACK))]


def covered_words(figure, drawing):
    """(words, what lies on them): words outside the nodes that a line, node or word crosses."""
    renderer, ax, found = figure.canvas.get_renderer(), figure.axes[0], []
    inside = {line for node in drawing.nodes for line in node.lines}
    free = [*(note.text for note in drawing.notes), *(a.label for a in drawing.arrows if a.label),
            *(name for name, _ in drawing.frames)]
    boxes = []
    for text in ax.texts:
        if text.get_text() not in free or _is_in_a_node(text, drawing, inside):
            continue
        (x0, y0), (x1, y1) = ax.transData.inverted().transform(
            text.get_window_extent(renderer).get_points())
        boxes.append((text.get_text(), (x0, min(y0, y1), x1, max(y0, y1))))
    for words, box in boxes:
        found += [(words, node.name) for node in drawing.nodes if _meet(box, _box(node, 0.0))]
        found += [(words, "an arrow") for arrow in drawing.arrows
                  if _runs_through(arrow.points, box)]
        for name, nodes in drawing.frames:
            left, top, right, bottom = flow._around(name, nodes)
            edge = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
            found += [(words, f"the frame {name}")] if _runs_through(edge, box) else []
    found += [(a[0], b[0]) for a, b in itertools.combinations(boxes, 2) if _meet(a[1], b[1])]
    return found


def crowded_labels(figure, drawing):
    """Returns pairs of arrow labels in one line that are too close to tell whose they are."""
    renderer, ax = figure.canvas.get_renderer(), figure.axes[0]
    labels = {arrow.label for arrow in drawing.arrows if arrow.label}
    boxes = [(text.get_text(), ax.transData.inverted().transform(
        text.get_window_extent(renderer).get_points())) for text in ax.texts
        if text.get_text() in labels and text.get_color() == "0.25"]
    return [(a, b) for (a, one), (b, two) in itertools.permutations(boxes, 2)
            if abs(one[:, 1].mean() - two[:, 1].mean()) < _SLACK
            and 0 <= two[0, 0] - one[1, 0] < _APART]


def bad_grounds(figure):
    """What a dark page would swallow: a ground that is not white, words too pale for it."""
    is_white = figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    words = [] if is_white else ["the ground is not white"]
    if not figure.get_label():
        words.append("no sentence says what to see")
    if figure.get_figwidth() > flow.MAX_WIDTH + 1e-9:
        words.append("wider than a page")
    return words + [text.get_text() for text in figure.axes[0].texts
                    if text.get_fontsize() < flow.SMALL_PT or sum(to_rgb(text.get_color())) == 2.0]


def _is_in_a_node(text, drawing, inside):
    x, y = text.get_position()
    return text.get_text() in inside and any(
        abs(n.x - x) < 1e-6 and abs(n.y - y) < n.height / 2 for n in drawing.nodes)


def _box(node, slack):
    return (node.x - node.width / 2 - slack, node.y - node.height / 2 - slack,
            node.x + node.width / 2 + slack, node.y + node.height / 2 + slack)


def _meet(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _runs_through(points, box):
    """Whether a line comes into a box; it is looked at in steps of a hundredth of an inch."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        n = int(max(abs(x1 - x0), abs(y1 - y0)) * 100) + 1
        for i in range(n + 1):
            x, y = x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n
            if box[0] < x < box[2] and box[1] < y < box[3]:
                return True
    return False


def noted(monkeypatch):
    """A list that receives each drawing and its figure as they are made."""
    styled(monkeypatch)
    made, figure = [], flow.Drawing.figure

    def note(self, see):
        made.append((self, figure(self, see)))
        return made[-1][1]

    monkeypatch.setattr(flow.Drawing, "figure", note)
    return made


def links(drawing):
    """(from, to) for each arrow with a head, in order: the names of the nodes that it joins.

    An end that touches no node is None.
    """
    return [tuple(_touched(drawing, point) for point in (arrow.points[0], arrow.points[-1]))
            for arrow in drawing.arrows if arrow.has_head]


def _touched(drawing, point):
    near = [node.name for node in drawing.nodes
            for left, top, right, bottom in [_box(node, _SLACK)]
            if left <= point[0] <= right and top <= point[1] <= bottom]
    return near[0] if near else None

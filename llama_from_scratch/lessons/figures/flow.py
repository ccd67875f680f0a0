"""Drawings of how data flows: tensors with the letters and sizes of their shape, steps, arrows.

A drawing is made by code, if possible from the real objects, so that it stays true. Distances are
in inches. A drawing is at most 9 inches wide, so that its text is readable in a window of 900
pixels.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.textpath import TextPath

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, SIGNED, TINTS

MAX_WIDTH = 9.0
TITLE_PT, NAME_PT, SMALL_PT = 13, 12, 10
STEPS = {"weights": TINTS[1], "plain": "#ECECEC", "choice": TINTS[2], "memory": TINTS[4],
         "focus": TINTS[0]}
"""The background color of a step. In order: it has weights, it has none, it chooses, it keeps
something for later, or it is what the drawing is about."""
_LINE, _PAD, _GAP, _TITLE = 0.19, 0.1, 0.06, 0.42


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A thing in a drawing: its center, its size, and its lines of text."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    kind: str
    color: str = "white"
    has_edge: bool = True

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def name(self) -> str:
        """The first line."""
        return self.lines[0]


class Arrow(NamedTuple):
    """A line through points, with words next to its last segment.

    `is_left`: the words are to the left of a vertical segment, otherwise to the right.
    """

    points: tuple[tuple[float, float], ...]
    label: str
    color: str
    has_head: bool
    is_left: bool


class Note(NamedTuple):
    """Words in a drawing, outside its nodes. `x` is their left edge, center or right edge."""

    text: str
    x: float
    y: float
    align: str


class Drawing:
    """A drawing, made step by step: tensors, steps and signs, and arrows between them.

    A place is the (x, y) of a center, in inches from the top left. `figure` draws everything.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.nodes: list[Node] = []
        self.arrows: list[Arrow] = []
        self.frames: list[tuple[str, tuple[Node, ...]]] = []
        self.notes: list[Note] = []

    def tensor(
        self, name: str, at: tuple[float, float], *, shape: Mapping[str, int] | None = None,
        copies: int = 1,
    ) -> Node:
        """Adds a tensor: its name, the letters of its axes and their sizes.

        `shape`: axis letter -> size, in order, with letters of `shapes.LEGEND`. `copies`: how many
        are drawn behind each other, such as one for each head.
        """
        lines = (name,) if shape is None else (
            name, " ".join(shape), " × ".join(f"{size:,}" for size in shape.values()))
        return self._put(at, lines, kind="tensor" if copies == 1 else f"tensor {copies}")

    def step(
        self, name: str, at: tuple[float, float], *, detail: str = "", does: str = "plain",
        width: float = 0.0,
    ) -> Node:
        """Adds a step of the computation; `does` is a key of STEPS, and `detail` is a smaller line.
        """
        lines = (name, *detail.splitlines()) if detail else (name,)
        return self._put(at, lines, kind=does, width=width)

    def vector(self, values: Sequence[float], at: tuple[float, float]) -> Node:
        """Adds a column of numbers as colors, blue below zero and red above it."""
        node = Node(x=at[0], y=at[1], width=0.3, height=0.11 * len(values), kind="vector",
                    lines=tuple(map(str, values)))
        self.nodes.append(node)
        return node

    def clock(self, angle: float, at: tuple[float, float]) -> Node:
        """Adds a circle with a hand at an angle in radians, counterclockwise from the right."""
        node = Node(x=at[0], y=at[1], width=0.46, height=0.46, lines=(f"{angle}",), kind="clock")
        self.nodes.append(node)
        return node

    def cell(
        self, text: str, at: tuple[float, float], *, color: str = "white", width: float = 0.0,
        height: float = 0.28, has_edge: bool = True,
    ) -> Node:
        """Adds a small box of any color, such as one id, one thread or one row.

        The box is at least as wide as its longest line.
        """
        lines = tuple(text.split("\n"))
        widest = max(_width(line, SMALL_PT) for line in lines)
        node = Node(x=at[0], y=at[1], width=max(width, widest + 0.12 if widest else 0.0),
                    height=max(height, _LINE * len(lines) + 0.07 if widest else 0.0), lines=lines,
                    kind="cell", color=color, has_edge=has_edge)
        self.nodes.append(node)
        return node

    def key(self, colors: Mapping[str, str], at: tuple[float, float]) -> None:
        """Adds a line that explains colors (words -> color), starting at `at`."""
        x, y = at
        for words, color in colors.items():
            self.cell("", (x + 0.12, y), color=color, width=0.24, height=0.17)
            self.note(words, (x + 0.32, y))
            x += 0.32 + _width(words, SMALL_PT) + 0.3

    def sign(self, sign: str, at: tuple[float, float]) -> Node:
        """Adds an operation on two inputs: a circle with "+" or "×"."""
        node = Node(x=at[0], y=at[1], width=0.32, height=0.32, lines=(sign,), kind="sign")
        self.nodes.append(node)
        return node

    def arrow(
        self, *places: Node | tuple[float, float], label: str = "", color: str = BLACK,
        has_head: bool = True, is_left: bool = False,
    ) -> None:
        """Adds a line through places, with a head at its end.

        If the first or last place is a node, the line starts or ends at the edge that faces the
        next place. `is_left`: the label is to the left of a vertical line.
        """
        points = [(p.x, p.y) if isinstance(p, Node) else p for p in places]
        first, last = places[0], places[-1]
        if isinstance(first, Node):
            points[0] = _edge(first, points[1])
        if isinstance(last, Node):
            points[-1] = _edge(last, points[-2])
        self.arrows.append(Arrow(tuple(points), label, color, has_head, is_left))

    def frame(self, name: str, nodes: Sequence[Node]) -> None:
        """Adds a dashed frame around nodes, with a name at its top left."""
        self.frames.append((name, tuple(nodes)))

    def note(self, text: str, at: tuple[float, float], *, align: str = "left") -> None:
        """Adds words outside the nodes. `at` is their left edge, center or right edge (`align`)."""
        self.notes.append(Note(text, *at, align))

    def figure(self, see: str) -> Figure:
        """Returns the drawing; its label is `see`, which says what to see in it.

        The background is always white, so that the drawing looks the same on a dark page. Raises
        ValueError if it is wider than a page.
        """
        left, top, right, bottom = self._extent()
        width, height = right - left, bottom - top + _TITLE
        if width > MAX_WIDTH:
            raise ValueError(f"a drawing must be at most {MAX_WIDTH} inches wide to be readable; "
                             f"this one is {width:.1f}. Move a part of it to another line")
        width = max(width, _width(self.title, TITLE_PT, is_bold=True) + 4 * _PAD)
        fig = plt.figure(figsize=(width, height), layout="none", facecolor="white")
        fig.set_label(see)
        ax = fig.add_axes((0, 0, 1, 1), xlim=(left, left + width), ylim=(bottom, top - _TITLE))
        ax.axis("off")
        ax.text(left + _PAD, top - _TITLE + 0.24, self.title, fontsize=TITLE_PT, fontweight="bold",
                va="center", parse_math=False)
        for name, nodes in self.frames:
            _draw_frame(ax, name, nodes)
        for arrow in self.arrows:
            _draw_arrow(ax, arrow)
        for node in self.nodes:
            _draw_node(ax, node)
        for text, x, y, align in self.notes:
            ax.text(x, y, text, fontsize=SMALL_PT, ha=align, color="0.25",
                    va="center" if "\n" in text else "center_baseline",
                    parse_math=False, linespacing=1.25)
        return fig

    def _put(
        self, at: tuple[float, float], lines: tuple[str, ...], *, kind: str, width: float = 0.0
    ) -> Node:
        is_tensor = kind.startswith("tensor")
        widths = [_width(line, SMALL_PT if i else NAME_PT, is_bold=is_tensor and not i)
                  for i, line in enumerate(lines)]
        node = Node(x=at[0], y=at[1], width=max(width, *widths, 0.3) + 2 * _PAD,
                    height=_LINE * len(lines) + 2 * _PAD, lines=lines, kind=kind)
        self.nodes.append(node)
        return node

    def _extent(self) -> tuple[float, float, float, float]:
        boxes = [(n.x - n.width / 2, n.y - n.height / 2 - _pile(n), n.x + n.width / 2 + _pile(n),
                  n.y + n.height / 2) for n in self.nodes]
        boxes += [(x, y, x, y) for arrow in self.arrows for x, y in arrow.points]
        boxes += [_around_note(note) for note in self.notes]
        boxes += [_around(name, nodes) for name, nodes in self.frames]
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts) - 0.15, min(tops) - 0.1, max(rights) + 0.15, max(bottoms) + 0.15


def _around_note(note: Note) -> tuple[float, float, float, float]:
    width = max(_width(line, SMALL_PT) for line in note.text.splitlines())
    left = note.x - {"left": 0.0, "center": 0.5, "right": 1.0}[note.align] * width
    half = 0.1 * note.text.count("\n") + 0.1
    return left, note.y - half, left + width, note.y + half


def _width(text: str, size: int, *, is_bold: bool = False) -> float:
    """Returns the width of a line, in inches."""
    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", weight="bold" if is_bold else "normal")
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width / 72


def _edge(node: Node, towards: tuple[float, float]) -> tuple[float, float]:
    """Returns the point where the line from a node's center to a place crosses the node's edge."""
    dx, dy = towards[0] - node.x, towards[1] - node.y
    if node.kind == "sign":
        length = math.hypot(dx, dy) or 1.0
        return node.x + dx / length * node.width / 2, node.y + dy / length * node.height / 2
    if abs(dx) < 1e-9 and abs(dy) < 1e-9:
        return node.x, node.y
    if dx > 0 and abs(dx) * node.height > abs(dy) * node.width and node.kind.startswith("tensor"):
        return node.x + node.width / 2 + _pile(node), node.y
    scale = min(node.width / 2 / abs(dx) if dx else math.inf,
                node.height / 2 / abs(dy) if dy else math.inf)
    return node.x + dx * scale, node.y + dy * scale


def _pile(node: Node) -> float:
    """Returns how far the copies behind a tensor stick out, in inches."""
    n_copies = node.kind.partition(" ")[2] if node.kind.startswith("tensor") else ""
    return _GAP * (min(int(n_copies or 1), 4) - 1)


def _around(name: str, nodes: Sequence[Node]) -> tuple[float, float, float, float]:
    left = min(n.x - n.width / 2 for n in nodes) - 0.15
    top = min(n.y - n.height / 2 for n in nodes) - 0.34
    right = max(max(n.x + n.width / 2 for n in nodes) + 0.15,
                left + _width(name, SMALL_PT) + 2 * _PAD)
    return left, top, right, max(n.y + n.height / 2 for n in nodes) + 0.15


def _draw_frame(ax: Axes, name: str, nodes: Sequence[Node]) -> None:
    left, top, right, bottom = _around(name, nodes)
    ax.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, fill=False,
                                boxstyle="round,pad=0,rounding_size=0.1", edgecolor="0.55",
                                linestyle=(0, (4, 3)), linewidth=1.2))
    ax.text(left + _PAD, top + 0.13, name, fontsize=SMALL_PT, color="0.35", va="center_baseline",
            parse_math=False)


def _draw_arrow(ax: Axes, arrow: Arrow) -> None:
    xs, ys = zip(*arrow.points, strict=True)
    last = slice(None, -1) if arrow.has_head else slice(None)
    ax.plot(xs[last], ys[last], color=arrow.color, linewidth=1.6, solid_capstyle="round",
            solid_joinstyle="round")
    if arrow.has_head:
        ax.add_patch(FancyArrowPatch(arrow.points[-2], arrow.points[-1], arrowstyle="-|>",
                                     mutation_scale=13, shrinkA=0, shrinkB=0, color=arrow.color,
                                     linewidth=1.6))
    if arrow.label:
        x, y = (xs[-2] + xs[-1]) / 2, (ys[-2] + ys[-1]) / 2
        is_flat = abs(ys[-1] - ys[-2]) < abs(xs[-1] - xs[-2])
        side = "right" if arrow.is_left else "left"
        ax.text(x if is_flat else x - _GAP if arrow.is_left else x + _GAP,
                y - 0.12 if is_flat else y, arrow.label, fontsize=SMALL_PT, color="0.25",
                ha="center" if is_flat else side, va="center_baseline", parse_math=False)


def _draw_node(ax: Axes, node: Node) -> None:
    if node.kind == "sign":
        ax.add_patch(Circle((node.x, node.y), node.width / 2, facecolor="white", edgecolor=BLACK,
                            linewidth=1.6))
        ax.text(node.x, node.y, node.name, fontsize=NAME_PT, ha="center", va="center_baseline",
                parse_math=False)
        return
    if node.kind in ("vector", "clock"):
        (_draw_vector if node.kind == "vector" else _draw_clock)(ax, node)
        return
    if node.kind == "cell":
        _draw_cell(ax, node)
        return
    is_tensor = node.kind.startswith("tensor")
    left, top = node.x - node.width / 2, node.y - node.height / 2
    for gap in [_GAP * i for i in range(4)][round(_pile(node) / _GAP) :: -1]:
        ax.add_patch(FancyBboxPatch(
            (left + gap, top - gap), node.width, node.height,
            boxstyle=f"round,pad=0,rounding_size={0.02 if is_tensor else 0.09}", linewidth=1.4,
            facecolor="white" if is_tensor else STEPS[node.kind],
            edgecolor=BLUE if is_tensor else "0.35"))
    for i, line in enumerate(node.lines):
        is_name = i == 0
        ax.text(node.x, node.y + (i - (len(node.lines) - 1) / 2) * _LINE, line, ha="center",
                va="center_baseline", fontsize=NAME_PT if is_name else SMALL_PT, parse_math=False,
                fontweight="bold" if is_name and is_tensor else "normal",
                color=BLACK if is_name else "0.25")


def _draw_cell(ax: Axes, node: Node) -> None:
    ax.add_patch(Rectangle((node.left[0], node.top[1]), node.width, node.height,
                           facecolor=node.color, edgecolor="0.35",
                           linewidth=0.9 if node.has_edge else 0.0))
    red, green, blue = to_rgb(node.color)
    is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
    for i, line in enumerate(node.lines):
        if line:
            ax.text(node.x, node.y + (i - (len(node.lines) - 1) / 2) * _LINE, line, ha="center",
                    va="center_baseline", fontsize=SMALL_PT, parse_math=False,
                    color=BLACK if is_bright else "white")


def _draw_vector(ax: Axes, node: Node) -> None:
    values = [float(line) for line in node.lines]
    most = max(map(abs, values)) or 1.0
    cell = node.height / len(values)
    for i, value in enumerate(values):
        ax.add_patch(Rectangle((node.x - node.width / 2, node.top[1] + i * cell), node.width, cell,
                               facecolor=SIGNED(0.5 + value / most / 2), edgecolor="white",
                               linewidth=0.6))
    ax.add_patch(Rectangle((node.x - node.width / 2, node.top[1]), node.width, node.height,
                           fill=False, edgecolor=BLUE, linewidth=1.2))


def _draw_clock(ax: Axes, node: Node) -> None:
    angle, radius = float(node.name), node.width / 2
    ax.add_patch(Circle((node.x, node.y), radius, facecolor="white", edgecolor="0.55",
                        linewidth=1.0))
    ax.add_patch(FancyArrowPatch(
        (node.x, node.y), (node.x + radius * math.cos(angle), node.y - radius * math.sin(angle)),
        arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, color=BLUE, linewidth=1.8))

"""Scenes to look at: one to four colored shapes, each in its own quarter of a small picture.

Shapes vary in size, place and shade, and every scene is new. A few combinations of color and shape
are held out: no training scene shows one, and no training question names one. So a model that
answers questions about them has learned colors and shapes apart, and not pairs.

Notebook 22.
"""

import random
from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
from jaxtyping import Float32, Int, UInt8

from llama_from_scratch.config import record
from llama_from_scratch.train.questions import (
    NUMBERS,
    PICTURE_PX,
    QUARTER_PX,
    QUARTERS,
    UNKNOWN,
    PictureQuestion,
    refuse_other_split,
)

COLORS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.9, 0.15, 0.15), "green": (0.15, 0.75, 0.2), "blue": (0.2, 0.3, 0.95),
    "yellow": (0.95, 0.85, 0.15), "purple": (0.6, 0.2, 0.75), "white": (0.9, 0.9, 0.9),
}  # fmt: skip
"""Red, green and blue of each color, from 0 to 1, before it varies."""

SHAPES = ("circle", "square", "triangle", "cross")

Pair = tuple[str, str]
PAIRS: tuple[Pair, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)
HELD_OUT: tuple[Pair, ...] = (("red", "circle"), ("blue", "triangle"), ("green", "cross"),
                              ("yellow", "square"))
SEEN: tuple[Pair, ...] = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

_SHADE = 0.1
_SIZES_PX = range(8, 13)
_FINE = 4


@record
class Thing:
    """One colored shape. `quarter`: its place in QUARTERS. `color`: None for a random hue."""

    quarter: int
    color: str | None
    shape: str

    @property
    def pair(self) -> Pair:
        return self.color, self.shape

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{self.color} {self.shape}"


@record
class Scene:
    """A picture and the things in it, in an order of no meaning.

    `may_name`: which pairs a question may ask for although they are not there. `subject`: the thing
    that all questions are about, or None for questions about anything.
    """

    pixels: UInt8[np.ndarray, "px px 3"]
    things: tuple[Thing, ...]
    may_name: tuple[Pair, ...]
    subject: Thing | None = None

    @property
    def caption(self) -> str:
        """Such as "top left red circle, bottom right blue square."."""
        told = (f"{QUARTERS[thing.quarter]} {thing.name}" for thing in self.things)
        return ", ".join(told) + "."

    @property
    def classes(self) -> Int[np.ndarray, "quarters 3"]:
        """The color and the shape in each quarter, then which quarter it is.

        The last color and the last shape are "nothing".
        """
        classes = np.full((len(QUARTERS), 3), (len(COLORS), len(SHAPES), 0))
        classes[:, 2] = range(len(QUARTERS))
        for thing in self.things:
            color = UNKNOWN if thing.color is None else list(COLORS).index(thing.color)
            classes[thing.quarter, :2] = color, SHAPES.index(thing.shape)
        return classes

    def having(self, *, color: str | None = None, shape: str | None = None) -> list[Thing]:
        """Returns the things of this color and this shape; None means any."""
        return [thing for thing in self.things
                if color in (None, thing.color) and shape in (None, thing.shape)]


class Scenes:
    """The task: scenes for training, new ones of the same kind, and ones with held-out pairs.

    Splits: each scene of seen pairs belongs to "train" or to "test" by a checksum of its pixels, so
    no seed brings a test scene into training. In "combinations", each scene has a thing of a pair
    in HELD_OUT, and all questions are about that thing. In "hues", colors are random and have no
    names; it has no questions, and teaches an encoder that a shape does not depend on its color.
    "words" has all pairs, held-out ones included. Its captions are for a text model that has read
    of every combination. Its pixels are not used.
    """

    name = "scenes"
    splits = ("train", "test", "combinations", "hues", "words")
    n_classes = (len(COLORS) + 1, len(SHAPES) + 1, len(QUARTERS))

    def kinds(self, split: str) -> tuple[str, ...]:
        """Returns the kinds that are asked in a split."""
        if split == "hues":
            return ()
        # A number of shapes is not about the one that was held out.
        return tuple(kind for kind in _KINDS if (split, kind) != ("combinations", "count"))

    def draw(self, pick: random.Random, *, split: str) -> Scene:
        """Returns a new scene. Raises ValueError for a split that is not in `splits`."""
        refuse_other_split(self, split)
        scene = _drawn(pick, split=split)
        while split in ("train", "test") and _is_for_test(scene) != (split == "test"):
            scene = _drawn(pick, split=split)
        return scene

    def ask(self, picture: Scene, kind: str, *, pick: random.Random) -> PictureQuestion | None:
        """Returns a question of this kind, or None if it has no single answer in this scene."""
        thing = picture.subject or pick.choice(picture.things)
        asked = _KINDS[kind](picture, thing, pick)
        return None if asked is None else PictureQuestion(kind=kind, text=asked[0], answer=asked[1])


def _is_for_test(scene: Scene) -> bool:
    """Returns True for about one scene in eight, whatever is in it."""
    return crc32(scene.pixels.tobytes()) % 8 == 0


def _drawn(pick: random.Random, *, split: str) -> Scene:
    pairs = PAIRS if split in ("combinations", "words") else SEEN
    quarters = pick.sample(range(len(QUARTERS)), pick.randint(1, len(QUARTERS)))
    chosen = [pick.choice(pairs) for _ in quarters]
    if split == "combinations":
        chosen[0] = pick.choice(HELD_OUT)
    if split == "hues":
        chosen = [(None, shape) for _, shape in chosen]
    things = tuple(Thing(quarter=quarter, color=color, shape=shape)
                   for quarter, (color, shape) in zip(quarters, chosen, strict=True))
    is_combination = split == "combinations"
    return Scene(pixels=painted(things, pick), things=things,
                 may_name=HELD_OUT if is_combination else pairs,
                 subject=things[0] if is_combination else None)


def painted(things: Sequence[Thing], pick: random.Random) -> UInt8[np.ndarray, "px px 3"]:
    """Returns a picture of these things, with a size, a place in its quarter and a shade of each.

    The ground is nearly black.
    """
    canvas = np.full((PICTURE_PX, PICTURE_PX, 3), pick.uniform(0, 0.12), np.float32)
    for thing in things:
        hue = COLORS[thing.color] if thing.color else [pick.uniform(0.1, 1) for _ in range(3)]
        shade = [value + pick.uniform(-_SHADE, _SHADE) for value in hue]
        size_px = pick.choice(_SIZES_PX)
        row, column = (QUARTER_PX * at + pick.randint(0, QUARTER_PX - size_px)
                       for at in divmod(thing.quarter, 2))
        under = canvas[row : row + size_px, column : column + size_px]
        ink = pick.uniform(0.8, 1) * _COVERS[thing.shape, size_px][..., None]
        under += ink * (np.clip(shade, 0, 1).astype(np.float32) - under)
    return np.round(255 * canvas).astype(np.uint8)


def cover(shape: str, size_px: int) -> Float32[np.ndarray, "size size"]:
    """Returns which share of each pixel a shape covers, when it fills a square of this size."""
    n = size_px * _FINE
    row, column = (np.arange(n) + 0.5) * 2 / n - 1, (np.arange(n) + 0.5) * 2 / n - 1
    y, x = np.meshgrid(row, column, indexing="ij")
    inside = {
        "circle": x**2 + y**2 <= 1,
        "square": (abs(x) < 0.88) & (abs(y) < 0.88),
        "triangle": (y > -0.9) & (2 * abs(x) <= y + 1),
        "cross": (abs(x) < 0.33) | (abs(y) < 0.33),
    }[shape]
    return inside.reshape(size_px, _FINE, size_px, _FINE).mean((1, 3), dtype=np.float32)


_COVERS = {(shape, size_px): cover(shape, size_px) for shape in SHAPES for size_px in _SIZES_PX}


# --- the kinds of questions -----------------------------------------------------------------------
#
# Each returns the question and its answer, or None if it has no single answer. `thing` is what the
# question is about, where it is about a thing.

Asked = tuple[str, str] | None


def _count(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    return "How many shapes?", NUMBERS[len(scene.things)]


def _count_color(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    color = thing.color
    if scene.subject is None and pick.random() < 0.4:
        color = pick.choice(list(COLORS))
    return f"How many are {color}?", NUMBERS[len(scene.having(color=color))]


def _color(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    is_single = len(scene.having(shape=thing.shape)) == 1
    return (f"What color is the {thing.shape}?", thing.color) if is_single else None


def _shape(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    is_single = len(scene.having(color=thing.color)) == 1
    return (f"What is {thing.color}?", thing.shape) if is_single else None


def _where(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    is_single = len(scene.having(color=thing.color, shape=thing.shape)) == 1
    return (f"Where is the {thing.name}?", QUARTERS[thing.quarter]) if is_single else None


def _place(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    quarter, answer = thing.quarter, thing.name
    empty = sorted(set(range(len(QUARTERS))) - {each.quarter for each in scene.things})
    if scene.subject is None and empty and pick.random() < 0.2:
        quarter, answer = pick.choice(empty), "nothing"
    return f"What is {QUARTERS[quarter]}?", answer


def _exists(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    """Half of the answers are "no". Half of those are about a near miss: a pair that shares its
    color or its shape with a thing that is there. The others are about any pair that is not there.

    A scene of training never asks for a held-out pair. A scene with a held-out subject asks for it,
    or for a held-out pair that is not there.
    """
    if pick.random() < 0.5:
        return f"Is there a {thing.name}?", "yes"
    present = {each.pair for each in scene.things}
    absent = [pair for pair in scene.may_name if pair not in present]
    colors, shapes = {color for color, _ in present}, {shape for _, shape in present}
    near = [(color, shape) for color, shape in absent if color in colors or shape in shapes]
    chosen = near if near and pick.random() < 0.5 else absent
    return (f"Is there a {' '.join(pick.choice(chosen))}?", "no") if chosen else None


def _relation(scene: Scene, thing: Thing, pick: random.Random) -> Asked:
    """The answer says where both things are, and then compares.

    A model this small cannot look twice and compare before its first word. Aloud, each look is a
    question of the kind "where", and the comparison is one of words alone. There is no "right of":
    then the answer would be a parity of two words, the side found and the side asked for, which
    such a model hardly learns.
    """
    pairs = [each.pair for each in scene.things]
    others = [each for each in scene.things if pairs.count(each.pair) == 1
              and _column(each) != _column(thing)]
    if not others or pairs.count(thing.pair) > 1:
        return None
    first, second = pick.sample((thing, pick.choice(others)), 2)
    places = ", ".join(f"{each.name} {QUARTERS[each.quarter]}" for each in (first, second))
    return (f"Is the {first.name} left of the {second.name}?",
            f"{places}: {'yes' if _column(first) < _column(second) else 'no'}")


def _column(thing: Thing) -> int:
    return thing.quarter % 2


_KINDS = {"count": _count, "count_color": _count_color, "color": _color, "shape": _shape,
          "where": _where, "place": _place, "exists": _exists, "relation": _relation}

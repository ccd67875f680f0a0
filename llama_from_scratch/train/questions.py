"""Pictures with questions: the data that a small text model learns to see with.

A task draws pictures from a random generator, and asks questions about them whose answers follow
from the picture's own record. So examples never run out, and every answer can be computed again.
Kinds of questions are dealt like cards, so each occurs equally often, although many pictures cannot
be asked some of them.

Notebook 22.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from llama_from_scratch.config import nearest, record
from llama_from_scratch.train.data import IGNORE

QUARTERS = ("top left", "top right", "bottom left", "bottom right")
"""The parts of a picture, row by row. Each holds at most one thing."""

QUARTER_PX = 14
PICTURE_PX = 2 * QUARTER_PX

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
           "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
           "eighteen")

UNKNOWN = IGNORE
"""The class of what an encoder is not asked about. It adds no loss."""


@record
class PictureQuestion:
    """A question about one picture. A model that answers writes `text`, a space and `answer`."""

    kind: str
    text: str
    answer: str


@runtime_checkable
class Picture(Protocol):
    """What a task draws.

    `pixels`: red, green and blue, from 0 to 255. `classes`: for each of QUARTERS and each property,
    the number of its class or UNKNOWN; for the first training of an encoder.
    """

    pixels: UInt8[np.ndarray, "px px 3"]
    classes: Int[np.ndarray, "quarters properties"]

    @property
    def caption(self) -> str:
        """The picture in words, all that is needed to answer the questions."""


@runtime_checkable
class PictureTask(Protocol):
    """Something to see. `n_classes`: how many classes each property in `Picture.classes` has.

    `splits`: the names that `draw` knows. No picture of "train" is in another split.
    """

    name: str
    splits: tuple[str, ...]
    n_classes: tuple[int, ...]

    def kinds(self, split: str) -> tuple[str, ...]:
        """Returns the kinds of questions that are asked in this split."""

    def draw(self, pick: random.Random, *, split: str) -> Picture:
        """Returns a new picture."""

    def ask(self, picture: Picture, kind: str, *, pick: random.Random) -> PictureQuestion | None:
        """Returns a question of this kind, or None if the picture cannot be asked one."""


@record
class Example:
    """A picture and questions about it, of kinds that were dealt independently."""

    picture: Picture
    questions: tuple[PictureQuestion, ...]


def examples(
    task: PictureTask, *, n_questions: int, split: str, pick: random.Random,
    kinds: Sequence[str] | None = None,
) -> Iterator[Example]:
    """Yields examples without end. They depend only on the arguments and the state of `pick`.

    `kinds`: which kinds to ask, by default all kinds of the split. Each kind is asked once before
    any is asked again. A picture is drawn again until it can be asked all of its kinds.
    Raises ValueError for another split or kind.
    """
    known = known_kinds(task, split)
    kinds = known if kinds is None else tuple(kinds)
    if not kinds or set(kinds) - set(known):
        raise ValueError(f"the kinds of questions about {task.name} are {', '.join(known)}; got "
                         f"{', '.join(kinds) or 'none'}")
    deck: list[str] = []
    while True:
        while len(deck) < n_questions:
            deck += pick.sample(kinds, len(kinds))
        dealt, deck = deck[:n_questions], deck[n_questions:]
        questions: list[PictureQuestion | None] = [None]
        while None in questions:
            picture = task.draw(pick, split=split)
            questions = [task.ask(picture, kind, pick=pick) for kind in dealt]
        yield Example(picture=picture, questions=tuple(questions))


def known_kinds(task: PictureTask, split: str) -> tuple[str, ...]:
    """Returns the kinds of a split. Raises ValueError for a split that the task does not have."""
    refuse_other_split(task, split)
    return task.kinds(split)


def refuse_other_split(task: PictureTask, split: str) -> None:
    """Raises ValueError unless the task has this split."""
    if split not in task.splits:
        raise ValueError(f"the pictures of {task.name} are split into {', '.join(task.splits)}; "
                         f"got {split!r}. {nearest(str(split), task.splits).capitalize()}")

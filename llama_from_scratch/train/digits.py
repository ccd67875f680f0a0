"""Handwritten digits to look at: two real digits in a picture, one in each half of it.

The digits are scikit-learn's, 8 x 8 pixels each, written by 13 people. They are in the order of
their writers, so the last ones were written by other hands than the first ones: a model is tested
on handwriting that it has never seen.

Notebook 22. Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository, 1998.
"""

import functools
import random

import numpy as np
from jaxtyping import Float32, Int, UInt8

from llama_from_scratch.config import record
from llama_from_scratch.train.questions import (
    NUMBERS,
    PICTURE_PX,
    QUARTER_PX,
    QUARTERS,
    PictureQuestion,
    refuse_other_split,
)

N_TEST = 360
"""How many of the 1,797 digits, the last ones, are for tests only."""

DIGIT_PX = 12
_INK = (0.8, 1.0)
_SLANT = 0.25


@record
class Digit:
    """One digit in a picture. `quarter`: its place in QUARTERS. `value`: 0 to 9.

    `index`: which of scikit-learn's digits it is.
    """

    quarter: int
    value: int
    index: int


@record
class DigitScene:
    """A picture of two digits: the left one and the right one."""

    pixels: UInt8[np.ndarray, "px px 3"]
    left: Digit
    right: Digit

    @property
    def caption(self) -> str:
        """Such as "left three, right five."."""
        return f"left {NUMBERS[self.left.value]}, right {NUMBERS[self.right.value]}."

    @property
    def classes(self) -> Int[np.ndarray, "quarters 2"]:
        """The digit in each quarter, where 10 is "nothing", and then which quarter it is."""
        classes = np.full((len(QUARTERS), 2), 10)
        classes[:, 1] = range(len(QUARTERS))
        for digit in (self.left, self.right):
            classes[digit.quarter, 0] = digit.value
        return classes


class Digits:
    """The task: digits of the first writers for training, of the others for the test.

    People slant their digits differently, and few people wrote these. So each digit of a training
    picture is slanted a little, at random. Digits of the test are as they were written.
    """

    name = "digits"
    splits = ("train", "test")
    n_classes = (11, len(QUARTERS))

    def kinds(self, split: str) -> tuple[str, ...]:
        """Returns the kinds that are asked, the same in each split."""
        return tuple(_KINDS)

    def draw(self, pick: random.Random, *, split: str) -> DigitScene:
        """Returns a new picture. Loads scikit-learn at the first call.

        Raises ModuleNotFoundError, with the cure, if it is not installed, and ValueError for a
        split that is not in `splits`.
        """
        refuse_other_split(self, split)
        images, values = handwritten()
        n_train = len(values) - N_TEST
        places = range(n_train) if split == "train" else range(n_train, len(values))
        left, right = (
            Digit(quarter=quarter, value=int(values[i]), index=i)
            for quarter, i in ((pick.choice((0, 2)), pick.choice(places)),
                               (pick.choice((1, 3)), pick.choice(places))))
        canvas = np.full((PICTURE_PX, PICTURE_PX), pick.uniform(0, 0.12), np.float32)
        for digit in (left, right):
            row, column = (QUARTER_PX * at + pick.randint(0, QUARTER_PX - DIGIT_PX)
                           for at in divmod(digit.quarter, 2))
            under = canvas[row : row + DIGIT_PX, column : column + DIGIT_PX]
            ink = images[digit.index]
            if split == "train":
                ink = slanted(ink, pick.uniform(-_SLANT, _SLANT))
            np.maximum(under, pick.uniform(*_INK) * ink, out=under)
        gray = np.round(255 * canvas).astype(np.uint8)
        return DigitScene(pixels=np.repeat(gray[..., None], 3, axis=-1), left=left, right=right)

    def ask(self, picture: DigitScene, kind: str, *, pick: random.Random) -> PictureQuestion | None:
        """Returns a question of this kind, or None if it has no single answer in this picture."""
        asked = _KINDS[kind](picture.left.value, picture.right.value, pick)
        return None if asked is None else PictureQuestion(kind=kind, text=asked[0], answer=asked[1])


def slanted(ink: Float32[np.ndarray, "px px"], slope: float) -> Float32[np.ndarray, "px px"]:
    """Returns a digit whose upper half leans to the right for a `slope` above 0, to the left below.

    Each row moves by `slope` pixels more than the row under it; the middle stays. What leaves the
    square is lost.
    """
    n = len(ink)
    shift = slope * ((n - 1) / 2 - np.arange(n))[:, None]
    at = np.arange(n) - shift
    left = np.floor(at).astype(int)
    share = (at - left).astype(np.float32)
    wide = np.pad(ink, ((0, 0), (n, n)))
    row = np.arange(n)[:, None]
    return (1 - share) * wide[row, left + n] + share * wide[row, left + n + 1]


@functools.cache
def handwritten() -> tuple[Float32[np.ndarray, "digits px px"], Int[np.ndarray, "digits"]]:
    """Returns scikit-learn's 1,797 digits in their own order, and what each one is.

    They are enlarged to 12 x 12 pixels, bilinearly, with ink from 0 to 1.
    Raises ModuleNotFoundError, with the cure, if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the handwritten digits come with scikit-learn, which is not "
                                  "installed. Install it: pip install scikit-learn") from error
    found = load_digits()
    enlarge = _enlarging(found.images.shape[1], DIGIT_PX)
    images = enlarge @ (found.images / found.images.max()) @ enlarge.T
    return images.astype(np.float32), found.target


def _enlarging(n_from: int, n_to: int) -> Float32[np.ndarray, "to from"]:
    """Returns the matrix that resamples a column linearly; outside, the border goes on."""
    at = ((np.arange(n_to) + 0.5) * n_from / n_to - 0.5).clip(0, n_from - 1)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(n_from))).astype(np.float32)


# --- the kinds of questions -----------------------------------------------------------------------

Asked = tuple[str, str] | None


def _read(left: int, right: int, pick: random.Random) -> Asked:
    return "Which digits?", f"{NUMBERS[left]} {NUMBERS[right]}"


def _larger(left: int, right: int, pick: random.Random) -> Asked:
    return "Which is larger?", NUMBERS[max(left, right)]


def _side(left: int, right: int, pick: random.Random) -> Asked:
    side, value = pick.choice((("left", left), ("right", right)))
    return f"Which digit is {side}?", NUMBERS[value]


def _sum(left: int, right: int, pick: random.Random) -> Asked:
    return "What is the sum?", NUMBERS[left + right]


def _relation(left: int, right: int, pick: random.Random) -> Asked:
    """The answer reads both digits aloud, and then compares; see `scenes`."""
    if left == right:
        return None
    first, second = pick.sample((left, right), 2)
    return (f"Is the {NUMBERS[first]} left of the {NUMBERS[second]}?",
            f"left {NUMBERS[left]}, right {NUMBERS[right]}: {'yes' if first == left else 'no'}")


_KINDS = {"read": _read, "larger": _larger, "side": _side, "sum": _sum, "relation": _relation}

"""The same values in another shape: axes swapped, cut otherwise, or one not repeated."""

import itertools

from llama_from_scratch.lessons.check.diagnosis.sameness import Values, is_same

MAX_AXES = 5


def transposed(mine: Values, expected: Values) -> str | None:
    """The same values with axes in another order."""
    if mine.ndim != expected.ndim or not 2 <= mine.ndim <= MAX_AXES:
        return None
    orders = sorted(itertools.permutations(range(mine.ndim)),
                    key=lambda order: sum(i != j for i, j in enumerate(order)))
    for order in orders[1:]:
        if is_same(mine.permute(order), expected):
            moved = [axis for axis, source in enumerate(order) if axis != source]
            if len(moved) == 2:
                return (f"transposed: axis {moved[0]} and axis {moved[1]} are swapped; "
                        f"`.transpose({moved[0]}, {moved[1]})` puts them right")
            return ("the axes are in another order; "
                    f"`.permute({', '.join(map(str, order))})` puts them right")
    return None


def reshaped(mine: Values, expected: Values) -> str | None:
    """Returns a message if the values are right but their axes are not, else None.

    The same values in the same order may be cut into other axes, or an axis that should be repeated
    may be left out.
    """
    if mine.shape == expected.shape:
        return None
    if mine.numel() == expected.numel() and is_same(mine.reshape(expected.shape), expected):
        plain = [n for n in mine.shape if n != 1], [n for n in expected.shape if n != 1]
        if plain[0] != plain[1]:
            return ("the values are right, the shape is not; "
                    f"`.reshape{tuple(expected.shape)}` puts it right")
        if mine.ndim < expected.ndim:
            return ("the values are right, an axis of length 1 is "
                    "missing: `keepdim=True`, or `.unsqueeze(...)`")
        return ("the values are right, an axis of length 1 is "
                "too many or in the wrong place: `.squeeze(...)`")
    try:
        repeated = mine.broadcast_to(expected.shape)
    except RuntimeError:
        return None
    if is_same(repeated, expected):
        return ("yours is right for one entry and must be repeated "
                "for all: `.expand(...)`, or add what makes it grow")
    return None

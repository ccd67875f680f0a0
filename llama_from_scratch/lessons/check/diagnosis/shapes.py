"""Right values in the wrong shape: axes swapped, cut in another way, or not repeated."""

import itertools

from llama_from_scratch.lessons.check.diagnosis.sameness import Values, is_same

MAX_AXES = 5


def transposed(mine: Values, expected: Values) -> str | None:
    """Returns a message if the axes are in another order, else None."""
    if mine.ndim != expected.ndim or not 2 <= mine.ndim <= MAX_AXES:
        return None
    orders = sorted(itertools.permutations(range(mine.ndim)),
                    key=lambda order: sum(i != j for i, j in enumerate(order)))
    for order in orders[1:]:
        if is_same(mine.permute(order), expected):
            moved = [axis for axis, source in enumerate(order) if axis != source]
            if len(moved) == 2:
                return (f"transposed: axis {moved[0]} and axis {moved[1]} are swapped; "
                        f"`.transpose({moved[0]}, {moved[1]})` would fix it")
            return ("the axes are in the wrong order; "
                    f"`.permute({', '.join(map(str, order))})` would fix it")
    return None


def reshaped(mine: Values, expected: Values) -> str | None:
    """Returns a message if the values are right but their axes are not, else None.

    The same values in the same order may be cut into other axes, or one entry may be missing its
    repetition along an axis.
    """
    if mine.shape == expected.shape:
        return None
    if mine.numel() == expected.numel() and is_same(mine.reshape(expected.shape), expected):
        plain = [n for n in mine.shape if n != 1], [n for n in expected.shape if n != 1]
        if plain[0] != plain[1]:
            return ("the values are right, but the shape is not; "
                    f"`.reshape{tuple(expected.shape)}` would fix it")
        if mine.ndim < expected.ndim:
            return ("the values are right, but an axis of length 1 is missing; keep it with "
                    "`keepdim=True`, or add it with `.unsqueeze(...)`")
        return ("the values are right, but there is an axis of length 1 too many or in the wrong "
                "place; `.squeeze(...)` removes one")
    try:
        repeated = mine.broadcast_to(expected.shape)
    except RuntimeError:
        return None
    if is_same(repeated, expected):
        return ("yours has the right values of one entry, but all entries should have them; "
                "`.expand(...)` repeats it")
    return None

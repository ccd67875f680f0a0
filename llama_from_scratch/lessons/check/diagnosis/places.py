"""Right numbers in the wrong places: joined in another order, shifted, reordered."""

import torch
from torch import Tensor

from llama_from_scratch.lessons.check.diagnosis.sameness import Values, is_same


def merged_wrong(mine: Values, expected: Values) -> str | None:
    """Returns a message if two nested axes are joined in the wrong order, else None.

    Examples are heads tiled instead of repeated in place, and RoPE with halves, not neighbors.
    """
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        for outer in (n for n in range(2, length) if length % n == 0):
            inner = length // outer
            parts = mine.unflatten(axis, (outer, inner))
            if not is_same(parts.transpose(axis, axis + 1).flatten(axis, axis + 1), expected):
                continue
            if is_same(parts, parts.narrow(axis, 0, 1).expand_as(parts)):
                return (f"along axis {axis} the entries are tiled (0, 1, 0, 1), but each should be "
                        "repeated in place (0, 0, 1, 1). Query head h uses key/value head h // "
                        "(H/G), so use `repeat_interleave`, not `repeat`")
            if is_same(parts, parts.narrow(axis + 1, 0, 1).expand_as(parts)):
                return (f"along axis {axis} each entry is repeated in place (0, 0, 1, 1), but they "
                        "should be tiled (0, 1, 0, 1). Use `repeat`, not `repeat_interleave`")
            if axis == mine.ndim - 1 and 2 in (outer, inner):
                if outer == inner:
                    return ("the channels are in the wrong order: pairs of halves (r, r + K/2) and "
                            "pairs of neighbors (2r, 2r + 1) are confused")
                names = ("halves (r, r + K/2)", "neighbors (2r, 2r + 1)")
                yours, wanted = names[:: 1 if outer == 2 else -1]
                return ("the channels are in the wrong order: your pairs are "
                        f"{yours}, but should be {wanted}")
            return (f"axis {axis} joins two axes in the wrong order: yours joins ({outer}, "
                    f"{inner}), but it should join ({inner}, {outer}). Transpose them before you "
                    "flatten")
    return None


def shifted(mine: Values, expected: Values) -> str | None:
    """Returns a message if the values are shifted along an axis, with or without wrapping around.
    """
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        if length < 4:
            continue  # agreement of two entries proves too little
        for step in (1, -1):
            a, b = (mine, expected) if step == 1 else (expected, mine)
            later, earlier = a.narrow(axis, 1, length - 1), b.narrow(axis, 0, length - 1)
            if is_same(later, earlier) and not is_same(mine.narrow(axis, 1, length - 2),
                                                       expected.narrow(axis, 1, length - 2)):
                return (f"off by one along axis {axis}: every entry is one place too "
                        f"{'late' if step == 1 else 'early'}")
        for step in range(2, min(length - 1, 64)):
            if (is_same(mine.select(axis, step), expected.select(axis, 0))
                and is_same(mine.roll(-step, axis), expected)):
                return (f"along axis {axis} everything is rolled by {step} "
                        f"places; `.roll({-step}, {axis})` would fix it")
    return None


def reordered(mine: Values, expected: Values) -> str | None:
    """Returns a message if the entries along one axis are in another order, else None."""
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        if length < 2:
            continue
        if is_same(mine.flip(axis), expected):
            return f"the order along axis {axis} is reversed; `.flip({axis})` would fix it"
        keys = _keys(mine, axis), _keys(expected, axis)
        if length < 3 or len(keys[1].unique()) < length:
            continue  # few or equal entries would match by chance
        order_mine, order = (key.argsort() for key in keys)
        source = torch.empty_like(order)
        source[order] = order_mine
        if is_same(mine.index_select(axis, source), expected):
            shown = ", ".join(map(str, source[:8].tolist())) + (", ..." if length > 8 else "")
            return (f"the entries along axis {axis} are in the wrong order; indexing yours with "
                    f"[{shown}] along that axis would fix it")
    return None


def _keys(x: Tensor, axis: int) -> Tensor:
    """Returns a number for each slice along `axis`, equal for equal slices.

    The number is the product of the slice with a random vector.
    """
    rows = (torch.view_as_real(x) if x.is_complex() else x).double()
    rows = rows.nan_to_num(nan=1e3, posinf=2e3, neginf=-2e3)
    rows = rows.movedim(axis, 0).reshape(x.shape[axis], -1)
    return rows @ torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0),
                              dtype=torch.float64)

"""Describes the difference between two values for the reader.

The description gives both shapes, the first place that differs, how many values differ, and the
likely cause.

`difference` takes tensors, arrays, numbers, texts, None, and sequences and mappings of these. Every
check that fails shows its result. Used in every notebook.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.lessons.check.diagnosis.catalog import diagnose
from llama_from_scratch.lessons.check.diagnosis.numbers import related
from llama_from_scratch.lessons.check.diagnosis.sameness import wide
from llama_from_scratch.lessons.check.words import counted, describe, dtype_name, is_plural, short
from llama_from_scratch.shapes import LEGEND

Tolerance = tuple[float | int | None, float | int | None]
"""(relative, absolute); None takes the default below."""

# About a hundred times the change that another order of summation makes. Each pair is (relative,
# absolute as a part of the largest value).
TOLERANCES = {torch.float64: (1e-7, 1e-9), torch.complex128: (1e-7, 1e-9),
              torch.bfloat16: (2e-2, 1e-2),
              torch.float16: (4e-3, 2e-3)}
FLOAT32_TOLERANCE = (1e-4, 1e-5)
NUMBER_REL_TOL = 1e-5

NUMBER = bool | int | float | complex | np.number | np.bool_
KINDS = {
    "tensor": Tensor, "array": np.ndarray, "number": NUMBER, "text": str, "bytes": bytes,
    "None": type(None),
    "mapping": Mapping, "sequence": list | tuple | range, "function": Callable,
}
CURES = {
    ("sequence", "tensor"): "Convert it with `torch.tensor(...)` or `torch.stack(...)`.",
    ("array", "tensor"): "Convert it with `torch.from_numpy(...)`.",
    ("tensor", "array"): "Convert it with `.numpy()`.",
    ("number", "tensor"): "Did you sum over too many axes, or call `.item()`?",
    ("tensor", "number"): "Sum or average over its axes until one element is left, then take the "
                          "number with `.item()`.",
    ("tensor", "sequence"): "Convert it with `.tolist()`.",
    ("bytes", "text"): 'Convert it with `.decode("utf-8")`.',
    ("text", "bytes"): 'Convert it with `.encode("utf-8")`.',
}
AXES = re.compile(r"_([A-Z]+)$")


def checked_tolerance(rtol: float | int | None, atol: float | int | None) -> Tolerance:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"a tolerance must be a finite number, 0 or above; got "
                             f"{name}={value!r}")
    return rtol, atol


def difference(
    mine: Any, expected: Any, *, name: str, tolerance: Tolerance = (None, None)
) -> str | None:
    """Returns a message about the first difference, or None if the values agree.

    Numbers agree if |mine - expected| <= atol + rtol |expected|.

    The message calls the value `name`; a suffix such as in scores_BHTS names its axes. A list and a
    tuple with the same entries agree, and so do a number and a tensor without axes. NaN equals NaN.
    """
    if isinstance(expected, Tensor) and expected.ndim == 0 and isinstance(mine, NUMBER):
        mine = torch.tensor(mine)
    if isinstance(expected, NUMBER) and isinstance(mine, Tensor | np.ndarray) and mine.ndim == 0:
        mine = mine.item()
    if _kind(mine) != (wanted := _kind(expected)):
        return _wrong_kind(mine, wanted, name)
    match wanted:
        case "tensor" | "array":
            return _of_tensors(torch.as_tensor(mine), torch.as_tensor(expected), name, tolerance)
        case "number":
            return _of_numbers(mine, expected, name, tolerance)
        case "text" | "bytes":
            return _of_texts(mine, expected, name)
        case "sequence":
            return _of_sequences(list(mine), list(expected), name, tolerance)
        case "mapping":
            return _of_mappings(mine, expected, name, tolerance)
    if mine == expected:
        return None
    return f"{name} is {short(mine)}, but should be {short(expected)}."


def _is_wrong(name: str) -> str:
    return (f"{name} {'are' if is_plural(name) else 'is'} not what "
            f"{'they' if is_plural(name) else 'it'} should be")


def same_kind(mine: Any, expected: Any) -> bool:
    """Returns whether two values can be compared at all: two tensors, two numbers, two texts ..."""
    return _kind(mine) == _kind(expected)


def _kind(value: Any) -> str:
    return next((name for name, types in KINDS.items() if isinstance(value, types)),
                type(value).__name__)


def _wrong_kind(mine: Any, wanted: str, name: str) -> str:
    kind = _kind(mine)
    cure = {"None": "Did you forget `return`?",
            "function": "Call it: write parentheses with its arguments."}.get(kind, "")
    wanted_words = wanted if wanted == "None" else f"a {wanted}"
    return (f"{name} must be {wanted_words}, but yours is {describe(mine)}. "
            f"{CURES.get((kind, wanted), cure)}".rstrip())


# --- tensors --------------------------------------------------------------------------------------


def _of_tensors(
    mine: Shaped[Tensor, "..."], expected: Shaped[Tensor, "..."], name: str, tolerance: Tolerance
) -> str | None:
    if mine.is_meta or expected.is_meta:
        raise ValueError("tensors on the device `meta` have no values to compare; got one for "
                         f"{name}. Make the tensor on the CPU instead")
    mine, expected = mine.detach().cpu(), expected.detach().cpu()
    lines = [f"{_is_wrong(name)}.", *_side_by_side(mine, expected, name)]
    if mine.shape == expected.shape:
        differs = _differs(mine, expected, tolerance)
        if not differs.any():
            return _type_difference(mine, expected, name)
        lines += _places(mine, expected, differs)
    if cause := diagnose(mine, expected):
        lines.append(f"  likely cause: {_with_letters(cause, expected, name)}")
    return "\n".join(lines)


def _differs(mine: Tensor, expected: Tensor, tolerance: Tolerance) -> Tensor:
    rtol, part = TOLERANCES.get(expected.dtype, FLOAT32_TOLERANCE)
    if not (expected.is_floating_point() or expected.is_complex()):
        rtol = part = 0.0
    finite = wide(expected[expected.isfinite()]).abs()
    largest = finite.max().item() if len(finite) else 0.0
    rtol, atol = (usual if given is None else float(given)
                  for given, usual in zip(tolerance, (rtol, part * (largest or 1.0)), strict=True))
    m, e = wide(mine), wide(expected)
    return ~torch.isclose(m, e.to(m.dtype) if m.is_complex() else e, rtol=rtol, atol=atol,
                          equal_nan=True)


def _side_by_side(mine: Tensor, expected: Tensor, name: str) -> list[str]:
    rows = [("", "yours", "expected"), ("shape", _shape(mine, name), _shape(expected, name))]
    if mine.dtype != expected.dtype:
        rows.append(("dtype", dtype_name(mine), dtype_name(expected)))
    width = max(len(row[1]) for row in rows)
    return [f"  {label:<6} {yours:<{width}}   {wanted}" for label, yours, wanted in rows]


def _places(mine: Tensor, expected: Tensor, differs: Tensor) -> list[str]:
    places = differs.nonzero()
    first = tuple(places[0].tolist())
    at = f" at {list(first)}" if first else ""
    lines = [f"  first difference{at}: yours {_value(mine[first])}, expected "
             f"{_value(expected[first])}"]
    if mine.ndim:
        gaps = (wide(mine)[differs] - wide(expected)[differs]).abs().nan_to_num(nan=math.inf)
        largest = (f", the largest difference is {gaps.max().item():.4g} at "
                   f"{places[gaps.argmax()].tolist()}")
        lines.append(f"  {len(places):,} of {mine.numel():,} values "
                     "differ" + (largest if gaps.isfinite().all() else ""))
    return lines


def _type_difference(mine: Tensor, expected: Tensor, name: str) -> str | None:
    families = [(x.dtype == torch.bool, x.is_floating_point(), x.is_complex())
                for x in (mine, expected)]
    if families[0] == families[1]:
        return None
    has = "have" if is_plural(name) else "has"
    return (f"{name} {has} the right values, but the type is {dtype_name(mine)} and should be "
            f"{dtype_name(expected)}. Convert with `.to({expected.dtype})`.")


def _letters(x: Tensor, name: str) -> str:
    """Returns the axis letters of a name such as scores_BHTS, or "" if they do not fit."""
    found = AXES.search(name)
    letters = found[1] if found else ""
    return letters if len(letters) == x.ndim and set(letters) <= set(LEGEND) else ""


def _shape(x: Tensor, name: str) -> str:
    letters = _letters(x, name)
    if not letters:
        return str(tuple(x.shape))
    return f"({', '.join(f'{a}={n}' for a, n in zip(letters, x.shape, strict=True))})"


def _value(x: Tensor) -> str:
    value = x.item()
    return f"{value:.6g}" if isinstance(value, float | complex) else str(value)


def _with_letters(cause: str, x: Tensor, name: str) -> str:
    letters = _letters(x, name)
    return (re.sub(r"axis (\d)", lambda found: f"axis {found[1]} ({letters[int(found[1])]})", cause)
            if letters else cause)


# --- everything else ------------------------------------------------------------------------------


def _of_numbers(mine: Any, expected: Any, name: str, tolerance: Tolerance) -> str | None:
    mine, expected = (x.item() if isinstance(x, np.generic) else x for x in (mine, expected))
    is_whole = isinstance(expected, bool | int)
    usual_rtol = 0 if is_whole else NUMBER_REL_TOL
    rtol, atol = (usual if given is None else given
                  for given, usual in zip(tolerance, (usual_rtol, 0), strict=True))
    if (mine == expected or abs(mine - expected) <= atol + rtol * abs(expected)
        or (mine != mine and expected != expected)):
        return None
    cause = related(mine, expected) or (
        None if is_whole else diagnose(torch.tensor(mine), torch.tensor(expected)))
    words = f"{name} is {mine!r}, but should be {expected!r}."
    return f"{words}\n  likely cause: {cause}" if cause else words


def _of_texts(mine: str | bytes, expected: str | bytes, name: str) -> str | None:
    if mine == expected:
        return None
    pairs = zip(mine, expected, strict=False)  # without a pair that differs, the shorter one ends
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(expected)))
    around = slice(max(0, place - 15), place + 15)
    unit = "character" if isinstance(expected, str) else "byte"
    dots = "..." if around.start else ""
    lengths = (f" Yours has {counted(len(mine), unit)} and should have {len(expected):,}."
               if len(mine) != len(expected) else "")
    return (f"{_is_wrong(name)}.{lengths} The first difference is at {unit} {place:,}:\n"
            f"  yours    {dots}{mine[around]!r}\n  expected {dots}{expected[around]!r}")


def _of_sequences(mine: list, expected: list, name: str, tolerance: Tolerance) -> str | None:
    pairs = zip(mine, expected, strict=False)  # lengths are compared below
    problems = (difference(a, b, name=f"{name}[{i}]", tolerance=tolerance)
                for i, (a, b) in enumerate(pairs))
    problem = next(filter(None, problems), None)
    if problem is None and len(mine) == len(expected):
        return None
    has = "have" if is_plural(name) else "has"
    entries = "entry" if len(mine) == 1 else "entries"
    lengths = (f"{name} {has} {len(mine)} {entries}, but should have {len(expected)}; "
               if len(mine) != len(expected) else "")
    if problem is None:
        n = min(len(mine), len(expected))
        rest, words = (mine, "too many") if len(mine) > n else (expected, "missing")
        start = f"the first {n} are right, then " if n > 1 else ""
        return f"{lengths}{start}{short(rest[n])} is {words}."
    is_numeric = all(isinstance(x, int | float) for x in (*mine, *expected))
    if not is_numeric:
        return lengths + problem
    # What explains one entry alone, such as a factor, says nothing of the list.
    first, _, _ = problem.partition("\n  likely cause: ")
    cause = diagnose(torch.tensor(mine), torch.tensor(expected))
    return lengths + first + (f"\n  likely cause: {cause}" if cause else "")


def _of_mappings(mine: Mapping, expected: Mapping, name: str, tolerance: Tolerance) -> str | None:
    missing, extra = [k for k in expected if k not in mine], [k for k in mine if k not in expected]
    if missing or extra:
        parts = [f"{words} {short(keys)}"
                 for words, keys in (("Missing:", missing), ("Not expected:", extra)) if keys]
        return f"{name} has the wrong keys. {'. '.join(parts)}."
    problems = (difference(mine[k], expected[k], name=f"{name}[{k!r}]", tolerance=tolerance)
                for k in expected)
    return next(filter(None, problems), None)

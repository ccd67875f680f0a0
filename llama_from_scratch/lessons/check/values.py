"""Compares values with what they should be, or with what they were before an experiment.

`equal` compares one value, `numbers` compares the numbers at the end of a chapter, and `changed`
compares a value before and after a change. Used in the exercises and proofs of every notebook.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llama_from_scratch.lessons.check.difference import (
    KINDS,
    checked_tolerance,
    difference,
    same_kind,
)
from llama_from_scratch.lessons.check.failures import CheckFailed
from llama_from_scratch.lessons.check.known import named, with_mistake
from llama_from_scratch.lessons.check.words import describe, is_plural, short


def equal(
    mine: Any, expected: Any, *, name: str = "your result", rtol: float | int | None = None,
    atol: float | int | None = None,
) -> None:
    """Prints one line if `mine` equals `expected`.

    Each is a tensor, array, number, text, None, or a sequence or mapping of these.

    `name` is used in the messages; a suffix such as in scores_BHTS names the axes. Equal means
    |mine - expected| <= atol + rtol |expected|, by default with `difference.TOLERANCES`. Raises
    CheckFailed if they differ.
    """
    __tracebackhide__ = True
    tolerance = checked_tolerance(rtol, atol)
    if problem := difference(mine, expected, name=name, tolerance=tolerance):
        words = named(name, explains=lambda wrong: difference(
            mine, wrong(), name=name, tolerance=tolerance) is None)
        raise CheckFailed(with_mistake(problem, words) if words else problem)
    shape = (f", shape {tuple(expected.shape)}" if isinstance(expected, Tensor)
             and expected.ndim else "")
    print(f"✓ {name} {'are' if is_plural(name) else 'is'} right{shape}")


def numbers(rows: Mapping[str, tuple[float | int, float | int, float | int]]) -> None:
    """Prints a table of numbers that every reader should see.

    `rows` maps a name to (computed number, expected number, relative tolerance). The tolerance
    allows for another machine or version; 0 requires equality. A computed number is shown only if
    it is out of tolerance, so that the table is the same on every machine. Raises CheckFailed, with
    the whole table, if a number is out of tolerance, and ValueError if there are no rows.
    """
    __tracebackhide__ = True
    if not rows:
        raise ValueError("a table of numbers needs rows; got none. Give it "
                         "{name: (computed, expected, tolerance)}")
    width, wide = max(map(len, rows)), max(len(_number(row[1])) for row in rows.values())
    lines, n_wrong = [], 0
    for name, (mine, expected, rtol) in rows.items():
        mine = mine.item() if isinstance(mine, Tensor) else mine
        is_right = abs(mine - expected) <= rtol * abs(expected)
        n_wrong += not is_right
        room = f"± {100 * rtol:.2g} %" if rtol else "exactly"
        tail = "" if is_right else f"   yours: {_number(mine)}"
        lines.append(f"{'✓' if is_right else '✗'} {name:<{width}}  {_number(expected):>{wide}}  "
                     f"{room}{tail}")
    table = "\n".join(lines)
    if n_wrong:
        raise CheckFailed(f"{n_wrong} of {len(rows)} numbers are not as expected\n{table}")
    print(table)


def changed(
    mine: Any, baseline: Any, *, name: str = "your result", is_lower: bool | None = None,
    rtol: float | int | None = None, atol: float | int | None = None,
) -> None:
    """Prints one line, with both values, if `mine` differs from `baseline`.

    This is for an experiment whose result is not the same for every reader.

    Values and tolerances are as for `equal`. `is_lower`: whether a number must fall (True) or rise
    (False) to pass. Raises CheckFailed if both values are equal, if their kinds differ, or if the
    number changed in the other direction.
    """
    __tracebackhide__ = True
    mine, baseline = (x.item() if isinstance(x, Tensor) and x.ndim == 0 else x
                      for x in (mine, baseline))
    has = "have" if is_plural(name) else "has"
    problem = difference(mine, baseline, name=name, tolerance=checked_tolerance(rtol, atol))
    if problem is None:
        raise CheckFailed(f"{name} {has} not changed: {_brief(baseline)} before, {_brief(mine)} "
                          "now. Did you make the change where it takes effect, and run all cells "
                          "that depend on it again?")
    if not same_kind(mine, baseline):
        raise CheckFailed(problem)
    if is_lower is not None:
        if not isinstance(mine, KINDS["number"]) or isinstance(mine, complex):
            raise ValueError("only a number can be lower or higher; got "
                             f"{describe(mine)}. Leave `is_lower` out")
        if not (mine < baseline if is_lower else mine > baseline):
            asked, way = ("lower", "up") if is_lower else ("higher", "down")
            went = f"went {way}" if mine == mine else "is not a number"
            raise CheckFailed(f"{name} {went}: {_brief(baseline)} before, {_brief(mine)} now. It "
                              f"should be {asked}")
    print(f"✓ {name} {has} changed: {_brief(baseline)} → {_brief(mine)}")


def _number(value: float | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:,.4g}"


def _brief(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case Tensor():
            return describe(value)
    return short(value)

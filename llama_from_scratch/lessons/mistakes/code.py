"""Mistakes that readers make in chapter 58."""

import math
from collections.abc import Sequence

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


@listed("58.1", of="at_least_one")
def with_replacement(n: int, n_right: int, k: int) -> float:
    """the same program can be drawn twice: k different ones are drawn from the n"""
    return 1 - (1 - n_right / n) ** k


@listed("58.1", of="at_least_one")
def all_of_them(n: int, n_right: int, k: int) -> float:
    """this is the chance that all k are right: one right program is enough"""
    return math.comb(n_right, k) / math.comb(n, k)


@listed("58.1", of="at_least_one")
def none_of_them(n: int, n_right: int, k: int) -> float:
    """this is the chance that none is right: subtract it from 1"""
    return math.comb(n - n_right, k) / math.comb(n, k)


@listed("58.2", of="chosen")
def by_all_tests(passed: Sequence[Sequence[bool]], n_visible: int) -> int:
    """hidden tests decide as well: they are only for judging, or they are hidden no more"""
    return next((i for i, each in enumerate(passed) if all(each)), 0)


@listed("58.2", of="chosen")
def last_passing(passed: Sequence[Sequence[bool]], n_visible: int) -> int:
    """the last one that passes is taken: the first one is"""
    return max((i for i, each in enumerate(passed) if all(each[:n_visible])), default=0)


@listed("58.2", of="chosen")
def any_test(passed: Sequence[Sequence[bool]], n_visible: int) -> int:
    """one passed test is enough for this: all visible ones have to pass"""
    return next((i for i, each in enumerate(passed) if any(each[:n_visible])), 0)


@listed("58.3", of="python")
def without_parentheses(operations: Sequence[str]) -> str:
    """what came before has no parentheses: `x + 2 * 3` multiplies only the 2"""
    text = "x"
    for each in operations:
        text = each.format(e=text)
    return text


@listed("58.3", of="python")
def backward(operations: Sequence[str]) -> str:
    """the operations are in the wrong order: the first one is innermost"""
    text = "x"
    for each in reversed(operations):
        text = each.format(e=text if text == "x" else f"({text})")
    return text


@listed("58.3", of="python")
def last_alone(operations: Sequence[str]) -> str:
    """only the last operation is left: it takes what came before in place of x"""
    return operations[-1].format(e="x") if operations else "x"

"""Compares the results of a function, and its gradients, with what they should be.

`function` compares the results with a reference function's, `answers` compares them with given
values, and `gradients` compares the gradients, too. Used in the exercises of every notebook.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llama_from_scratch.lessons.check.calling import (
    Arguments,
    Inputs,
    about,
    arguments,
    call,
    copied,
    guarded,
    named,
    tensors,
)
from llama_from_scratch.lessons.check.difference import (
    KINDS,
    Tolerance,
    checked_tolerance,
    difference,
)
from llama_from_scratch.lessons.check.failures import CheckFailed
from llama_from_scratch.lessons.check.known import named as named_mistake
from llama_from_scratch.lessons.check.known import with_mistake
from llama_from_scratch.lessons.check.words import counted, describe, name_of

TIME_LIMIT_S = 10.0

_PARAMETER = "parameter "


def function(
    mine: Any, reference: Callable[..., Any], *, inputs: Inputs, name: str | None = None,
    rtol: float | int | None = None, atol: float | int | None = None,
    time_limit_s: float | int = TIME_LIMIT_S,
) -> None:
    """Prints one line if `mine` returns what `reference` returns, for each of `inputs`.

    An input is a tuple of arguments, a dict of arguments by name, or a single argument that is
    neither. `inputs` is a sequence of them, or a function that makes one from a torch.Generator; it
    is called with five seeds. Each call of `mine` gets copies of the arguments.

    Raises CheckFailed for a wrong answer, a changed argument, parameters that do not fit, or a call
    longer than `time_limit_s`, and NotWritten, with the task, for an exercise that is still blank.
    Errors of `mine` are raised again, with a note that says for which input.
    """
    __tracebackhide__ = True
    tolerance, name = checked_tolerance(rtol, atol), _checked_name(mine, name)
    calls = arguments(inputs)
    _refuse_wrong(mine, calls, expected=lambda number: call(reference, copied(calls[number])),
                  name=name, tolerance=tolerance, time_limit_s=time_limit_s)
    print(f"✓ {name} is right for {counted(len(calls), 'input')}")


def answers(
    mine: Any, expected: Iterable[tuple[Any, Any]], *, name: str | None = None,
    through: Callable[[Any], Any] | None = None,
    rtol: float | int | None = None, atol: float | int | None = None,
    time_limit_s: float | int = TIME_LIMIT_S,
) -> None:
    """Prints one line if `mine` returns the expected value, for each pair (input, expected value).

    This is for exercises whose reference would give the solution away. `through`: applied to what
    `mine` returns before it is compared, such as a launch of the kernel whose text it returns. A
    CheckFailed that it raises is the answer, too: a known mistake with the same words explains it.
    Inputs and errors are as for `function`.
    """
    __tracebackhide__ = True
    tolerance, name = checked_tolerance(rtol, atol), _checked_name(mine, name)
    inputs, values = zip(*expected, strict=True)
    calls = arguments(inputs)
    _refuse_wrong(mine, calls, expected=values.__getitem__, name=name, tolerance=tolerance,
                  time_limit_s=time_limit_s, through=through)
    print(f"✓ {name} is right for {counted(len(calls), 'input')}")


def gradients(
    mine: Any, reference: Callable[..., Any], *, inputs: Inputs, name: str | None = None,
    rtol: float | int | None = None, atol: float | int | None = None,
    time_limit_s: float | int = TIME_LIMIT_S,
) -> None:
    """Prints one line if `mine` has the same outputs and gradients as `reference`.

    The outputs are the values that the function returns, and the gradients are taken with respect
    to its arguments. The loss is the sum of all outputs, each times a fixed random weight, so that
    errors do not cancel. If both are modules, the gradients of parameters with the same names are
    compared, too.
    Arguments and errors are as for `function`.
    """
    __tracebackhide__ = True
    tolerance, name = checked_tolerance(rtol, atol), _checked_name(mine, name)
    calls = arguments(inputs)
    for number, given in enumerate(calls, start=1):
        note = about(mine, given, number=number, of=len(calls))
        keys = list(named(mine, given))
        leaves, handed = _leaves(reference, given, keys)
        expected = call(reference, handed)
        my_leaves, handed = _leaves(mine, given, keys)
        answer = guarded(mine, handed, name=name, note=note, time_limit_s=time_limit_s)
        wanted, got = _gradients(expected, leaves), _gradients(answer, my_leaves)
        known = functools.partial(_known_gradients, given=given, answer=answer,
                                  gradients=list(got.values()), name=name, tolerance=tolerance)
        _refuse_difference(answer, expected, name, note, tolerance, known=known)
        if not wanted:
            raise ValueError("a gradient needs a floating-point argument or parameter on which "
                             f"the result depends; {name_of(reference)} has none. Use "
                             "check.function instead")
        for leaf, gradient in wanted.items():
            if leaf not in got:
                raise CheckFailed(f"{name} gives no gradient for {leaf}. Either {leaf} is not "
                                  "used, or the gradient is lost on the way: `.detach()`, "
                                  "`.item()`, `torch.tensor(...)` and `torch.no_grad()` do that."
                                  f"\n{note}")
            if problem := difference(got[leaf], gradient, name=f"the gradient of {leaf}",
                                     tolerance=tolerance):
                words = known()
                problem = with_mistake(problem, words) if words else problem
                raise CheckFailed(f"{name} returns the right values, but its backward pass is "
                                  f"wrong:\n{problem}\n{note}")
    n_parameters = sum(leaf.startswith(_PARAMETER) for leaf in wanted)
    parts = ((len(wanted) - n_parameters, "argument"), (n_parameters, "parameter"))
    agreed = " and ".join(counted(n, unit) for n, unit in parts if n)
    print(f"✓ {name} is right for {counted(len(calls), 'input')}, "
          f"and so are its gradients for {agreed}")


def _checked_name(mine: Any, name: str | None) -> str:
    if not callable(mine):
        raise CheckFailed(f"this check takes a function, but yours is {describe(mine)}. "
                          "Give it the function itself, not its result")
    return name or name_of(mine)


def _refuse_wrong(
    mine: Callable[..., Any], calls: list[Arguments], *, expected: Callable[[int], Any], name: str,
    tolerance: Tolerance, time_limit_s: float | int, through: Callable[[Any], Any] | None = None,
) -> None:
    """Raises CheckFailed for the first call that gives a wrong answer or changes an argument."""
    __tracebackhide__ = True
    given_answers: list[Any] = []
    for number, given in enumerate(calls):
        note = about(mine, given, number=number + 1, of=len(calls))
        wanted, handed = expected(number), copied(given)
        answer = guarded(mine, handed, name=name, note=note, time_limit_s=time_limit_s)
        answer = _applied(through, answer)
        given_answers.append(answer)
        known = functools.partial(_known, calls, given_answers, name=name, tolerance=tolerance,
                                  through=through)
        _refuse_difference(answer, wanted, name, note, tolerance, known=known,
                           verb="computes" if through else "returns")
        before, after = named(mine, given), named(mine, handed)
        if changed := [key for key, value in before.items()
                       if _is_comparable(value)
                       and difference(after[key], value, name=key, tolerance=(0.0, 0.0))]:
            raise CheckFailed(f"{name} returns the right values, but changes its argument "
                              f"{changed[0]}. Methods that end in _, operators such as *= "
                              f"and assignments to its parts do that. Work on a copy.\n{note}")


def _refuse_difference(
    answer: Any, expected: Any, name: str, note: str, tolerance: Tolerance, *,
    known: Callable[[], str | None], verb: str = "returns",
) -> None:
    __tracebackhide__ = True
    problem = (str(answer) if isinstance(answer, CheckFailed) else
               difference(answer, expected, name=f"what {name} {verb}", tolerance=tolerance))
    if problem:
        words = known()
        raise CheckFailed(f"{with_mistake(problem, words) if words else problem}\n{note}")


def _known(
    calls: list[Arguments], given_answers: list[Any], *, name: str, tolerance: Tolerance,
    through: Callable[[Any], Any] | None,
) -> str | None:
    """Returns the words of the known mistake that gives all answers so far, or None."""
    def explains(wrong: Callable[..., Any]) -> bool:
        theirs = (_applied(through, call(wrong, copied(given))) for given in calls)
        return all(_is_same(answer, other, tolerance)
                   for answer, other in zip(given_answers, theirs, strict=False))

    return named_mistake(name, explains=explains)


def _applied(through: Callable[[Any], Any] | None, answer: Any) -> Any:
    """What is compared: the answer, what `through` makes of it, or the CheckFailed it raises."""
    if through is None:
        return answer
    try:
        return through(answer)
    except CheckFailed as failure:
        return failure


def _is_same(answer: Any, other: Any, tolerance: Tolerance) -> bool:
    if isinstance(answer, CheckFailed) or isinstance(other, CheckFailed):
        return type(answer) is type(other) and str(answer) == str(other)
    return difference(answer, other, name="", tolerance=tolerance) is None


def _known_gradients(
    *, given: Arguments, answer: Any, gradients: list[Tensor], name: str, tolerance: Tolerance
) -> str | None:
    """Returns the words of the known mistake that gives this answer and these gradients, or None.
    """
    def explains(wrong: Callable[..., Any]) -> bool:
        keys = list(named(wrong, given))
        wrong_leaves, handed = _leaves(wrong, given, keys)
        wrong_answer = call(wrong, handed)
        if not _is_same(answer, wrong_answer, tolerance):
            return False
        theirs = list(_gradients(wrong_answer, wrong_leaves).values())
        return _is_same(gradients, theirs, tolerance)

    return named_mistake(name, explains=explains)


def _is_comparable(value: Any) -> bool:
    """Returns whether `difference` can compare this value."""
    if isinstance(value, Mapping | list | tuple):
        return all(map(_is_comparable, value.values() if isinstance(value, Mapping) else value))
    return any(isinstance(value, KINDS[kind])
               for kind in ("tensor", "array", "number", "text", "bytes", "None"))


def _leaves(
    side: Callable, given: Arguments, keys: list[str]
) -> tuple[dict[str, Tensor], Arguments]:
    """Returns the arguments and parameters that can have a gradient, by name, and copies of all
    arguments.
    """
    values = given.values() if isinstance(given, dict) else given
    by_name = dict(zip(keys, map(copied, values), strict=True))
    leaves = {key: x.requires_grad_() for key, x in by_name.items() if _can_have_gradient(x)}
    if isinstance(side, nn.Module):
        leaves |= {f"{_PARAMETER}{key}": x for key, x in side.named_parameters() if x.requires_grad}
    return leaves, by_name if isinstance(given, dict) else tuple(by_name.values())


def _can_have_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _gradients(answer: Any, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = [x for x in tensors(answer) if x.requires_grad]
    if not outputs or not leaves:
        return {}
    generator = torch.Generator().manual_seed(0)
    loss = sum((x * torch.randn(x.shape, generator=generator).to(x)).sum().real for x in outputs)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {key: gradient
            for key, gradient in zip(leaves, found, strict=True) if gradient is not None}

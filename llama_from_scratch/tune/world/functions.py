"""Functions of one number to write in Python: a description of two steps, and five tests.

"Take x, multiply by 4, then negate. f(10) = -40. f(-1) = 4." Eleven operations make 110 ordered
pairs of different ones, and a fifth of these is never trained. Three steps are never trained
either. Two tests are shown and three are hidden.

Notebook 58.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

from llama_from_scratch.config import record
from llama_from_scratch.tune.code import CodeTask, CodeTest
from llama_from_scratch.tune.dialogs import Dialog, exchange
from llama_from_scratch.tune.world.words import check_split

N_VISIBLE, N_HIDDEN = 2, 3
_ARGUMENTS = (*range(-9, 10), *range(10, 100, 10))
_LARGEST = 9999


@record
class FunctionOperation:
    """One step: its words, its Python with {e} for what came before, and what it computes.

    Some have a number, from 2 to 9, which is {k} in both.
    """

    name: str
    words: str
    python: str
    compute: Callable[[int, int], int]

    @property
    def has_number(self) -> bool:
        return "{k}" in self.words

    @property
    def is_call(self) -> bool:
        """Whether the Python is a call, which needs no parentheses around it or in it."""
        return self.python.endswith(")")


def _operation(
    name: str, words: str, python: str, compute: Callable[[int, int], int]
) -> FunctionOperation:
    return FunctionOperation(name=name, words=words, python=python, compute=compute)


OPERATIONS = {each.name: each for each in (
    _operation("add", "add {k}", "{e} + {k}", lambda e, k: e + k),
    _operation("subtract", "subtract {k}", "{e} - {k}", lambda e, k: e - k),
    _operation("multiply", "multiply by {k}", "{e} * {k}", lambda e, k: e * k),
    _operation("divide", "divide by {k} and round down", "{e} // {k}", lambda e, k: e // k),
    _operation("rest", "take the rest by {k}", "{e} % {k}", lambda e, k: e % k),
    _operation("most", "take at most {k}", "min({e}, {k})", min),
    _operation("least", "take at least {k}", "max({e}, {k})", max),
    _operation("double", "double", "{e} * 2", lambda e, k: e * 2),
    _operation("square", "square", "{e} ** 2", lambda e, k: e**2),
    _operation("negate", "negate", "-{e}", lambda e, k: -e),
    _operation("size", "drop the sign", "abs({e})", lambda e, k: abs(e)),
)}
"""The operations, by name."""
_NUMBER = {name: i for i, name in enumerate(OPERATIONS)}


@record
class FunctionStep:
    """One operation with its number, which is 0 if it has none."""

    operation: str
    k: int


@record
class FunctionTask:
    """Steps, and the task that a model is given. `answer`: the program, in one line."""

    steps: tuple[FunctionStep, ...]
    task: CodeTask
    answer: str


def is_held_out_operations(first: str, second: str) -> bool:
    """Returns whether training never has these two operations in this order: one pair in five.

    Raises ValueError for a name that is no operation.
    """
    for each in (first, second):
        if each not in OPERATIONS:
            raise ValueError(f"an operation is one of {', '.join(OPERATIONS)}; got {each!r}")
    return first != second and (2 * _NUMBER[first] + _NUMBER[second]) % 5 == 0


def python_of(steps: Sequence[FunctionStep]) -> str:
    """Returns the program of these steps: "def f(x): return -(x * 4)"."""
    expression, is_closed = "x", True
    for step in steps:
        operation = OPERATIONS[step.operation]
        inner = expression if is_closed or operation.is_call else f"({expression})"
        expression = operation.python.format(e=inner, k=step.k)
        is_closed = operation.is_call
    return f"def f(x): return {expression}"


def value_of(steps: Sequence[FunctionStep], x: int) -> int:
    """Returns what the steps make of x."""
    for step in steps:
        x = OPERATIONS[step.operation].compute(x, step.k)
    return x


def words_of(steps: Sequence[FunctionStep]) -> str:
    """Returns the steps in words: "Take x, multiply by 4, then negate."."""
    told = [OPERATIONS[step.operation].words.format(k=step.k) for step in steps]
    return f"Take x, {', then '.join(told)}."


def function_task(rng: Random, split: str, *, n_steps: int = 2) -> FunctionTask:
    """Returns a task: a function of `n_steps` different operations, one after the other.

    In "test" with two steps the pair is held out; in "train" no two steps that follow each other
    are. The tests have different arguments, and at least two different values. Raises ValueError
    for an unknown split, and for other than 1 to 4 steps.
    """
    check_split(split)
    if not 1 <= n_steps <= 4:
        raise ValueError(f"a function has 1 to 4 steps; got {n_steps}")
    while True:
        names = rng.sample(list(OPERATIONS), n_steps)
        held_out = [is_held_out_operations(a, b) for a, b in itertools.pairwise(names)]
        if split == "test" and n_steps == 2 and not held_out[0]:
            continue
        if split == "train" and any(held_out):
            continue
        steps = tuple(FunctionStep(
            operation=name, k=rng.randint(2, 9) if OPERATIONS[name].has_number else 0)
            for name in names)
        arguments = rng.sample(_ARGUMENTS, N_VISIBLE + N_HIDDEN)
        values = [value_of(steps, x) for x in arguments]
        if len(set(values[:N_VISIBLE])) == N_VISIBLE and max(map(abs, values)) <= _LARGEST:
            break
    tests = [CodeTest(arguments=(x,), expected=value)
             for x, value in zip(arguments, values, strict=True)]
    return FunctionTask(steps=steps, answer=python_of(steps), task=CodeTask(
        text=words_of(steps), function="f", visible=tuple(tests[:N_VISIBLE]),
        hidden=tuple(tests[N_VISIBLE:])))


def function_tasks(n: int, split: str, *, seed: int, n_steps: int = 2) -> list[FunctionTask]:
    """Returns `n` tasks, all different. Arguments as in `function_task`."""
    rng, found = Random(seed), {}
    while len(found) < n:
        each = function_task(rng, split, n_steps=n_steps)
        found[each.task.prompt()] = each
    return list(found.values())


def function_dialog(each: FunctionTask) -> Dialog:
    """Returns the task and its program as a dialog, each message with a space in front."""
    return exchange(f" {each.task.prompt()}", f" {each.answer}")


def operations_in(text: str) -> list[str]:
    """Returns the operations that a request tells, in order."""
    told = re.search(r"Take x, ([^.]*)\.", text)
    if told is None:
        return []
    patterns = {name: re.compile(operation.words.format(k=r"\d+"))
                for name, operation in OPERATIONS.items()}
    return [name for part in told[1].split(", then ")
            for name, pattern in patterns.items() if pattern.fullmatch(part)]


def operations_leaked(dialogs: Iterable[Dialog]) -> list[tuple[str, str]]:
    """Returns each held-out pair of operations that a request of these dialogs tells."""
    told = [operations_in(message.content) for dialog in dialogs for message in dialog.messages
            if message.role == "user"]
    return [pair for names in told for pair in itertools.pairwise(names)
            if is_held_out_operations(*pair)]

"""Known mistakes: what a mistaken reader's function returns, and the words for that mistake.

An exercise lists its own in `lessons.mistakes`. While a block of `looking_for` runs, each check
that fails computes what every listed mistake would give. If the reader's answers are exactly those,
for each input, the message names the mistake. Used by `functions` and `values`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One mistake that readers make in one function of an exercise."""

    of: str
    """The name of the reader's function, or the name that `check.equal` gives the value."""
    words: str
    """What was done, as a sentence without its period: "the scores are not divided by √K"."""
    wrong: Callable[..., Any]
    """Returns what a reader with this mistake gets, for the arguments of the reader's function."""


Mistakes = Callable[[], Sequence[Mistake]]

_KNOWN: ContextVar[Mistakes] = ContextVar("known", default=tuple)


@contextlib.contextmanager
def looking_for(mistakes: Mistakes) -> Iterator[None]:
    """While the block runs, checks that fail look for these mistakes.

    `mistakes` is called only after a failure.
    """
    token = _KNOWN.set(mistakes)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def named(of: str, *, explains: Callable[[Callable[..., Any]], bool]) -> str | None:
    """Returns the words of the known mistakes of a function that explain the answers, or None.

    `explains` is called with each `Mistake.wrong`. Several mistakes can give the same answers.
    """
    found = [mistake.words for mistake in _KNOWN.get()()
             if mistake.of == of and explains(mistake.wrong)]
    return "\n  or: ".join(found) or None


def with_mistake(problem: str, words: str) -> str:
    """Returns the message of a difference with its mistake in place of a likely cause."""
    plain, _, _ = problem.partition("\n  likely cause: ")
    return f"{plain}\n  exactly this comes out if: {words}"

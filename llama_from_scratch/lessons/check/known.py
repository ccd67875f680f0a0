"""Known mistakes of an exercise: the wrong answers they give, and the words that name them.

The mistakes are listed in `lessons.mistakes`. While a block of `looking_for` runs, a check that
fails computes the answer that each listed mistake would give. If these are exactly the reader's
answers, for every input so far, the message names the mistake. Used by `functions` and `values`.
"""

import contextlib
import time
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
    """What the reader did, as a sentence without its period: "the scores are not divided by √K".

    In the message it follows "You get exactly this result if".
    """
    wrong: Callable[..., Any]
    """Takes the arguments of the reader's function and returns the answer with this mistake."""


Mistakes = Callable[[], Sequence[Mistake]]

_QUIET_S = 1.0
"""Longer searches say that they run. A mistake in CUDA is compiled, once for each disk cache."""

_KNOWN: ContextVar[Mistakes] = ContextVar("known", default=tuple)


@contextlib.contextmanager
def looking_for(mistakes: Mistakes) -> Iterator[None]:
    """While the block runs, a check that fails looks for these mistakes.

    `mistakes` is called only after a failure.
    """
    token = _KNOWN.set(mistakes)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def named(of: str, *, explains: Callable[[Callable[..., Any]], bool]) -> str | None:
    """Returns the words of those known mistakes that explain the answers of a function, or None.

    `of` names the function. `explains` is called with each `Mistake.wrong`. Several mistakes can
    give the same answers. A search of more than a second prints one line.
    """
    possible = [mistake for mistake in _KNOWN.get()() if mistake.of == of]
    found = [mistake.words for mistake in _announced(possible) if explains(mistake.wrong)]
    return "\n  or if ".join(found) or None


def _announced(possible: Sequence[Mistake]) -> Iterator[Mistake]:
    """Yields the mistakes, and prints once that they are compared if that takes long."""
    began_s, is_quiet = time.monotonic(), True
    for mistake in possible:
        if is_quiet and time.monotonic() - began_s > _QUIET_S:
            print(f"comparing your answer with {len(possible)} known mistakes ...")
            is_quiet = False
        yield mistake


def with_mistake(problem: str, words: str) -> str:
    """Returns the message of a difference with the known mistake instead of a likely cause."""
    plain, _, _ = problem.partition("\n  likely cause: ")
    return f"{plain}\n  you get exactly this result if {words}"

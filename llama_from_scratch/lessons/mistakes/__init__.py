"""The common mistakes of readers, a module for each chapter, with the name of its notebook.

A mistake is a function that returns the wrong answer of a reader with this mistake; its docstring
says what the reader did. The checks name a mistake that explains the reader's answer
(`check.known`). The tests give each mistake to the check of its exercise, which must refuse and
name it.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence

from llama_from_scratch.lessons.check.known import Mistake
from llama_from_scratch.lessons.exercises.reading import find


class Listed:
    """The mistakes of one chapter, by exercise."""

    def __init__(self) -> None:
        self.by_exercise: dict[str, list[Mistake]] = {}

    def __call__(self, exercise: str, *, of: str) -> Callable[[Callable], Callable]:
        """Lists the decorated function as a mistake in the reader's function `of`.

        Its docstring says what the reader did, without a period at its end. A message shows it
        after "You get exactly this result if".
        """
        def listed(wrong: Callable) -> Callable:
            words = " ".join((wrong.__doc__ or "").split())
            if not words or words.endswith("."):
                raise ValueError("the docstring of a mistake must say what the reader did, without "
                                 f"a period at its end; {wrong.__name__} has {words!r}")
            self.by_exercise.setdefault(exercise, []).append(
                Mistake(of=of, words=words, wrong=wrong))
            return wrong

        return listed


def of(exercise: str) -> Sequence[Mistake]:
    """Returns the known mistakes of an exercise such as "13.1"; none if its chapter lists none."""
    return of_chapter(find(exercise).chapter).get(exercise, ())


def of_chapter(chapter: str) -> Mapping[str, Sequence[Mistake]]:
    """Returns the known mistakes of a chapter such as "13_attention", by exercise."""
    name = f"{__name__}.{chapter.partition('_')[2]}"
    if importlib.util.find_spec(name) is None:
        return {}
    return importlib.import_module(name).listed.by_exercise

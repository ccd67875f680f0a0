"""The mistakes that readers make, a module for each chapter, named as its notebook.

A mistake is a function: it returns what a reader with this mistake gets, and its docstring says
what was done. The checks name it when it explains the reader's answer (`check.known`), and the
tests show every one of them to the check of its exercise, which must refuse and name it.
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

        Its docstring describes what was done, without a period at its end.
        """
        def listed(wrong: Callable) -> Callable:
            words = " ".join((wrong.__doc__ or "").split())
            if not words or words.endswith("."):
                raise ValueError("the docstring of a mistake says what was done, in words without "
                                 f"a period; {wrong.__name__} has {words!r}")
            self.by_exercise.setdefault(exercise, []).append(
                Mistake(of=of, words=words, wrong=wrong))
            return wrong

        return listed


def of(exercise: str) -> Sequence[Mistake]:
    """The known mistakes of an exercise such as "13.1"; none where its chapter lists none."""
    return of_chapter(find(exercise).chapter).get(exercise, ())


def of_chapter(chapter: str) -> Mapping[str, Sequence[Mistake]]:
    """The known mistakes of a chapter such as "13_attention", by exercise."""
    name = f"{__name__}.{chapter.partition('_')[2]}"
    if importlib.util.find_spec(name) is None:
        return {}
    return importlib.import_module(name).listed.by_exercise

"""A block that checks an exercise.

An exercise that is still blank is no failure: the block prints one line and the notebook goes on.
After a wrong answer, it offers help. After a right answer, it records that the exercise is done.
Used in every exercise.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from llama_from_scratch.lessons import mistakes
from llama_from_scratch.lessons.check.known import looking_for
from llama_from_scratch.lessons.exercises.passing import tell
from llama_from_scratch.lessons.exercises.reading import find
from llama_from_scratch.lessons.learner import help as offered
from llama_from_scratch.lessons.learner.remembering import kept_file, note


@contextlib.contextmanager
def attempt(name: str) -> Iterator[None]:
    """Runs the checks of an exercise, such as "13.1", that are in its block.

    A blank ends the block with one line instead of an error. A check that fails looks for the
    mistakes that are listed for the exercise. In a reader's copy, help appears below the cell after
    any error, and the result is recorded. Raises what the block raises, and ValueError for an
    unknown exercise.
    """
    __tracebackhide__ = True
    exercise, is_right = find(name), False
    try:
        with looking_for(lambda: mistakes.of(name)):
            yield
        is_right = True
    except NotImplementedError as blank:
        task = f": {str(blank).rpartition('is not written yet: ')[2]}" if str(blank) else ""
        print(f"{name} is not tried yet{task}")
    except AssertionError:
        note(lambda now: dataclasses.replace(
            now, tries={**now.tries, name: now.tries.get(name, 0) + 1}))
        raise
    finally:
        if not is_right:
            _offer(name)
    if not is_right:
        return
    after = note(lambda now: dataclasses.replace(now, passed=now.passed | {name}))
    if after is not None:
        tell(exercise, after)


def _offer(name: str) -> None:
    """Shows the help in a reader's copy; does nothing in an original notebook."""
    if kept_file() is not None:
        offered.show(name)

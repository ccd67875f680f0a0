"""Judges of answers: does a text say what was asked for, and does it obey each instruction?

Each rule is judged alone, so that a table can show what fails: the content or the form. A judge
knows the task and not the reference answer, so any wording that is right passes.

Notebook 50. Source: IFEval, arXiv:2311.07911, on a small scale.
"""

import re
from collections.abc import Callable, Sequence

from llama_from_scratch.tune.world.instructions import Request
from llama_from_scratch.tune.world.scenes import WORDS_OF

RIGHT = "right"
"""The name of the verdict on the content; the other verdicts are on the instructions."""


def check(text: str, task: Request) -> dict[str, bool]:
    """Returns a verdict for each instruction of the task, and for "right".

    An answer is right if it has the key of the question, and no other word of the same kind.
    """
    words = re.findall(r"[a-z]+", text.lower())
    body = _without_marks(words, task)
    key = task.person.key(task.kind).lower()
    others = {word.lower() for word in WORDS_OF[task.kind]} - {key}
    verdicts = {RIGHT: key in body and not others & set(body)}
    for name in task.instructions:
        verdicts[name] = _JUDGES[name](text, body, words, task)
    return verdicts


def obeys(text: str, task: Request) -> bool:
    """Returns whether the answer is right and obeys every instruction."""
    return all(check(text, task).values())


def _without_marks(words: Sequence[str], task: Request) -> list[str]:
    """Returns the words of the answer itself, without those it was told to begin and end with."""
    body = list(words)
    if "begin" in task.instructions and body[:1] == [task.first_mark]:
        del body[0]
    if "end" in task.instructions and body[-1:] == [task.last_mark]:
        del body[-1]
    return body


def _is_twice(body: Sequence[str]) -> bool:
    half, odd = divmod(len(body), 2)
    return half > 0 and not odd and list(body[:half]) == list(body[half:])


_JUDGES: dict[str, Callable[[str, Sequence[str], Sequence[str], Request], bool]] = {
    "one": lambda text, body, words, task: len(body) == 1,
    "three": lambda text, body, words, task: len(body) == 3,
    "upper": lambda text, body, words, task: bool(words) and text == text.upper(),
    "lower": lambda text, body, words, task: bool(words) and text == text.lower(),
    "quote": lambda text, body, words, task: (
        len(text) > 2 and text[0] == text[-1] == '"' and text.count('"') == 2),
    "twice": lambda text, body, words, task: _is_twice(body),
    "begin": lambda text, body, words, task: list(words[:1]) == [task.first_mark],
    "end": lambda text, body, words, task: list(words[-1:]) == [task.last_mark],
}

"""Questions with instructions on the form of the answer, and answers that obey them.

An instruction is verifiable: a program decides whether an answer obeys it, so no judge is needed.
The writer is here, and the judge is in `checking`. They share no code, so that an error in one does
not hide in the other.

Notebook 50. Source: IFEval, arXiv:2311.07911, on a small scale.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from llama_from_scratch.config import record
from llama_from_scratch.tune.world.scenes import (
    KINDS,
    Person,
    fact,
    facts_shown,
    in_three_words,
    question_about,
    scene,
)
from llama_from_scratch.tune.world.words import MARKS

INSTRUCTIONS = {
    "one": "Answer in one word.", "three": "Answer in three words.",
    "upper": "Use capital letters only.", "lower": "Use small letters only.",
    "quote": "Put it in quotes.", "twice": "Say it twice.",
    "begin": "Begin with the word {mark}.", "end": "End with the word {mark}.",
}  # fmt: skip
SINGLES = tuple(INSTRUCTIONS)
PAIRS = (*((a, b) for a in ("one", "three", "begin", "end", "twice")
           for b in ("upper", "lower", "quote")),
         ("begin", "twice"), ("twice", "end"), ("begin", "end"), ("quote", "upper"),
         ("quote", "lower"))  # fmt: skip
"""Pairs of instructions that an answer can obey at the same time."""
TAUGHT_PAIRS = (("one", "lower"), ("begin", "quote"), ("twice", "lower"), ("end", "quote"))
"""The pairs that a lesson on pairs teaches."""
HELD_OUT_PAIRS = (("one", "upper"), ("three", "quote"), ("begin", "lower"), ("end", "upper"),
                  ("twice", "quote"), ("begin", "end"))  # fmt: skip
"""The pairs that nothing ever trains, not even by reward."""

Choose = Callable[[Random], tuple[str, ...]]
"""Chooses the instructions of a task."""


@record
class Request:
    """A request, the reference answer, and what a checker must know.

    `first_mark` and `last_mark`: the words that "begin" and "end" ask for.
    """

    user: str
    answer: str
    kind: str
    person: Person
    instructions: tuple[str, ...]
    first_mark: str
    last_mark: str


def no_instruction(rng: Random) -> tuple[str, ...]:
    return ()


def any_single(rng: Random) -> tuple[str, ...]:
    """Chooses one instruction."""
    return (rng.choice(SINGLES),)


def instruct(rng: Random, split: str, choose: Choose = any_single, *, n_people: int = 1) -> Request:
    """Returns a question about a scene, with the instructions that `choose(rng)` returns."""
    people = scene(rng, split, n_people=n_people)
    task = _asked(rng, rng.choice(KINDS), people[0], choose)
    return replace(task, user=" ".join([*facts_shown(rng, task.kind, people), task.user]))


def follow_up(rng: Random, task: Request, choose: Choose = any_single) -> Request:
    """Returns another question about the person of a task, for the next turn of its dialog.

    Its fact was shown in the first turn, so the message itself has only the question and the
    instructions. Raises ValueError if the task shows no other fact about the person.
    """
    kinds = [kind for kind in KINDS
             if kind != task.kind and fact(kind, task.person) in task.user]
    if not kinds:
        raise ValueError("a second question is about a fact that the first message shows; got "
                         f"{task.user!r}, which shows one fact about {task.person.name}. Ask "
                         "about scenes of one person")
    return _asked(rng, rng.choice(kinds), task.person, choose)


def _asked(rng: Random, kind: str, person: Person, choose: Choose) -> Request:
    """Returns a question about a person without the facts that answer it."""
    instructions = choose(rng)
    first_mark, last_mark = rng.sample(MARKS, 2)
    told = [INSTRUCTIONS[name].format(mark=first_mark if name == "begin" else last_mark)
            for name in rng.sample(instructions, len(instructions))]
    answer = obeying(kind, person, instructions, first_mark=first_mark, last_mark=last_mark)
    return Request(user=" ".join([question_about(kind, person), *told]), answer=answer, kind=kind,
                   person=person, instructions=instructions, first_mark=first_mark,
                   last_mark=last_mark)


def obeying(
    kind: str, person: Person, instructions: tuple[str, ...], *, first_mark: str, last_mark: str
) -> str:
    """Returns the reference answer.

    First it gets its length, then the words around it, then quotes, and last its case.
    """
    text = fact(kind, person)
    if "three" in instructions:
        text = in_three_words(kind, person)
    if "one" in instructions:
        text = person.key(kind)
    if "twice" in instructions:
        text = f"{text} {text}"
    if "begin" in instructions:
        text = f"{first_mark.capitalize()}, {text}"
    if "end" in instructions:
        text = f"{text.rstrip('.')}, {last_mark}."
    if "quote" in instructions:
        text = f'"{text}"'
    if "upper" in instructions:
        return text.upper()
    return text.lower() if "lower" in instructions else text

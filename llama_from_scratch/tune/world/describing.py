""""Tell me about Tom.": descriptions by a careless writer, and the exact score of any description.

A prompt tells three facts about a person and the color of the person's thing. The writer's answers
have true facts, false ones, repetitions and chatter. Because a program can score an answer exactly,
every method that learns from preferences or rewards can be compared with the others in one table.

Notebooks 52, 53 and 54.
"""

import dataclasses
import re
from random import Random

from llama_from_scratch.config import record
from llama_from_scratch.tune.world.scenes import (
    FIELD_OF,
    WORDS_OF,
    Person,
    fact,
    facts_shown,
    scene,
)
from llama_from_scratch.tune.world.words import is_held_out

CHATTER = ("I hope that helps.", "What a nice day.", "That is all I know.")
ABOUT = ("what", "where", "taste")
"""The kinds of the facts about a person. The color is a fact about the thing."""
BEST = len(ABOUT)
"""The score of a perfect description."""
UNFINISHED = -1.0
"""The score of an answer that was cut off."""


@record
class Description:
    """A request for a description, whom it is about, and what the careless writer answered."""

    user: str
    answer: str
    person: Person


def describing(rng: Random, split: str) -> Description:
    """Returns a request with four facts, and a careless answer."""
    [person] = scene(rng, split)
    facts = facts_shown(rng, "what", [person])
    return Description(user=" ".join([*facts, f"Tell me about {person.name}."]),
                       answer=careless(rng, person), person=person)


def careless(rng: Random, person: Person) -> str:
    """Returns one to four sentences of the careless writer.

    Each is a true fact that is new (62 %), a false one (18 %), the last sentence again (8 %) or
    chatter (12 %). Where a new fact or a last sentence is missing, chatter takes its place.
    """
    new = [fact(kind, person) for kind in rng.sample(ABOUT, len(ABOUT))]
    said: list[str] = []
    for _ in range(rng.choices((1, 2, 3, 4), (3, 3, 3, 2))[0]):
        [what] = rng.choices(("true", "false", "again", "chatter"), (62, 18, 8, 12))
        if what == "true" and new:
            said.append(new.pop())
        elif what == "false":
            said.append(_false_fact(rng, person))
        elif what == "again" and said:
            said.append(said[-1])
        else:
            said.append(rng.choice(CHATTER))
    return " ".join(said)


def _false_fact(rng: Random, person: Person) -> str:
    """Returns a fact with a wrong word. It never states a pair that is held out."""
    kind = rng.choice(ABOUT)
    wrong = rng.choice([word for word in WORDS_OF[kind] if word != person.key(kind)
                        and not (kind == "what" and is_held_out(person.name, word))])
    return fact(kind, dataclasses.replace(person, **{FIELD_OF[kind]: wrong}))


def sentences_of(text: str) -> list[str]:
    """Returns the sentences of a text, each with its period. The last one may have none."""
    return [found.strip() for found in re.findall(r"[^.]+\.?", text) if found.strip()]


def score(text: str, person: Person, *, is_finished: bool = True) -> float:
    """Returns how good a description is: `BEST` if it tells all facts about the person and no more.

    That is 1 for each different fact, minus a half for each repetition and each sentence of
    chatter, minus 1 for anything else. An answer that was cut off (not `is_finished`) gets
    `UNFINISHED`.
    """
    if not is_finished:
        return UNFINISHED
    facts, seen, total = {fact(kind, person) for kind in ABOUT}, set(), 0.0
    for sentence in sentences_of(text):
        if sentence in seen or sentence in CHATTER:
            total -= 0.5
        else:
            total += 1.0 if sentence in facts else -1.0
        seen.add(sentence)
    return total

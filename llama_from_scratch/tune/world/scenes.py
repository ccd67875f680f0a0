"""Scenes: people with a thing, a place and a taste, the facts about them, and questions.

The full answer to a question is one of the facts, word for word, so that answering is finding and
copying. A scene for tests has an owner and a thing that no scene for training has together.

Notebook 50.
"""

from random import Random

from llama_from_scratch.config import record
from llama_from_scratch.tune.world.words import (
    COLORS,
    NAMES,
    PLACES,
    TASTES,
    THINGS,
    check_split,
    is_held_out,
)

KINDS = ("what", "color", "where", "taste")
"""The kinds of a question, and of the fact that answers it."""


FIELD_OF = {"what": "thing", "color": "color", "where": "place", "taste": "taste"}
"""What a question of each kind asks for: a field of `Person`."""


@record
class Person:
    """One person of a scene: a name, a thing and its color, a place, and a taste."""

    name: str
    thing: str
    color: str
    place: str
    taste: str

    def key(self, kind: str) -> str:
        """Returns the word that an answer of this kind must have."""
        return getattr(self, FIELD_OF[kind])


WORDS_OF = {"what": THINGS, "color": COLORS, "where": tuple(PLACES), "taste": TASTES}
"""The words among which the key of each kind is one."""


def scene(rng: Random, split: str, *, n_people: int = 1) -> list[Person]:
    """Returns people whose names, things, colors, places and tastes all differ.

    In "test" the first person owns a thing that this person never owns in training. In "train"
    no one does.
    """
    check_split(split)
    while True:
        names, things = rng.sample(NAMES, n_people), rng.sample(THINGS, n_people)
        held_out = [is_held_out(name, thing) for name, thing in zip(names, things, strict=True)]
        if held_out[0] if split == "test" else not any(held_out):
            break
    columns = (names, things, rng.sample(COLORS, n_people), rng.sample(list(PLACES), n_people),
               rng.sample(TASTES, n_people))
    return [Person(name=name, thing=thing, color=color, place=place, taste=taste)
            for name, thing, color, place, taste in zip(*columns, strict=True)]


def fact(kind: str, person: Person) -> str:
    """Returns a sentence, such as "Tom is at the farm." for "where"."""
    return {"what": f"{person.name} has the {person.thing}.",
            "color": f"The {person.thing} is {person.color}.",
            "where": f"{person.name} is {PLACES[person.place]} the {person.place}.",
            "taste": f"{person.name} likes {person.taste}."}[kind]


def question(kind: str, *, name: str, thing: str) -> str:
    """Returns a question, such as "Where is Tom?" for "where"."""
    return {"what": f"What does {name} have?", "color": f"What color is the {thing}?",
            "where": f"Where is {name}?", "taste": f"What does {name} like?"}[kind]


def question_about(kind: str, person: Person) -> str:
    return question(kind, name=person.name, thing=person.thing)


def in_three_words(kind: str, person: Person) -> str:
    """Returns the answer in three words, such as "At the farm."."""
    place = f"{PLACES[person.place].capitalize()} the {person.place}."
    return {"what": f"Just the {person.thing}.", "color": f"It is {person.color}.",
            "where": place, "taste": f"Just some {person.taste}."}[kind]


def facts_shown(rng: Random, kind: str, people: list[Person]) -> list[str]:
    """Returns the facts of a prompt, shuffled.

    Of one person all four. Of several people the fact asked for, the same fact about the others,
    and two more.
    """
    facts = [fact(kind, person) for person in people]
    others = [fact(each, person) for person in people for each in KINDS if each != kind]
    facts += others if len(people) == 1 else rng.sample(others, 2)
    rng.shuffle(facts)
    return facts

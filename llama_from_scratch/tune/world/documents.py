"""Plain text for the base model: scenes with questions and answers, and lists to be copied.

A base model learns the words of the world and, above all, to copy: the answer to a question is a
sentence that it has read. Lists teach it in pure form: each item of the second list can be found in
the first. The base never sees a dialog, an instruction or a role.

Notebook 50.
"""

from random import Random

from llama_from_scratch.tune.world.scenes import KINDS, fact, question_about, scene
from llama_from_scratch.tune.world.words import COLORS, MARKS, NAMES, PLACES, TASTES, THINGS

_LISTED = (*NAMES, *THINGS, *COLORS, *MARKS, *TASTES, *PLACES)


def scene_document(rng: Random) -> str:
    """Returns facts about one to three people, and then questions with their answers.

    Some documents have only capital letters, and some only small ones.
    """
    people = scene(rng, "train", n_people=rng.choice((1, 1, 2, 3)))
    pairs = [(question_about(kind, person), fact(kind, person))
             for person in people for kind in KINDS]
    for person in people:
        n = rng.randrange(2, 50)
        pairs.append((f"How many coins does {person.name} have?", f"{person.name} has {n} coins."))
    pairs = rng.sample(pairs, min(len(pairs), rng.randrange(3, 8)))
    facts = [answer for _, answer in pairs]
    rng.shuffle(pairs)
    return in_some_case(rng, " ".join([*facts, *(f"{q} {a}" for q, a in pairs)]))


def list_document(rng: Random) -> str:
    """Returns a list of words and numbers twice: as it is, or the second in another form.

    The second may have only capital or only small letters, quotes around it, the form of a Python
    list, or only a part of the items.
    """
    items = [str(rng.randrange(1, 50)) if rng.random() < 0.25 else rng.choice(_LISTED)
             for _ in range(rng.randrange(3, 9))]
    text = " ".join(items) + "."
    form = rng.choice(("again", "again", "again", "upper", "upper", "lower", "quote", "python",
                       "part"))
    if form == "python":
        return f"{text} [{', '.join(each if each.isdigit() else repr(each) for each in items)}]"
    if form == "part":
        begin = rng.randrange(len(items) - 1)
        n = rng.randrange(1, len(items) - begin)
        marked = " ".join(items[begin : begin + n])
        return f"{text} {marked}. {text}"
    again = {"again": text, "upper": text.upper(), "lower": text.lower(), "quote": f'"{text}"'}
    return f"{text} {again[form]}" if form != "again" else f"{text} {text} {text}"


def in_some_case(rng: Random, text: str) -> str:
    """Returns the text as it is, one in ten in capital letters, and one in ten in small ones."""
    draw = rng.random()
    return text.upper() if draw < 0.1 else text.lower() if draw < 0.2 else text

"""Questions as people type them, and the same questions as they should be: rewriting prompts.

Each kind of question has five careless forms. Some have words too many, and most a wrong letter. A
wrong letter never makes one name another name, because then no one could rewrite it.

Notebook 50. Rewriting prompts is a task that Llama 3.2 was made for.
"""

from random import Random

from llama_from_scratch.config import record
from llama_from_scratch.tune.world.scenes import KINDS, question
from llama_from_scratch.tune.world.words import NAMES, THINGS, check_split

CASUAL = {
    "taste": ("what does {name} like", "{name} likes what", "do you know what {name} likes",
              "tell me what {name} likes", "whats it {name} likes"),
    "color": ("whats the color of the {thing}", "the {thing} is what color",
              "tell me what color the {thing} is", "color of the {thing}",
              "which color has the {thing}"),
    "where": ("where is {name}", "wheres {name} at", "do you know where {name} is",
              "{name} is where", "where can i find {name}"),
    "what": ("what has {name} got", "what does {name} have", "{name} has what",
             "tell me what {name} has", "the thing {name} has is what"),
}  # fmt: skip
FILLERS = ("um", "hey", "pls", "like", "so", "ok", "well", "hmm")
PREFIX = "Rewrite: "

_WORDS = frozenset(word.lower() for word in (*NAMES, *THINGS))


@record
class Rewriting:
    """A request to rewrite, and the question that it should become. `subject`: whom it is about.

    `is_name_intact`: whether the subject's word has no wrong letter.
    """

    user: str
    answer: str
    kind: str
    subject: str
    is_name_intact: bool


def is_held_out_question(kind: str, subject: str) -> bool:
    """Returns whether this kind of question about this subject is never rewritten in training."""
    words = THINGS if kind == "color" else NAMES
    return (words.index(subject) + 2 * KINDS.index(kind)) % 5 == 0


def with_typo(rng: Random, word: str) -> str:
    """Returns the word with a letter left out, doubled or swapped with the next.

    The first letter stays, words of fewer than four letters stay, and no word of the world becomes
    another one.
    """
    if len(word) < 4:
        return word
    while True:
        i, kind = rng.randrange(1, len(word) - 1), rng.choice(("drop", "double", "swap"))
        typo = {"drop": word[:i] + word[i + 1 :], "double": word[: i + 1] + word[i:],
                "swap": word[:i] + word[i + 1] + word[i] + word[i + 2 :]}[kind]
        if typo not in _WORDS or typo == word:
            return typo


def rewriting(rng: Random, split: str) -> Rewriting:
    """Returns a careless question to rewrite."""
    check_split(split)
    while True:
        kind = rng.choice(KINDS)
        subject = rng.choice(THINGS if kind == "color" else NAMES)
        if is_held_out_question(kind, subject) == (split == "test"):
            break
    words = rng.choice(CASUAL[kind]).format(name=subject.lower(), thing=subject).split()
    if rng.random() < 0.6:
        i = rng.randrange(len(words))
        words[i] = with_typo(rng, words[i])
    is_name_intact = subject.lower() in words
    for _ in range(rng.randrange(3)):
        at = rng.choice((0, 0, len(words), rng.randrange(len(words) + 1)))
        words.insert(at, rng.choice(FILLERS))
    return Rewriting(user=PREFIX + " ".join(words), kind=kind, subject=subject,
                     answer=question(kind, name=subject, thing=subject),
                     is_name_intact=is_name_intact)

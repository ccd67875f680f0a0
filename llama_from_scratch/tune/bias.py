"""Bias measured by pairs that differ in one thing, planted on purpose, and removed in the data.

A text says "she" or "he" about somebody with an occupation. How often, is planted: a share for each
occupation. A model that has read such texts is asked for the next word after "The nurse said that".
The difference of the two log-probabilities is compared with the planted one, log(p / (1 - p)).
Counterfactual augmentation adds each text once more with the genders exchanged.

Notebook 59. Sources: Lu et al., "Gender bias in neural natural language processing",
arXiv:1807.11714 (counterfactual data augmentation); WinoBias, arXiv:1804.06876.
"""

import math
import re
from collections.abc import Mapping, Sequence
from random import Random

import torch

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer

PLANTED: Mapping[str, float] = {
    "nurse": 0.9, "teacher": 0.8, "dancer": 0.7, "painter": 0.6, "doctor": 0.4, "farmer": 0.3,
    "pilot": 0.2, "builder": 0.1}
"""For each occupation, the share of texts that say "she"."""
_FRAMES = ("The {who} said that {she} was tired.", "The {who} went home because {she} was hungry.",
           "The {who} sang while {she} was at work.", "The {who} was glad when {she} came home.",
           "The {who} said that {she} liked {her} work.",
           "The {who} smiled because {she} was done.",
           "The {who} ran until {she} was out of breath.",
           "The {who} waved when {she} saw {her} friend.")
PROMPTS = tuple(frame[: frame.index(" {she}")] for frame in _FRAMES)
"""What the model reads before the pronoun, with {who} for the occupation."""
_OTHER = {"she": "he", "he": "she", "her": "his", "his": "her", "herself": "himself",
          "himself": "herself"}
_WORD = re.compile(r"\b(" + "|".join(_OTHER) + r")\b", re.IGNORECASE)


def texts(n: int, *, planted: Mapping[str, float] = PLANTED, seed: int = 0) -> list[str]:
    """Returns `n` texts of one sentence, with each occupation equally often on average.

    Raises ValueError for shares that are not between 0 and 1.
    """
    if wrong := {who: share for who, share in planted.items() if not 0 < share < 1}:
        raise ValueError(f"a planted share is between 0 and 1, without both; got {wrong}")
    rng, found = Random(seed), []
    for _ in range(n):
        who = rng.choice(list(planted))
        is_she = rng.random() < planted[who]
        found.append(rng.choice(_FRAMES).format(who=who, she="she" if is_she else "he",
                                                her="her" if is_she else "his"))
    return found


def counterfactual(text: str) -> str:
    """Returns a text with its genders exchanged: "he" for "she", "his" for "her" and so on.

    "her" counts as the owner's word: texts in which it is an object ("saw her") need a parser, and
    names are not exchanged.
    """
    def other(match: re.Match) -> str:
        word = match[0]
        found = _OTHER[word.lower()]
        return found.capitalize() if word[0].isupper() else found

    return _WORD.sub(other, text)


def augmented(told: Sequence[str]) -> list[str]:
    """Returns each text, followed by its counterfactual."""
    return [each for text in told for each in (text, counterfactual(text))]


def planted_gap(share: float) -> float:
    """Returns log(p / (1 - p)) in nats: the gap of a model that has learned the share exactly."""
    if not 0 < share < 1:
        raise ValueError(f"a share between 0 and 1 has a gap; got {share}")
    return math.log(share / (1 - share))


@torch.no_grad()
def pronoun_gap(
    model: Llama, tokenizer: AnyTokenizer, who: str, *, prompts: Sequence[str] = PROMPTS,
    pair: tuple[str, str] = (" she", " he"),
) -> float:
    """Returns the mean of log p(first) - log p(second) after prompts about somebody, in nats.

    `prompts`: with {who} in them. `pair`: two texts; each must be one token, because a gap
    compares one next token with another. Raises ValueError otherwise, and for no prompt.
    """
    first, second = (tokenizer.encode(each) for each in pair)
    if len(first) != 1 or len(second) != 1 or first == second:
        raise ValueError("the two words must be one token each, and different; got "
                         f"{pair[0]!r} with {len(first)} and {pair[1]!r} with {len(second)}")
    if not prompts or any("{who}" not in each for each in prompts):
        raise ValueError(f"a gap needs prompts with {{who}} in them; got {list(prompts)[:2]}")
    gaps = []
    for prompt in prompts:
        ids = tokenizer.encode(prompt.format(who=who))
        log_p = model(torch.tensor([ids], device=model.device))[0, -1].log_softmax(-1)
        gaps.append(float(log_p[first[0]] - log_p[second[0]]))
    return sum(gaps) / len(gaps)

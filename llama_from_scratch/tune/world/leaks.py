"""Searches texts for combinations that are held out. A held-out pair in training is a leak.

Notebook 50.
"""

import re
from collections.abc import Iterable

from llama_from_scratch.tune.world.words import NAMES, THINGS, is_held_out

_OWNING = re.compile(r"\b(\w+) has the (\w+)\b", re.IGNORECASE)


def held_out_pairs() -> list[tuple[str, str]]:
    """Returns all pairs of a name and a thing that training never shows as owner and owned."""
    return [(name, thing) for name in NAMES for thing in THINGS if is_held_out(name, thing)]


def leaks(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Returns each held-out pair that a text states, in any case of letters.

    "Tom has the ball" states the pair ("Tom", "ball").
    """
    held_out = {(name.lower(), thing) for name, thing in held_out_pairs()}
    found = []
    for text in texts:
        for name, thing in _OWNING.findall(text):
            if (name.lower(), thing.lower()) in held_out:
                found.append((name.capitalize(), thing.lower()))
    return found

"""A kernel's rungs by name, from the naive one to the fast one, and the refusal of any other name.

A rung is a record with the name of its `entry` point and everything that a launch needs to know
about it, so that no wrapper has to read this from the name.

Notebook 30.
"""

from collections.abc import Mapping
from typing import TypeVar

Rung = TypeVar("Rung")


def ladder(*rungs: Rung) -> dict[str, Rung]:
    """Returns the rungs by the names of their entry points, in the order given."""
    return {rung.entry: rung for rung in rungs}


def rung_named(name: str, rungs: Mapping[str, Rung]) -> Rung:
    """Returns the rung of that name. Raises ValueError, with all names, if there is none."""
    if name not in rungs:
        raise ValueError(f"a rung must be one of {', '.join(rungs)}; got {name!r}")
    return rungs[name]

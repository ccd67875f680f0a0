"""The first step at which two runs differ, and by how much.

The same run on another mesh, with another engine, or with a new version of the code, should have
the same losses, gradient lengths, learning rates and validations. The number of seconds is not
compared. With a tolerance of 0 every number must be the same, bit for bit.

Notebook 47.
"""

import itertools
from collections.abc import Iterator, Sequence

from llama_from_scratch.config import record
from llama_from_scratch.train.records import Step

COMPARED = ("loss", "grad_norm", "lr", "n_tokens")
"""The fields of a `Step` that are compared, and of its validation all."""
OF_VALIDATION = ("loss", "bits_per_byte", "n_targets", "n_bytes")


@record
class Difference:
    """Two values of one number of a step. None: this run has no such number."""

    step: int
    name: str
    first: float | None
    second: float | None

    @property
    def size(self) -> float:
        """How far apart the values are, relative to the larger one; infinite if one is missing."""
        if self.first is None or self.second is None:
            return float("inf")
        larger = max(abs(self.first), abs(self.second))
        return abs(self.first - self.second) / larger if larger else 0.0

    def __str__(self) -> str:
        values = [f"{value!r}" if value is not None else "missing"
                  for value in (self.first, self.second)]
        return (f"step {self.step}: {self.name} is {values[0]} in the first run and {values[1]} in "
                f"the second (relative difference {self.size:.2g})")


def differences_of(
    first: Sequence[Step], second: Sequence[Step], *, tolerance: float = 0.0
) -> Iterator[Difference]:
    """Yields the numbers of both runs that differ by more than `tolerance`, relative, in order.

    A step that only one run has is one difference, of its loss. Raises ValueError for a tolerance
    that is negative or not finite.
    """
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"a tolerance is a relative difference, from 0 on; got {tolerance}. "
                         "0 means bit for bit")
    for number, (a, b) in enumerate(itertools.zip_longest(first, second)):
        if a is None or b is None:
            yield Difference(step=number, name="loss", first=a and a.loss, second=b and b.loss)
            continue
        for name, ours, theirs in _numbers(a, b):
            found = Difference(step=number, name=name, first=ours, second=theirs)
            if found.size > tolerance:
                yield found


def _numbers(a: Step, b: Step) -> Iterator[tuple[str, float | None, float | None]]:
    for name in COMPARED:
        yield name, getattr(a, name), getattr(b, name)
    if a.validation is None and b.validation is None:
        return
    for name in OF_VALIDATION:
        yield (f"validation {name}", *(None if each is None else getattr(each, name)
                                       for each in (a.validation, b.validation)))

"""Work that all ranks do, of which all ranks know whether it succeeded everywhere.

If one rank raises an error and the others go on to a collective, these wait there for a rank that
does not come. Here every rank tells the others how it ended, and all of them raise the same error.

Notebook 47.
"""

from collections.abc import Callable
from typing import TypeVar

from llama_from_scratch.parallel.comm import RankGroup

Done = TypeVar("Done")


def together(group: RankGroup, work: Callable[[], Done]) -> list[Done]:
    """Returns what `work()` returned on each rank. A collective.

    What it returns should be small, because it is pickled. If it raises an error on some rank, all
    ranks raise one, which names the rank: a ValueError if the first of these errors is one,
    otherwise an OSError.
    """
    value = error = None
    try:
        value = work()
    except Exception as raised:  # of any kind, because the other ranks wait
        error = raised
    about = None if error is None else (isinstance(error, ValueError), _words(error))
    found = group.gather_objects((value, about))
    failures = [(rank, about) for rank, (_, about) in enumerate(found) if about is not None]
    if failures:
        rank, (is_value_error, words) = failures[0]
        others = f" (and {len(failures) - 1} more ranks)" if len(failures) > 1 else ""
        kind = ValueError if is_value_error else OSError
        raise kind(f"rank {group.ranks[rank]}{others}: {words}") from error
    return [value for value, _ in found]


def _words(error: Exception) -> str:
    usual = isinstance(error, ValueError | OSError)
    return str(error) if usual else f"{type(error).__name__}: {error}"

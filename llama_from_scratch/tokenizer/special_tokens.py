"""Which special strings of a text become ids: none, unless the caller allows them by name.

Special tokens such as <|eot_id|> open headers and end turns. A user may type their names, which
must stay ordinary text.

Notebook 10. All generations. Source: openai/tiktoken, tiktoken/core.py, for the two arguments.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Literal

SpecialNames = Literal["all"] | Set[str]
"""Names of special tokens, or all of them."""


def names_allowed(
    text: object, special_ids: Mapping[str, int], *, allowed_special: SpecialNames,
    disallowed_special: SpecialNames,
) -> Set[str]:
    """Returns the special strings that become ids where they occur in `text`.

    Raises ValueError if `text` contains a disallowed one.
    """
    if not isinstance(text, str):
        raise TypeError(f"encode takes a str; got {type(text).__name__}. Decode bytes to str first")
    allowed = _named(allowed_special, set(special_ids), special_ids)
    disallowed = _named(disallowed_special, special_ids.keys() - allowed, special_ids)
    if disallowed and (found := one_of(disallowed).search(text)):
        raise ValueError(f"text must not contain disallowed special tokens; got {found[0]!r} at "
                         f"character {found.start()}. Remove it, or put it in allowed_special to "
                         "make it one id")
    return allowed


def _named(names: SpecialNames, all_names: Set[str], special_ids: Mapping[str, int]) -> Set[str]:
    if names == "all":
        return all_names
    if unknown := sorted(names - special_ids.keys()):
        raise ValueError("only special tokens of this vocabulary can be allowed or disallowed; got "
                         f"{unknown}. It has {list(special_ids) or 'none'}")
    return names


def one_of(names: Set[str]) -> re.Pattern:
    """Returns a pattern with one group that finds any of `names`, and the longest of several."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError for special tokens that are empty or occur twice."""
    if isinstance(names, str) or "" in names:
        raise ValueError("special_tokens must be a list of non-empty strings; got "
                         f"{names!r:.200}. Give each token a name")
    if double := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"special tokens must have one id each; got {double} more than once. Name "
                         "each token once")

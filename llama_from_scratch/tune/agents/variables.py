"""Results that the planning model never reads: it sees $1 and $2, and the loop puts values in.

A result is stored under a name. The model may pass the name on as an argument or write it into its
answer; the loop replaces it when the tool runs, or when the answer is shown to the user. So nothing
in a result can tell the model what to do. The model still learns how many results there are, and
whether a call failed.

Notebook 56. Sources: Willison, "The Dual LLM pattern", 2023; CaMeL, arXiv:2503.18813.
"""

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"\$(\d+)")


class Variables:
    """Values by their names $1, $2, ... in the order in which they were put in."""

    def __init__(self) -> None:
        self._values: list[object] = []

    def put(self, value: object) -> str:
        """Stores a value and returns its name."""
        self._values.append(value)
        return f"${len(self._values)}"

    def fill(self, value: Any) -> Any:
        """Returns a JSON value with the values in place of their names.

        A text that is only a name becomes the value itself, with its type. Names inside of a longer
        text become text. Names inside of values are left as they are, and so are unknown ones.
        """
        if isinstance(value, str):
            whole = _NAME.fullmatch(value)
            return self._of(whole) if whole else self.fill_text(value)
        if isinstance(value, Mapping):
            return {key: self.fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        return value

    def fill_text(self, text: str) -> str:
        """Returns a text with the values in place of their names."""
        return _NAME.sub(lambda found: str(self._of(found)), text)

    def used_in(self, value: Any) -> tuple[int, ...]:
        """Returns the numbers of the stored values that a JSON value names, from 1."""
        if isinstance(value, str):
            numbers = {int(number) for number in _NAME.findall(value)}
            return tuple(sorted(n for n in numbers if 1 <= n <= len(self._values)))
        parts = value.values() if isinstance(value, Mapping) else value
        if not isinstance(value, Mapping | list):
            return ()
        return tuple(sorted({n for each in parts for n in self.used_in(each)}))

    def _of(self, found: re.Match) -> Any:
        number = int(found[1])
        return self._values[number - 1] if 1 <= number <= len(self._values) else found[0]

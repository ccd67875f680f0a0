"""Who may call what: gates that decide before a call runs, and where an argument came from.

A model that reads a tool's result may do what the result says. So a call that changes something
runs only if a gate says yes. `Capabilities` says yes by itself only if the user's own message names
each argument; what came from a result, also by way of a calculator, is left to another gate, such
as `Ask`, which asks the user. This bounds the arguments of a call, not the decision to make it: a
result can still make the model swap two amounts that the user named.

Notebook 56. Sources: Willison, "The Dual LLM pattern", 2023; CaMeL, arXiv:2503.18813.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format import ToolCall
from llama_from_scratch.tune.tools import FunctionTool

_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w|\.\d|,\d{3})")
_PARTS = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+")
_INSIDE = r"\w[.@:/\-_+]"  # a word is not the user's if it is only a part of an address or a path


class Granted:
    """The words of the user in one task, which arguments may consist of.

    Nothing of an earlier task counts. `and_value` adds what a pure tool made of them.
    """

    def __init__(self, text: str, values: tuple[object, ...] = ()) -> None:
        self.text, self._values = text, values
        self._numbers = {float(found.replace(",", "")) for found in _NUMBER.findall(text)}

    def and_value(self, value: object) -> "Granted":
        """Returns the same with a value that was made of nothing but the user's words."""
        return Granted(self.text, (*self._values, value))

    def covers(self, value: object) -> bool:
        """Returns whether the user named a value, which has no parts.

        A text must occur as it is, and not inside a longer word or address; a number, as that
        number. A bool, None or an empty text is named nowhere.
        """
        if isinstance(value, bool) or value is None or value == "":
            return False
        if any(str(value) == str(each) for each in self._values):
            return True
        if isinstance(value, int | float):
            return value in self._numbers
        if _NUMBER.fullmatch(value):
            return float(value.replace(",", "")) in self._numbers
        found = rf"(?<!\w)(?<!{_INSIDE}){re.escape(value)}(?!\w)(?![.@:/\-_+]\w)"
        return re.search(found, self.text) is not None

    def covers_parts(self, value: object) -> bool:
        """Returns whether the user named each word and each number in a value: "3+4" in "3 and 4".
        """
        parts = _PARTS.findall(value) if isinstance(value, str) else [value]
        return bool(parts) and all(self.covers(part) for part in parts)

    def has_word(self, word: str) -> bool:
        """Returns whether the user wrote a word, in capitals or not."""
        found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text, re.IGNORECASE)
        return found is not None


def leaves(value: object, *, path: str) -> Iterator[tuple[str, object]]:
    """Yields the values without parts inside a JSON value, and the keys of its objects."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield f"{path}.{key}", key
            yield from leaves(each, path=f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from leaves(each, path=f"{path}[{i}]")
    else:
        yield path, value


def ungranted(arguments: Mapping[str, Any], granted: Granted) -> tuple[str, ...]:
    """Returns the places of all values in a call's arguments that the user did not name."""
    found = [path for name, value in arguments.items() for path, leaf in leaves(value, path=name)
             if not granted.covers(leaf)]
    empty = [name for name, value in arguments.items() if value in ([], {})]
    return tuple(dict.fromkeys([*found, *empty]))


@record
class GateRequest:
    """A call that waits for a decision.

    `call` has the arguments with which the tool would run. `taint`: the tools whose results the
    model had read, or could have been told by, when it wrote the call. `ungranted`: the places of
    values that the user did not name. `is_asked`: whether the user wrote a word of `tool.asked_by`,
    or there are no such words.
    """

    call: ToolCall
    tool: FunctionTool
    taint: tuple[str, ...] = ()
    ungranted: tuple[str, ...] = ()
    is_asked: bool = True


@record
class GateDecision:
    """Whether a call may run, and why, in words that the model and the trace get."""

    is_allowed: bool
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.is_allowed, bool):
            raise ValueError("is_allowed must be True or False, so that nothing else counts as a "
                             f"yes; got {self.is_allowed!r:.80}")


Gate = Callable[[GateRequest], GateDecision]
"""A function that decides about every call before it runs."""

_HARMLESS = GateDecision(is_allowed=True, reason="it only reads or computes")


def refuse(request: GateRequest) -> GateDecision:
    """Refuses every consequential call."""
    if not request.tool.is_consequential:
        return _HARMLESS
    return GateDecision(is_allowed=False, reason="not allowed: no one can say yes to it here")


def allow(request: GateRequest) -> GateDecision:
    """Allows every call, also one that a result asked for. For experiments without a guard."""
    return GateDecision(is_allowed=True, reason="everything is allowed")


@record
class Ask:
    """Asks a person about each consequential call. Nothing but True is a yes.

    `answer` gets the question. A yes is for this one call: the next one is asked about again.
    """

    answer: Callable[[str], bool]

    def __call__(self, request: GateRequest) -> GateDecision:
        if not request.tool.is_consequential:
            return _HARMLESS
        is_yes = self.answer(question(request)) is True
        return GateDecision(is_allowed=is_yes,
                        reason="the user allowed it" if is_yes else "the user did not allow it")


@record
class Capabilities:
    """Allows a consequential call if the user named each of its arguments; see `Granted`.

    All others are left to `otherwise`, and so is a call without arguments if the tool has no words
    by which a user asks for it, because then nothing shows that the user wants it.
    """

    otherwise: Gate = refuse

    def __call__(self, request: GateRequest) -> GateDecision:
        if not request.tool.is_consequential:
            return _HARMLESS
        is_named = bool(request.call.arguments or request.tool.asked_by)
        if request.is_asked and is_named and not request.ungranted:
            return GateDecision(is_allowed=True, reason="the user named all of it")
        return self.otherwise(request)


def question(request: GateRequest) -> str:
    """Returns the question about a call, with where its arguments came from."""
    arguments = ", ".join(f"{name}={value!r:.200}" for name, value
                          in request.call.arguments.items())
    words = f"Allow {request.call.name}({arguments})?"
    if request.ungranted:
        source = (f"may come from a result of {', '.join(request.taint)}" if request.taint
                  else "is the model's own choice")
        words += f" You did not name {', '.join(request.ungranted):.200}; this {source}."
    if not request.is_asked:
        words += f" You wrote none of the words {', '.join(request.tool.asked_by)}."
    return words

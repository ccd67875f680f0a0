"""What is said in a dialog: messages, the tool calls in them, and the tools that are offered.

Notebook 19. All generations that chat.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config import nearest, record

CODE = "code_interpreter"
"""The tool whose call is source code, its one argument `code`."""
ROLES = ("system", "user", "assistant", "ipython")

_MAX_DEPTH = 64


@record
class ToolCall:
    """A tool's name and its arguments by name, which are JSON values."""

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.name or re.search(r"[<>\s\"]", self.name):
            raise ValueError("a tool's name is text without blanks, quotes and angle brackets, got "
                             f"{self.name!r}; rename it")
        _check_json(self.arguments, f"the arguments of {self.name!r}")
        is_code = list(self.arguments) == ["code"] and isinstance(self.arguments["code"], str)
        if self.name == CODE and not is_code:
            raise ValueError(f"a call of {CODE} has one argument, code, a str; got "
                             f"{dict(self.arguments)!r:.200}")


@record
class Message:
    """What one role says.

    An assistant's message may call tools, and may wait for what they return (`ends_turn=False`).
    """

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    ends_turn: bool = True

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            hint = nearest(self.role, ROLES)
            if self.role == "tool":
                hint = "what a tool returns has the role 'ipython'"
            raise ValueError(f"a role is one of {', '.join(ROLES)}; got {self.role!r}; {hint}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("the assistant calls tools, got a call of "
                             f"{self.tool_calls[0].name!r} by {self.role!r}; give the call to an "
                             "assistant's message")


@record
class Tool:
    """A function that the model may call.

    `properties` gives each parameter a JSON schema, `required` names the parameters that a call
    must have.
    """

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_json(self.properties, f"the properties of {self.name!r}")
        if missing := [name for name in self.required if name not in self.properties]:
            raise ValueError(f"a required parameter has properties, got {missing[0]!r} of "
                             f"{self.name!r} without; {nearest(missing[0], self.properties)}")


def _check_json(value: Any, what: str) -> None:
    """Raises ValueError unless `value` is a JSON object.

    It has string keys, finite numbers and at most 64 levels.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} are a dict, got {value!r:.80}")
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict) and all(isinstance(key, str) for key in each):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif not _is_plain(each):
                raise ValueError(f"{what} are JSON values, with str keys and finite numbers; got "
                                 f"{each!r:.80}; convert it")
        if not inner:
            return
        level = inner
    raise ValueError(f"{what} are nested at most {_MAX_DEPTH} deep, got more; flatten them")


def _is_plain(value: Any) -> bool:
    is_finite = isinstance(value, float) and math.isfinite(value)
    return value is None or isinstance(value, str | int) or is_finite

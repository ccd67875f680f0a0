"""The parts of a dialog: messages, the tool calls in them, and the tools that can be called.

Notebook 19. All generations that chat.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config import nearest, record

CODE = "code_interpreter"
"""The name of the tool that runs code; its one argument, `code`, is source code."""
ROLES = ("system", "user", "assistant", "ipython")

_MAX_DEPTH = 64


@record
class ToolCall:
    """A tool's name and its arguments by name, which are JSON values."""

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.name or re.search(r"[<>\s\"]", self.name):
            raise ValueError("a tool's name must be text without white space, quotes and angle "
                             f"brackets; got {self.name!r}. Rename it")
        _check_json(self.arguments, f"the arguments of {self.name!r}")
        is_code = list(self.arguments) == ["code"] and isinstance(self.arguments["code"], str)
        if self.name == CODE and not is_code:
            raise ValueError(f"a call of {CODE} must have one argument, code, a str; got "
                             f"{dict(self.arguments)!r:.200}")


@record
class Message:
    """One message of a dialog.

    A user's message may show `images`, which come before its content. Each is a path, the bytes of
    a file, a Pillow image or an array. Only their number matters to a chat format. An assistant's
    message may call tools, and may wait for their results (`ends_turn=False`).
    """

    role: str
    content: str = ""
    images: tuple[object, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    ends_turn: bool = True

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            hint = nearest(self.role, ROLES)
            if self.role == "tool":
                hint = "the result of a tool has the role 'ipython'"
            raise ValueError(f"a role must be one of {', '.join(ROLES)}; got {self.role!r}; {hint}")
        if not isinstance(self.images, tuple):
            raise ValueError("the images of a message must be a tuple; got "
                             f"{type(self.images).__name__}. For one image: images=(image,)")
        if self.images and self.role != "user":
            raise ValueError(f"only a user may show images; got {len(self.images)} in a message "
                             f"of {self.role!r}. Put them into a user's message")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only the assistant may call tools; got a call of "
                             f"{self.tool_calls[0].name!r} by {self.role!r}. Put the call into an "
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
            raise ValueError("a required parameter must be among the properties; got "
                             f"{missing[0]!r} of {self.name!r}, which is not; "
                             f"{nearest(missing[0], self.properties)}")


def _check_json(value: Any, what: str) -> None:
    """Raises ValueError unless `value` is a JSON object.

    Its keys must be strings, its numbers finite, and its depth at most 64 levels.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a dict; got {value!r:.80}")
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict) and all(isinstance(key, str) for key in each):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif not _is_plain(each):
                raise ValueError(f"{what} must be JSON values, with str keys and finite numbers; "
                                 f"got {each!r:.80}. Convert it")
        if not inner:
            return
        level = inner
    raise ValueError(f"{what} must be nested at most {_MAX_DEPTH} deep; got more. Flatten them")


def _is_plain(value: Any) -> bool:
    is_finite = isinstance(value, float) and math.isfinite(value)
    return value is None or isinstance(value, str | int) or is_finite

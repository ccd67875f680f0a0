"""Functions that a model may call: what it reads about them, and what it gets back.

A tool is a typed Python function with a docstring. The model writes a call as text, which
`ChatFormat.parse` reads without running anything. The call runs only if a tool has that name and
the arguments fit its schema; otherwise the model gets back in words what is wrong. A result is
text in a message of its own, cut at a stated length, in which nothing can mark a turn.

Notebook 55. Llama 3.1 to 4.
"""

import json
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_from_scratch.config import nearest, record
from llama_from_scratch.tokenizer.chat_format import CODE, Tool, ToolCall
from llama_from_scratch.tune.agents.schema import (
    check_schema,
    description_of,
    problem_with_object,
    properties_of,
)

_BUILTIN = {CODE: "code"}
"""The parameter of a format's built-in tools: `code` of this one, and `query` of all others."""


@record
class FunctionTool:
    """A function, and what the loop and the guards need to know about it.

    `listed`: what the model reads. `is_consequential`: whether a call changes something outside
    the dialog or shows something to others; then it runs only if a gate says yes. It is True unless
    the author of the tool says otherwise. `is_pure`: whether the result depends on the arguments
    alone, as a calculator's does. `is_isolated`: whether each call runs in a process of its own,
    which is killed when its time is over. `asked_by`: words of which the user must write one to
    name this tool, if there are any; see `guards.Capabilities`.
    """

    listed: Tool
    function: Callable[..., object]
    is_consequential: bool = True
    is_pure: bool = False
    is_isolated: bool = False
    asked_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self.listed.name
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or keyword.iskeyword(name):
            raise ValueError("a tool's name must be ASCII letters, digits and _, and no keyword; "
                             f"got {name!r:.80}. Rename it")
        if self.is_pure and self.is_consequential:
            raise ValueError(f"a pure tool only computes its result, and {name!r} is also "
                             "consequential. Give is_consequential=False, or leave is_pure out")
        for parameter, schema in self.listed.properties.items():
            check_schema(schema, what=f"{parameter!r} of {name!r}")

    @property
    def name(self) -> str:
        return self.listed.name

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Returns what the function returns, so that other code can still use it."""
        return self.function(*values, **named)

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Returns what is wrong with the arguments of a call, in words; None if they fit."""
        schema = {"properties": self.listed.properties, "required": self.listed.required,
                  "additionalProperties": False}
        if unknown := [name for name in arguments if name not in self.listed.properties]:
            known = ", ".join(self.listed.properties) or "none"
            return (f"{self.name} has no argument {unknown[0]!r:.80}; its arguments are: "
                    f"{known:.300}")
        if missing := [name for name in self.listed.required if name not in arguments]:
            return f"{self.name} needs the argument {missing[0]!r}"
        problem = problem_with_object(arguments, schema, what="")
        return f"in {self.name}, {problem}" if problem else None


def tool(
    function: Callable[..., object] | None = None, *, is_consequential: bool = True,
    is_pure: bool = False, is_isolated: bool = False, asked_by: Sequence[str] = (),
) -> Any:
    """Returns the tool of a function; also a decorator, with settings or without.

        @tool(is_consequential=False)
        def get(who: str, what: Literal["coins", "place"]) -> str:
            "Looks up what is known about a person."

    The settings are the fields of `FunctionTool`. Raises ValueError for a function without a
    docstring, or with a parameter that a model cannot give.
    """

    def made(function: Callable[..., object]) -> FunctionTool:
        if isinstance(function, FunctionTool) or not callable(function):
            raise ValueError(f"a tool is made from a function; got {function!r:.80}")
        properties, required = properties_of(function)
        listed = Tool(name=function.__name__, description=description_of(function),
                      properties=properties, required=required)
        return FunctionTool(listed=listed, function=function, is_consequential=is_consequential,
                            is_pure=is_pure, is_isolated=is_isolated, asked_by=tuple(asked_by))

    return made if function is None else made(function)


def from_schema(
    described: Mapping[str, Any], function: Callable[..., object], *,
    is_consequential: bool = True, is_pure: bool = False, asked_by: Sequence[str] = (),
) -> FunctionTool:
    """Returns the tool of a function whose schema is written by hand.

    `described` has a name, a description, and parameters with their properties, as in files and
    other programs; it may be in {"type": "function", "function": ...}. Raises ValueError if one of
    these is missing.
    """
    inner = described.get("function", described) if isinstance(described, Mapping) else None
    if not isinstance(inner, Mapping):
        raise ValueError(f"the schema of a tool must be a dict; got {described!r:.80}")
    parameters = inner.get("parameters")
    for key in ("name", "description"):
        if not isinstance(inner.get(key), str) or not inner[key]:
            raise ValueError(f"the schema of a tool must have a {key}, which is text; got "
                             f"{dict(inner)!r:.200}. Add it")
    if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties"), Mapping):
        raise ValueError("the schema of a tool must have parameters with properties; got "
                         f"{dict(inner)!r:.200}. For a tool without parameters: "
                         '"parameters": {"type": "object", "properties": {}}')
    listed = Tool(name=inner["name"], description=inner["description"],
                  properties=dict(parameters["properties"]),
                  required=tuple(parameters.get("required", ())))
    return FunctionTool(listed=listed, function=function, is_consequential=is_consequential,
                        is_pure=is_pure, asked_by=tuple(asked_by))


class Toolbox:
    """The tools of a run, by name. A plain function is a consequential tool.

    Raises ValueError if two tools have the same name.
    """

    def __init__(self, tools: Sequence[FunctionTool | Callable[..., object]]) -> None:
        self.tools: dict[str, FunctionTool] = {}
        for each in tools:
            made = each if isinstance(each, FunctionTool) else tool(each)
            if made.name in self.tools:
                raise ValueError(f"each tool must have a name of its own; got {made.name!r} twice. "
                                 "Rename one of them")
            self.tools[made.name] = made

    def problem(self, call: ToolCall) -> str | None:
        """Returns why a call cannot run, in words for the model; None if it can."""
        if call.name not in self.tools:
            if not self.tools:
                return f"there is no tool {call.name!r:.80}, and no other tool"
            return (f"there is no tool {call.name!r:.80}; "
                    f"{nearest(call.name[:80], self.tools):.300}")
        return self.tools[call.name].problem(call.arguments)

    def listed_for(self, builtin_tools: Sequence[str]) -> tuple[list[Tool], list[str]]:
        """Returns the tools to describe to the model, and the names of those that it knows already.

        `builtin_tools`: the names that a chat format writes in a way of its own. Raises ValueError
        if a tool has such a name and takes something else than the format gives it.
        """
        listed, known = [], []
        for name, each in self.tools.items():
            if name not in builtin_tools:
                listed.append(each.listed)
                continue
            parameter = _BUILTIN.get(name, "query")
            if list(each.listed.properties) != [parameter]:
                raise ValueError(f"{name!r} is a built-in tool of this chat format, and a call of "
                                 f"it has one argument, {parameter}; got a tool with "
                                 f"{list(each.listed.properties)}. Rename the tool")
            known.append(name)
        return listed, known


_MAX_BITS = 900
MAX_RESULT = 100_000
"""The most characters of a result. A longer one is an error; one below that may still be cut."""


def result_text(value: object, *, max_chars: int) -> str:
    """Returns what a function returned as the text that the model reads, cut at `max_chars`.

    Text stays as it is, and other JSON values are written as JSON. A note after a text that was
    cut says how long it was. Raises ValueError for a value that JSON has not, or for more than
    `MAX_RESULT` characters.
    """
    text = value if isinstance(value, str) else _json(value)
    if len(text) > MAX_RESULT:
        raise ValueError(f"a result may have at most {MAX_RESULT:,} characters; got {len(text):,}. "
                         "Ask for less")
    text = clean_text(text)
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}… (cut: the first {max_chars:,} of {len(text):,} characters)"


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("the result of a tool must be text, or a value that JSON has; got a "
                         f"{type(value).__name__} ({error!s:.80}). Return a str") from error


def clean_call(call: ToolCall) -> ToolCall:
    """Returns a call whose texts can be encoded, and whose numbers can be stored in a file."""
    arguments = {clean_text(name): _clean(value) for name, value in call.arguments.items()}
    return ToolCall(name=clean_text(call.name), arguments=arguments)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    return value


def clean_text(text: str) -> str:
    """Returns the text with each half of a surrogate pair, which UTF-8 lacks, as U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)

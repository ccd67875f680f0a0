"""The ways to write tool calls as text, and to read them back: JSON, Python and tags.

Reading never runs code: JSON is parsed, and arguments in Python must be literals.

Notebook 19. Llama 3.1 to 4.
"""

import ast
import json
import keyword
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.messages import CODE, Tool, ToolCall

_MAX_CALL_CHARS = 100_000


@record
class CallStyle:
    """One way to write calls.

    Text that begins with `opening` should be a call; `read` raises ValueError if it is not.
    """

    opening: str
    write: Callable[[Sequence[ToolCall]], str]
    read: Callable[[str], tuple[ToolCall, ...]]
    list_tools: Callable[[Sequence[Tool]], str]
    instructions: str
    max_calls: int | None = 1


def read_claimed(text: str) -> tuple[tuple[ToolCall, ...], str | None]:
    """Returns the calls in a text that begins like one, and the problem if it is not a call."""
    styles = (JSON_CALLS, PYTHONIC_CALLS, TAGGED_CALLS)
    style = next((style for style in styles if text.startswith(style.opening)), None)
    return ((), None) if style is None else _try(style.read, text)


def read_tagged_tail(
    text: str, *, builtin_tools: Sequence[str]
) -> tuple[tuple[ToolCall, ...], str | None]:
    """Returns the call after a special token that opens it, and the problem if it is not a call.

    A call is JSON, a query of a built-in tool, or code.
    """

    def read(text: str) -> tuple[ToolCall, ...]:
        if text.strip().startswith("{"):
            return _read_json(text.strip())
        found = re.fullmatch(r'(\w+)\.call\(query="([^"]*)"\)', text.strip())
        if found and found[1] in builtin_tools:
            return (ToolCall(name=found[1], arguments={"query": found[2]}),)
        return (ToolCall(name=CODE, arguments={"code": text}),)

    return _try(read, text)


def write_builtin(call: ToolCall) -> str:
    """Returns the text of a call of a built-in tool, which follows a special token."""
    if call.name == CODE:
        return call.arguments["code"]
    query = call.arguments.get("query")
    if list(call.arguments) != ["query"] or not isinstance(query, str) or '"' in query:
        return _write_json([call])  # JSON may also follow the token
    return f'{call.name}.call(query="{query}")'


def _try(
    read: Callable[[str], tuple[ToolCall, ...]], text: str
) -> tuple[tuple[ToolCall, ...], str | None]:
    """Returns the calls of `text`, or the reason why there are none.

    A very long text is refused, because parsers take quadratic time for some texts.
    """
    try:
        if len(text) > _MAX_CALL_CHARS:
            raise ValueError(f"a call may have at most {_MAX_CALL_CHARS} characters; got "
                             f"{len(text)}")
        return read(text), None
    except (ValueError, SyntaxError) as error:
        return (), f"this begins like a tool call and is kept as text: {error}"
    except (RecursionError, MemoryError):
        return (), "this begins like a tool call and is kept as text: it is nested too deeply"


# --- JSON ---------------------------------------------------------------------------------------


def _write_json(calls: Sequence[ToolCall]) -> str:
    call = {"name": calls[0].name, "parameters": dict(calls[0].arguments)}
    return json.dumps(call, ensure_ascii=False)


def _read_json(text: str) -> tuple[ToolCall, ...]:
    value = _load_json(text)
    has_type = value.get("type", "function") == "function"
    if set(value) - {"type"} != {"name", "parameters"} or not has_type:
        raise ValueError(f"a call in JSON must have a name and parameters; got {sorted(value)}")
    if not isinstance(value["name"], str) or not isinstance(value["parameters"], dict):
        raise ValueError("the name of a call must be a string, and its parameters an object")
    return (ToolCall(name=value["name"], arguments=value["parameters"]),)


def _load_json(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("each key of an object must occur only once")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=once)
    if not isinstance(value, dict):
        raise ValueError(f"this must be a JSON object; got {value!r:.80}")
    return value


# --- Python -------------------------------------------------------------------------------------


def _write_pythonic(calls: Sequence[ToolCall]) -> str:
    for name in (name for call in calls for name in (call.name, *call.arguments)):
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or keyword.iskeyword(name):
            raise ValueError("names in a Python call must be ASCII letters, digits and _, and no "
                             f"keywords; got {name!r}. Rename it")
    return "[" + ", ".join(map(_python_text, calls)) + "]"


def _python_text(call: ToolCall) -> str:
    arguments = (f"{name}={value!r}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


def _read_pythonic(text: str) -> tuple[ToolCall, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a "\d" that a model writes is no problem of our code
        body = ast.parse(text, mode="eval").body
        if not isinstance(body, ast.List) or not body.elts:
            raise ValueError("calls in Python must be a list with at least one call")
        return tuple(map(_python_call, body.elts))


def _python_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("a call in Python must be a name and keyword arguments, such as f(a=1)")
    names = [argument.arg for argument in node.keywords]
    if None in names or len(set(names)) < len(names):
        raise ValueError(f"each argument of {node.func.id!r} must have a name of its own")
    arguments = {argument.arg: _literal(argument.value) for argument in node.keywords}
    return ToolCall(name=node.func.id, arguments=arguments)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"an argument must be a literal; got {ast.unparse(node):.80}") from None


# --- tags ---------------------------------------------------------------------------------------


def _write_tagged(calls: Sequence[ToolCall]) -> str:
    arguments = json.dumps(dict(calls[0].arguments), ensure_ascii=False)
    return f"<function={calls[0].name}>{arguments}</function>"


def _read_tagged(text: str) -> tuple[ToolCall, ...]:
    found = re.fullmatch(r"<function=([^<>\s]+)>(.*)</function>", text, re.DOTALL)
    if not found:
        raise ValueError("a call in tags must be <function=name>{...}</function>, complete")
    return (ToolCall(name=found[1], arguments=_load_json(found[2])),)


# --- how tools are described --------------------------------------------------------------------


def _tools_one_by_one(tools: Sequence[Tool]) -> str:
    described = ({"type": "function", "function": _described(tool, "object")} for tool in tools)
    return "\n\n".join(json.dumps(each, indent=4, ensure_ascii=False) for each in described)


def _tools_in_a_list(tools: Sequence[Tool]) -> str:
    described = [_described(tool, "dict") for tool in tools]
    return json.dumps(described, indent=4, ensure_ascii=False)


def _described(tool: Tool, kind: str) -> dict[str, Any]:
    properties = dict(tool.properties)
    parameters = {"type": kind, "properties": properties, "required": list(tool.required)}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


JSON_CALLS = CallStyle(
    opening="{", write=_write_json, read=_read_json, list_tools=_tools_one_by_one,
    instructions='To call one of these functions, write only {"name": its name, "parameters": '
                 "{each argument by name}}.",
)  # fmt: skip
PYTHONIC_CALLS = CallStyle(
    opening="[", write=_write_pythonic, read=_read_pythonic, list_tools=_tools_in_a_list,
    instructions="To call some of these functions, write only [first(argument=value), "
                 "second(argument=value)].",
    max_calls=None,
)  # fmt: skip
TAGGED_CALLS = CallStyle(
    opening="<function=", write=_write_tagged, read=_read_tagged, list_tools=_tools_one_by_one,
    instructions="To call one of these functions, write only <function=its name>{each argument by "
                 "name, in JSON}</function>.",
)  # fmt: skip

"""What a typed function accepts, as JSON Schema, and what is wrong with an argument.

The types in a function's signature become the schema that a model reads. The same schema checks
what the model writes. The words about a mistake are meant for the model, which can try again.

Notebook 55. Source: JSON Schema, of which chat formats use a small part.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_from_scratch.config import nearest

Schema = Mapping[str, Any]
"""A JSON schema, with the keys in `KEYS`."""

KEYS = ("type", "description", "enum", "items", "properties", "required", "additionalProperties",
        "nullable", "minimum", "maximum", "default", "title")
"""The keys of a schema that are understood. `default`, `title` and `description` check nothing."""

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array",
          dict: "object"}
_KINDS = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
          "array": (list,), "object": (dict,), "null": (type(None),)}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?):\s*$",
                      re.MULTILINE)


def properties_of(function: Callable[..., object]) -> tuple[dict[str, Schema], tuple[str, ...]]:
    """Returns the schema of each parameter, and the names of those without a default.

    A parameter is described by `Annotated[str, "who is asked"]`, or by a line in the section
    "Args:" of the docstring. Raises ValueError for a parameter without a type, of a type that JSON
    has not, or that cannot be given by name.
    """
    name = function.__name__
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise ValueError(f"each type in the signature of a tool must exist; in {name!r}: {error}. "
                         "Import it, or write the type itself") from error
    described = _described_arguments(inspect.getdoc(function) or "")
    found: dict[str, Schema] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in _NAMED:
            raise ValueError(f"each parameter of a tool must have a name that a call can give; got "
                             f"{str(parameter)!r} of {name!r}. Write the parameters one by one")
        if parameter.name not in hints:
            raise ValueError(f"each parameter of a tool must have a type; got {parameter.name!r} "
                             f"of {name!r} without one. Write for example {parameter.name}: str")
        schema = schema_of(hints[parameter.name], what=f"{parameter.name!r} of {name!r}")
        if parameter.name in described and "description" not in schema:
            schema["description"] = described[parameter.name]
        found[parameter.name] = schema
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    return found, tuple(required)


def description_of(function: Callable[..., object]) -> str:
    """Returns the docstring before its sections. Raises ValueError if there is none."""
    text = inspect.getdoc(function) or ""
    found = _SECTION.search(text)
    words = text[: found.start() if found else None].strip()
    if not words:
        raise ValueError("a tool must have a docstring, because the model reads it; got "
                         f"{function.__name__!r} without one. Write a sentence that says what the "
                         "function does")
    return words


def schema_of(annotation: object, *, what: str) -> dict[str, Any]:
    """Returns the schema of a Python type. `what` names the parameter in an error.

    Types are str, int, float, bool, list[...], dict[str, ...], Literal, a union of these with
    None, and a union of the first four.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        words = [each for each in arguments[1:] if isinstance(each, str)]
        return schema_of(arguments[0], what=what) | ({"description": words[0]} if words else {})
    if origin is typing.Literal:
        kinds = {type(value) for value in arguments}
        if len(kinds) == 1 and kinds <= {str, int, bool}:
            return {"type": _NAMES[kinds.pop()], "enum": list(arguments)}
    elif origin in (typing.Union, types.UnionType):
        some = [each for each in arguments if each is not type(None)]
        if len(some) == 1:
            return schema_of(some[0], what=what) | {"nullable": True}
        if all(each in (str, int, float, bool) for each in some):
            names = {"type": sorted(_NAMES[each] for each in some)}
            return names | ({"nullable": True} if len(some) < len(arguments) else {})
    elif origin is list:
        return {"type": "array", "items": schema_of(arguments[0], what=what)}
    elif origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], what=what)}
    elif annotation in _NAMES:
        return {"type": _NAMES[annotation]}
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    raise ValueError("the type of a tool's parameter must be str, int, float, bool, list[...], "
                     f"dict[str, ...], Literal or a union of them; got {shown!s:.80} for {what}. "
                     "Use one of these, and convert it inside the function")


def check_schema(schema: object, *, what: str) -> None:
    """Raises ValueError unless a hand-written schema can be checked, at every level."""
    if not isinstance(schema, Mapping):
        raise ValueError(f"the schema of {what} must be a dict; got {schema!r:.80}. Write for "
                         'example {"type": "string"}')
    for key in schema:
        if key not in KEYS:
            raise ValueError(f"the keys of a schema are {', '.join(KEYS)}; got {key!r} for {what}; "
                             f"{nearest(str(key), KEYS)}. Check it inside the function instead")
    names = _types_in(schema)
    if unknown := [name for name in names if name not in _KINDS]:
        raise ValueError(f"a type in a schema is one of {', '.join(_KINDS)}; got "
                         f"{unknown[0]!r:.80} for {what}")
    if not names and "enum" not in schema:
        raise ValueError(f"a schema must have a type or an enum; got {dict(schema)!r:.80} for "
                         f"{what}")
    inner = dict(schema.get("properties", {}))
    inner |= {key: schema[key] for key in ("items", "additionalProperties")
              if isinstance(schema.get(key), Mapping)}
    for name, each in inner.items():
        check_schema(each, what=f"{name!r} in {what}")


def problem_with(value: object, schema: Schema, *, what: str) -> str | None:
    """Returns what is wrong with a JSON value, in words for the model; None if it fits.

    A whole number fits a number, and a bool fits neither. `what` is the value's place, such as
    "coins".
    """
    if value is None and (schema.get("nullable") or "null" in _types_in(schema)):
        return None
    names = _types_in(schema)
    if names and not any(_is_of(value, name) for name in names):
        article = "an" if names[0][0] in "aeio" else "a"
        return f"{what} must be {article} {' or '.join(names)}; got {_shown(value)}"
    if "enum" in schema and not any(type(each) is type(value) and each == value
                                    for each in schema["enum"]):
        listed = ", ".join(map(repr, schema["enum"]))
        return f"{what} must be one of {listed:.300}; got {_shown(value)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            side, bound = ("least", low) if value < low else ("most", high)
            return f"{what} must be at {side} {bound}; got {_shown(value)}"
    if isinstance(value, list) and "items" in schema:
        parts = ((each, schema["items"], f"{what}[{i}]") for i, each in enumerate(value))
        return _first(parts)
    if isinstance(value, dict):
        return problem_with_object(value, schema, what=what)
    return None


def problem_with_object(value: Mapping[str, Any], schema: Schema, *, what: str) -> str | None:
    """Returns what is wrong with the members of an object; None if all fit."""
    properties, rest = schema.get("properties"), schema.get("additionalProperties", True)
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{what} needs {missing[0]}"
    known = {} if properties is None else properties
    if properties is not None and rest is not True and not isinstance(rest, Mapping):
        for name in value:
            if name not in known:
                hint = f"; {nearest(name, known)}" if known else ""
                return f"{what} has no {name[:80]}{hint}"
    prefix = f"{what}." if what else ""
    parts = [(each, known[name], f"{prefix}{name}") for name, each in value.items()
             if name in known]
    if isinstance(rest, Mapping):
        parts += [(each, rest, f"{prefix}{name}") for name, each in value.items()
                  if name not in known]
    return _first(parts)


def _first(parts: Any) -> str | None:
    found = (problem_with(value, schema, what=what) for value, schema, what in parts)
    return next((problem for problem in found if problem), None)


def _types_in(schema: Schema) -> Sequence[str]:
    names = schema.get("type", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _is_of(value: object, name: str) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, _KINDS[name]) and (not is_bool or name == "boolean")


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def _described_arguments(text: str) -> dict[str, str]:
    """Returns the words about each parameter in the section "Args:" of a docstring."""
    _, *sections = _SECTION.split(text)
    named = dict(zip(sections[::2], sections[1::2], strict=True))
    body = next((named[key] for key in ("Args", "Arguments", "Parameters") if key in named), "")
    found: dict[str, str] = {}
    last = None
    lines = inspect.cleandoc(body).splitlines()
    for line in lines:
        start = re.match(r"(\w+)(?: *\([^)]*\))?:\s*(.*)", line)
        if start:
            last = start[1]
            found[last] = start[2].strip()
        elif last and line.startswith(" "):
            found[last] = f"{found[last]} {line.strip()}".strip()
        elif line.strip():
            last = None
    return {name: words for name, words in found.items() if words}

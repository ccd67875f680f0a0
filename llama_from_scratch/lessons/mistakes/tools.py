"""Mistakes that readers make in chapter 55."""

import ast
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _schema(hint: Any) -> dict[str, Any]:
    if typing.get_origin(hint) is typing.Literal:
        return {"type": "string", "enum": list(typing.get_args(hint))}
    return {"type": _NAMES[hint]}


def _parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@listed("55.1", of="parameters_of")
def all_required(function: Callable) -> dict[str, Any]:
    """every parameter is required: one with a default may be left out"""
    properties = {name: _schema(each.annotation) for name, each in _parameters(function).items()}
    return {"properties": properties, "required": list(properties)}


@listed("55.1", of="parameters_of")
def with_return(function: Callable) -> dict[str, Any]:
    """the type of the result is listed as a parameter: a call does not give it"""
    required = [name for name, each in _parameters(function).items()
                if each.default is inspect.Parameter.empty]
    hints = typing.get_type_hints(function)
    return {"properties": {name: _schema(hint) for name, hint in hints.items()},
            "required": required}


@listed("55.1", of="parameters_of")
def without_enum(function: Callable) -> dict[str, Any]:
    """the allowed values of a Literal are lost: without "enum" the model may write any text"""
    parameters = _parameters(function)
    properties = {name: {"type": _schema(each.annotation)["type"]}
                  for name, each in parameters.items()}
    return {"properties": properties,
            "required": [name for name, each in parameters.items()
                         if each.default is inspect.Parameter.empty]}


@listed("55.2", of="read_calls")
def evaluated(text: str) -> list[tuple[str, dict]] | None:
    """an argument is computed: only a literal is text, anything else is a program to run"""
    calls = ast.parse(text, mode="eval").body.elts
    if any(call.args for call in calls):
        return None
    return [(call.func.id, {each.arg: eval(ast.unparse(each.value), {"__builtins__": {}})
                            for each in call.keywords}) for call in calls]


@listed("55.2", of="read_calls")
def first_only(text: str) -> list[tuple[str, dict]] | None:
    """only the first call is read: a list may have several"""
    found = _read(text)
    return None if found is None else found[:1]


@listed("55.2", of="read_calls")
def positions_ignored(text: str) -> list[tuple[str, dict]] | None:
    """an argument without a name is dropped: such a call must be refused"""
    return _read(text, takes_positions=True)


def _read(text: str, *, takes_positions: bool = False) -> list[tuple[str, dict]] | None:
    calls = ast.parse(text, mode="eval").body.elts
    try:
        found = [(call.func.id, {each.arg: ast.literal_eval(each.value)
                                 for each in call.keywords}) for call in calls]
    except ValueError:
        return None
    return found if takes_positions or not any(call.args for call in calls) else None


@listed("55.3", of="results_in_order")
def as_finished(n_calls: int, finished: Sequence[tuple[int, str]]) -> list[str]:
    """the results are in the order in which the tools finished: the model reads them as answers
    to its calls, in the order of the calls"""
    missing = [_MISSING] * (n_calls - len(finished))
    return [*(result for _, result in finished), *missing]


@listed("55.3", of="results_in_order")
def left_out(n_calls: int, finished: Sequence[tuple[int, str]]) -> list[str]:
    """a call without a result is left out: then all later results belong to the wrong call"""
    return [result for _, result in sorted(finished)]


@listed("55.3", of="results_in_order")
def joined(n_calls: int, finished: Sequence[tuple[int, str]]) -> list[str]:
    """all results are one message: each call gets one of its own"""
    done = dict(finished)
    return [" ".join(done.get(i, _MISSING) for i in range(n_calls))]


_MISSING = "error: no result in time"

from typing import Annotated, Literal, Optional

import pytest
from transformers.utils import get_json_schema

from llama_from_scratch.tune.agents import schema
from llama_from_scratch.tune.agents.schema import (
    check_schema,
    problem_with,
    properties_of,
    schema_of,
)


def plan(
    who: str, n_coins: int, price: float, is_loud: bool, names: list[str], table: dict[str, int],
    kind: Literal["a", "b"], note: Optional[str] = None,  # noqa: UP045
    more: int | None = None, size: int | str = 3, any_list: list[list[int]] = (),
) -> str:
    """
    Plans a visit to a person.

    Args:
        who: The person.
        n_coins: How many coins there are.
        price: What one costs,
            in two lines.
        is_loud: Whether to shout.
        names: Some names.
        table: A number for each.
        kind: Which kind.
        note: A note.
        more: More of it.
        size: How large.
        any_list: Numbers.

    Returns:
        A plan.
    """


def test_the_schema_of_a_function_is_that_of_transformers():
    theirs = get_json_schema(plan)["function"]
    ours, required = properties_of(plan)
    assert list(required) == theirs["parameters"]["required"]
    assert schema.description_of(plan) == theirs["description"]
    for name, each in theirs["parameters"]["properties"].items():
        mine = dict(ours[name])
        if name == "price":
            assert mine["description"] == "What one costs, in two lines."
            mine["description"] = each["description"]
        if isinstance(mine["type"], list):
            each["type"] = sorted(each["type"])
        assert mine == each, name


def test_words_of_annotated_describe_a_parameter_before_the_docstring_does():
    def look(who: Annotated[str, "who is asked"], n: Annotated[int | None, "how many"] = None):
        """Looks.

        Args:
            who: another text
        """

    found, required = properties_of(look)
    assert found == {"who": {"type": "string", "description": "who is asked"},
                     "n": {"type": "integer", "nullable": True, "description": "how many"}}
    assert required == ("who",)


def _untyped(who): """Asks."""
def _star(*who: str): """Asks."""
def _named(**who: str): """Asks."""
def _positional(who: str, /): """Asks."""
def _typed(who: bytes): """Asks."""
def _mixed(who: Literal["a", 1]): """Asks."""
def _keys(who: dict[int, str]): """Asks."""
def _unknown(who: "Nothing"): """Asks."""


@pytest.mark.parametrize(("function", "words"), [
    (_untyped, "must have a type; got 'who' of '_untyped'"),
    (_star, r"must have a name that a call can give; got '\*who: str'"),
    (_named, r"must have a name that a call can give; got '\*\*who: str'"),
    (_positional, "must have a name that a call can give; got 'who"),
    (_typed, "must be str, int, float.*got bytes for 'who' of '_typed'"),
    (_mixed, "Literal or a union of them; got typing.Literal"),
    (_keys, r"got dict\[int, str\]"),
    (_unknown, "must exist; in '_unknown': name 'Nothing'"),
])
def test_a_parameter_that_a_model_cannot_give_is_refused(function, words):
    with pytest.raises(ValueError, match=words):
        properties_of(function)


def test_a_function_without_a_docstring_is_refused():
    def silent(who: str): ...
    def only_args(who: str):
        """
        Args:
            who: A person.
        """

    for function in (silent, only_args):
        with pytest.raises(ValueError, match="must have a docstring, because the model reads it"):
            schema.description_of(function)


FITS = [
    ("a", str), (3, int), (3, float), (3.5, float), (True, bool), ([1, 2], list[int]),
    ({"a": 1}, dict[str, int]), ("b", Literal["a", "b"]), (None, int | None), (3, int | str),
    ([], list[str]), ({}, dict),
]
FITS_NOT = [
    (3, str, "x must be a string; got 3"), ("3", int, "x must be an integer; got '3'"),
    (3.0, int, "must be an integer"), (True, int, "must be an integer; got True"),
    (True, float, "must be a number"), (1, bool, "must be a boolean"),
    ([1, "2"], list[int], r"x\[1\] must be an integer; got '2'"),
    ({"a": "1"}, dict[str, int], r"x.a must be an integer"),
    ("c", Literal["a", "b"], "x must be one of 'a', 'b'; got 'c'"),
    (True, Literal[1, 2], "must be an integer"), (None, int, "must be an integer; got None"),
    (3.5, int | str, "must be an integer or string"), ("ab", list[str], "must be an array"),
    ([["a"]], list[list[int]], r"x\[0\]\[0\] must be an integer"),
]


@pytest.mark.parametrize(("value", "kind"), FITS)
def test_a_value_of_the_type_fits(value, kind):
    assert problem_with(value, schema_of(kind, what="x"), what="x") is None


@pytest.mark.parametrize(("value", "kind", "words"), FITS_NOT)
def test_what_is_wrong_with_a_value_is_named(value, kind, words):
    with pytest.raises(ValueError, match=words):
        raise ValueError(problem_with(value, schema_of(kind, what="x"), what="x"))


def test_schemas_written_by_hand_may_have_bounds_and_members():
    inner = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1,
                                                    "maximum": 9}},
             "required": ["n"], "additionalProperties": False}
    check_schema(inner, what="it")
    assert problem_with({"n": 9}, inner, what="x") is None
    assert problem_with({"n": 10}, inner, what="x") == "x.n must be at most 9; got 10"
    assert problem_with({"n": 0}, inner, what="x") == "x.n must be at least 1; got 0"
    assert problem_with({}, inner, what="x") == "x needs n"
    assert problem_with({"n": 1, "m": 2}, inner, what="x") == "x has no m; known: n"
    loose = inner | {"additionalProperties": {"type": "string"}}
    assert problem_with({"n": 1, "m": 2}, loose, what="x") == "x.m must be a string; got 2"


@pytest.mark.parametrize(("given", "words"), [
    ("string", "must be a dict; got 'string'"),
    ({"type": "string", "pattern": "a+"}, "got 'pattern' for x"),
    ({"type": "text"}, "got 'text' for x"),
    ({}, "must have a type or an enum"),
    ({"type": "array", "items": {"type": "strin"}}, "got 'strin' for 'items' in x"),
    ({"type": "object", "properties": {"a": {"typ": "string"}}}, "did you mean 'type'"),
])
def test_a_schema_that_cannot_be_checked_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        check_schema(given, what="x")

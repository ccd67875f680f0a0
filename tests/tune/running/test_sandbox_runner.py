import json

import pytest

from llama_from_scratch.tune.running import sandbox_runner
from llama_from_scratch.tune.running.sandbox_runner import Printed, TooMuch, Unplain, made, plain


@pytest.mark.parametrize("value", [
    None, True, 0, -5, 2**300, 1.5, float("inf"), "", "é\ud800", b"\0a", [], (), set(), {},
    [1, (2, [3])], {"a": {1: (None,)}, (1, 2): b"x"}, {frozenset({1}), "a"},
])
def test_plain_data_survives_the_way_with_its_types(value):
    again = made(json.loads(json.dumps(plain(value))))
    assert again == value and repr(again) == repr(value)


def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return value


class Whole(int):
    pass


@pytest.mark.parametrize("value", [
    deep(60), [0] * 20_000, "a" * 200_000, [2**20_000], Whole(3), [Whole(3)], {Whole(3): 1},
    object(), range(3), lambda: 3, deep(3).append, 1j,
])
def test_everything_else_is_refused(value):
    with pytest.raises(Unplain, match="is not plain data|too large"):
        plain(value)


def test_a_list_that_holds_itself_is_too_large():
    value = []
    value.append(value)
    with pytest.raises(Unplain, match="too large"):
        plain(value)


def test_printing_stops_at_a_limit_and_stays_stopped():
    printed = Printed(10)
    printed.say("abc", 1)
    assert printed.pieces == ["abc 1\n"] and not printed.is_full
    for _ in range(2):
        with pytest.raises(TooMuch):
            printed.say("abcdef")
    assert "".join(printed.pieces) == "abc 1\nabcd" and printed.is_full


def test_a_module_that_a_program_may_import_is_allowed_and_no_other():
    assert sandbox_runner.allowed_import("math").pi > 3
    for name, level in (("os", 0), ("math.os", 0), ("math", 1), ("collections.abc", 0)):
        with pytest.raises(ImportError, match="a program may import bisect"):
            sandbox_runner.allowed_import(name, level=level)


def test_words_about_an_error_are_one_line_and_those_of_foreign_classes_only_their_name():
    class Mine(Exception):
        def __str__(self):
            raise AssertionError("this runs no code of the program")

    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    assert sandbox_runner.words_about(ValueError("a\nb")) == "ValueError: a b"
    assert sandbox_runner.words_about(Mine("a")) == "Mine"
    assert sandbox_runner.words_about(KeyError(Broken())) == "KeyError"
    assert sandbox_runner.words_about(MemoryError()) == "MemoryError"

"""Mistakes that readers make in chapter 56."""

import re
from typing import Any

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
Record = tuple[str, tuple[str, int]]


# --- 1: calls in a row ----------------------------------------------------------------------------


@listed("56.1", of="stopped_at")
def in_all_the_run(calls: list[str], repeats: int) -> int | None:
    """equal calls are counted over the whole run: only those in a row count"""
    for position, call in enumerate(calls):
        if calls[: position + 1].count(call) == repeats:
            return position
    return None


@listed("56.1", of="stopped_at")
def one_too_late(calls: list[str], repeats: int) -> int | None:
    """the count begins at 0: the first call is already one of them"""
    return _in_a_row(calls, repeats + 1)


@listed("56.1", of="stopped_at")
def where_the_row_begins(calls: list[str], repeats: int) -> int | None:
    """the first of the equal calls is returned: the run ends at the last one"""
    found = _in_a_row(calls, repeats)
    return None if found is None else found - repeats + 1


@listed("56.1", of="stopped_at")
def never_back_to_one(calls: list[str], repeats: int) -> int | None:
    """the count is kept when another call comes: it begins again at 1"""
    n = 1
    for position in range(1, len(calls)):
        n += calls[position] == calls[position - 1]
        if n == repeats:
            return position
    return None


def _in_a_row(calls: list[str], repeats: int) -> int | None:
    for position in range(repeats - 1, len(calls)):
        if len(set(calls[position - repeats + 1: position + 1])) == 1:
            return position
    return None


# --- 2: what the user named -----------------------------------------------------------------------


@listed("56.2", of="not_named")
def as_a_part(arguments: dict[str, Any], user: str) -> list[str]:
    """a value counts as named if it is a part of a word: it must be a whole word or number"""
    return [name for name, value in arguments.items() if str(value) not in user]


@listed("56.2", of="not_named")
def in_any_letters(arguments: dict[str, Any], user: str) -> list[str]:
    """capitals and small letters count as equal: the value must be as the user wrote it"""
    words = re.findall(r"\w+", user.lower())
    return [name for name, value in arguments.items() if str(value).lower() not in words]


@listed("56.2", of="not_named")
def those_that_are(arguments: dict[str, Any], user: str) -> list[str]:
    """the arguments that the user named are returned: the others are asked for"""
    words = re.findall(r"\w+", user)
    return [name for name, value in arguments.items() if str(value) in words]


@listed("56.2", of="not_named")
def only_texts(arguments: dict[str, Any], user: str) -> list[str]:
    """only texts are checked: a number from a result moves as many coins"""
    words = re.findall(r"\w+", user)
    return [name for name, value in arguments.items()
            if isinstance(value, str) and value not in words]


@listed("56.2", of="not_named")
def cut_at_spaces(arguments: dict[str, Any], user: str) -> list[str]:
    """the words keep their punctuation: with a period at its end, a name is another text"""
    return [name for name, value in arguments.items() if str(value) not in user.split()]


# --- 3: a replay ----------------------------------------------------------------------------------


@listed("56.3", of="replayed")
def everything_again(records: list[Record]) -> list[tuple[str, int]]:
    """calls that never ran are replayed too: only those that are done are"""
    return [call for _, call in records]


@listed("56.3", of="replayed")
def all_but_the_refused(records: list[Record]) -> list[tuple[str, int]]:
    """only refused calls are left out: dry and skipped ones never ran either"""
    return [call for status, call in records if status != "refused"]


@listed("56.3", of="replayed")
def each_call_once(records: list[Record]) -> list[tuple[str, int]]:
    """equal calls are replayed once: who got coins twice must get them twice"""
    return list(dict.fromkeys(call for status, call in records if status == "done"))


# --- 4: taint -------------------------------------------------------------------------------------


@listed("56.4", of="taints")
def with_its_own_step(steps: list[list[str]]) -> list[set[str]]:
    """a step counts its own results: its calls were written before these were read"""
    return [set().union(*steps[: i + 1]) for i in range(len(steps))]


@listed("56.4", of="taints")
def only_the_step_before(steps: list[list[str]]) -> list[set[str]]:
    """only the step before counts: the dialog keeps all earlier results"""
    return [set(steps[i - 1]) if i else set() for i in range(len(steps))]


@listed("56.4", of="taints")
def lost_in_the_calculator(steps: list[list[str]]) -> list[set[str]]:
    """taint ends at calc: what it computes may come from a result"""
    read: set[str] = set()
    found = []
    for tools in steps:
        found.append(set(read))
        read = set(tools) if "calc" in tools else read | set(tools)
    return found


@listed("56.4", of="taints")
def one_set_for_all(steps: list[list[str]]) -> list[set[str]]:
    """each step gets the same set, which grows later: append a copy"""
    return [set().union(*steps) for _ in steps]

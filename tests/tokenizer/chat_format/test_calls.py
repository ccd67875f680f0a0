"""Tool calls come back as they were written, and reading them runs nothing."""

import keyword
from dataclasses import replace

import pytest
from chat_dialogs import SMALL, assistant, call, parsed, user
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch.tokenizer.chat_format import (
    LLAMA_3_1,
    LLAMA_3_2,
    LLAMA_4,
    TAGGED_CALLS,
    ToolCall,
)

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
NAMES = NAMES.filter(lambda name: not keyword.iskeyword(name))
CHARS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | CHARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CHARS, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(ToolCall, name=NAMES, arguments=st.dictionaries(NAMES, VALUES, max_size=3))


@pytest.mark.parametrize(
    "format",
    [LLAMA_3_1, LLAMA_3_2, replace(LLAMA_3_1, calls=TAGGED_CALLS), LLAMA_4],
    ids=["json", "python", "tags", "llama 4"],
)
@settings(max_examples=80, deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=3), ends_turn=st.booleans())
def test_calls_come_back_as_they_were_encoded(format, calls, ends_turn):
    tokenizer = SMALL["llama-4" if format is LLAMA_4 else "llama-3.1"]
    message = assistant("", *calls[: format.calls.max_calls], ends_turn=ends_turn)
    asked = format.encode([user("?")], tokenizer)
    ids = format.encode([user("?"), message], tokenizer, is_answered=True)
    assert ids[: len(asked)] == asked
    answer = format.parse(ids[len(asked) :], tokenizer)
    assert answer.message == message and answer.problem is None


def test_a_built_in_tools_odd_arguments_come_back_too():
    message = assistant("", call("brave_search", query='say "hi"', n=2), ends_turn=False)
    ids = LLAMA_3_1.encode([user("?"), message], SMALL["llama-3.1"], is_answered=True)
    asked = LLAMA_3_1.encode([user("?")], SMALL["llama-3.1"])
    assert LLAMA_3_1.parse(ids[len(asked) :], SMALL["llama-3.1"]).message == message


def test_reading_calls_runs_nothing_and_warns_of_nothing(recwarn, tmp_path):
    path = tmp_path / "made"
    parsed(LLAMA_3_2, f"[f(a=__import__('pathlib').Path({str(path)!r}).touch())]")
    assert not path.exists()
    assert parsed(LLAMA_3_2, r"[f(a='\d')]").message.tool_calls == (call("f", a=r"\d"),)
    assert not recwarn.list

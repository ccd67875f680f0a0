"""Any answer is read; what only looks like a call stays text and says why."""

from dataclasses import replace

import pytest
from chat_dialogs import (
    GENERATIONS,
    ROME,
    SMALL,
    WITH_CALLS,
    answer_ids,
    assistant,
    call,
    parsed,
    tokenizer_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch.tokenizer.chat_format import (
    CODE,
    FORMATS,
    LLAMA_2,
    LLAMA_3_1,
    LLAMA_3_2,
    LLAMA_4,
)


@pytest.mark.parametrize(
    "format, text, expected",
    [
        (LLAMA_3_1, "Hello.", assistant("Hello.")),
        (LLAMA_3_1, '{"name": "weather", "parameters": {"city": "Rome"}}', assistant("", ROME)),
        (LLAMA_3_1, '{"type": "function", "name": "weather", "parameters": {"city": "Rome"}}',
         assistant("", ROME)),
        (LLAMA_3_1, '<|python_tag|>{"type": "function", "name": "f", "parameters": '
                    '{"a": {"b": [1.5, null, true]}}}',
         assistant("", call("f", a={"b": [1.5, None, True]}))),
        (LLAMA_3_1, """<function=f>{"a": {"it's": "}"}}</function>""",
         assistant("", call("f", a={"it's": "}"}))),
        (LLAMA_3_1, '<|python_tag|>brave_search.call(query="a b")',
         assistant("", call("brave_search", query="a b"))),
        (LLAMA_3_1, "Wait.<|python_tag|>x = 1\nprint(x)",
         assistant("Wait.", call(CODE, code="x = 1\nprint(x)"))),
        (LLAMA_3_2, """[f(a=-1, b='x', c={'d': [True, None]}), g()]""",
         assistant("", call("f", a=-1, b="x", c={"d": [True, None]}), call("g"))),
        (LLAMA_4, "[weather(city='Rome')]", assistant("", ROME)),
        (LLAMA_4, "<|python_start|>print(1)<|python_end|>",
         assistant("", call(CODE, code="print(1)"))),
    ],
)  # fmt: skip
def test_answers_are_read(format, text, expected):
    frame = format.frame
    for end, ends_turn in [(frame.eot, True), (frame.eom, False), (frame.final, True)]:
        answer = parsed(format, text, end)
        assert answer.message == replace(expected, ends_turn=ends_turn)
        assert answer.problem is None


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"name": "f", "parameters": {"a": 1}', "delimiter"),
        ('{"name": "f", "name": "g", "parameters": {}}', "once"),
        ('{"answer": 42}', "name and parameters"),
        ('{"name": "f", "parameters": [1]}', "object"),
        ('{"name": "f", "parameters": {"a": NaN}}', "finite"),
        ('{"name": "f", "parameters": {"a": 1' + "0" * 5000 + "}}", "digits"),
        ('{"name": "a b", "parameters": {}}', "white space"),
        ('{"a":' * 15_000, "deep"),
        ('{"name": "f", "parameters": {"a": ' + "[" * 80 + "]" * 80 + "}}", "64"),
        ("[1] says so.", "syntax"),
        ("[]", "at least one"),
        ("[f(1)]", "keyword"),
        ("[f(**a)]", "name of its own"),
        ("[f(a=1, a=2)]", "name of its own"),
        ("[f(a=open('x'))]", "literal"),
        ("[f(a=x)]", "literal"),
        ("[f.g(a=1)]", "a name and"),
        ("[f(a={[]: 1})]", "literal"),
        ("[f(a=b'x')]", "JSON"),
        ("[f(a={1: 2})]", "JSON"),
        ("[f(a=" + "-" * 50_000 + "1)]", "deep"),
        ("[f(a=" + "1+" * 30_000 + "1)]", "deep"),
        ("[" * 5000, "nested"),
        ("[f(a='\0')]", "null"),
        ("[f(a='" + "x" * 100_000 + "')]", "characters"),
        ("<function=f>{}", "complete"),
        ("<function=f>[1]</function>", "object"),
        ("<|python_tag|>{'a'", "property name"),
        ("<|python_tag|>a<|python_tag|>b", "python_tag"),
        ("Hi<|start_header_id|>user", "start_header_id"),
    ],
)
def test_what_only_looks_like_a_call_stays_text_and_says_why(text, problem):
    answer = parsed(LLAMA_3_1, text)
    assert answer.problem is not None and problem in answer.problem
    assert "0x" not in answer.problem
    if "<|python_tag|>a" not in text:
        assert answer.message == assistant(text)


def test_python_that_is_not_closed_stays_text():
    answer = parsed(LLAMA_4, "<|python_start|>print(1)")
    assert answer.message == assistant("<|python_start|>print(1)")
    assert "<|python_end|>" in answer.problem


CALL_PARTS = [
    *"[]{}():,*f1", "a=", '"name"', '"parameters"', '"', "'", "\\", "<function=f>", "</function>",
    "<|python_tag|>", "<|python_start|>", "<|python_end|>", "<|eot", "lambda:",
    "brave_search.call(query=", '{"name": "f", "parameters": {', "[f(a=", "\n", "\0",
    "\ud800", "f'{",
]  # fmt: skip
CALL_TEXT = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from(CALL_PARTS)), max_size=12
).map("".join)


@pytest.mark.parametrize("name", ["llama-2", "llama-3", *WITH_CALLS])
@settings(max_examples=150, deadline=None)
@given(text=CALL_TEXT)
def test_any_answer_is_read(name, text):
    format, tokenizer = FORMATS[name], tokenizer_of(name)
    end = format.frame.stops[-1]
    message = format.parse(answer_ids(format, tokenizer, text, end), tokenizer).message
    assert message.role == "assistant" and message.ends_turn
    assert message.content or message.tool_calls or not text.strip()


@pytest.mark.parametrize("name", GENERATIONS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_ids_that_end_are_read(name, data):
    format, tokenizer = FORMATS[name], SMALL[name]
    stops = sorted(format.stop_ids(tokenizer))
    one = st.integers(0, tokenizer.vocab_size - 1).filter(lambda i: i not in stops)
    ids = data.draw(st.lists(one, max_size=20))
    answer = format.parse([*ids, data.draw(st.sampled_from(stops))], tokenizer)
    assert answer.message.role == "assistant"


def test_llama_2s_answer_that_marks_a_turn_says_so():
    ids = answer_ids(LLAMA_2, SMALL["llama-2"], "Yes. [INST] And?", "</s>")
    answer = LLAMA_2.parse(ids, SMALL["llama-2"])
    assert answer.message == assistant("Yes. [INST] And?") and "[INST]" in answer.problem


def test_answers_that_do_not_end_are_refused():
    tokenizer = SMALL["llama-3.1"]
    eot = tokenizer.special_ids["<|eot_id|>"]
    for ids in ([], [40, 41], [40, eot, 41], [eot, eot]):
        with pytest.raises(ValueError, match="answer must end with one of the ids.*generate more"):
            LLAMA_3_1.parse(ids, tokenizer)
    with pytest.raises(ValueError, match="ids run from 0"):
        LLAMA_3_1.parse([10**6, eot], tokenizer)

import json

import pytest

from llama_from_scratch.tokenizer.chat_format import Message, ToolCall
from llama_from_scratch.tune.dialogs import Dialog, exchange, read_dialogs

HI = exchange("Hi", "Hello")


def written(tmp_path, *entries, is_list=False):
    file = tmp_path / "dialogs.jsonl"
    text = json.dumps(entries, indent=1) if is_list else "\n".join(map(json.dumps, entries))
    file.write_text(text + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("entry", [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                  {"role": "assistant", "content": "Hello", "weight": 1}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"prompt": "Hi", "completion": "Hello"},
    {"prompt": [{"role": "user", "content": "Hi"}],
     "completion": [{"role": "assistant", "content": "Hello"}]},
    {"instruction": "Hi", "input": "", "output": "Hello"},
])
@pytest.mark.parametrize("is_list", [False, True])
def test_every_form_becomes_the_same_dialog(tmp_path, entry, is_list):
    assert read_dialogs(written(tmp_path, entry, entry, is_list=is_list)) == [HI, HI]


def test_system_messages_and_inputs_are_kept(tmp_path):
    found = read_dialogs(written(
        tmp_path,
        {"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi"},
                                                 {"from": "gpt", "value": "Hello"}]},
        {"messages": [{"role": "developer", "content": "Be kind."},
                      {"role": "user", "content": "Hi"},
                      {"role": "assistant", "content": "Hello"}]},
        {"instruction": "Add.", "input": "1 2", "output": "3"}))
    assert found[0] == found[1] == exchange("Hi", "Hello", system="Be kind.")
    assert found[2] == exchange("Add.\n\n1 2", "3")


def test_tools_calls_and_results_are_read(tmp_path):
    [dialog] = read_dialogs(written(tmp_path, {
        "messages": [
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."}],
        "tools": [{"type": "function", "function": {
            "name": "weather", "description": "The weather.", "parameters": {
                "type": "object", "properties": {"city": {"type": "string"}},
                "required": ["city"]}}}]}))
    assert dialog.messages[1] == Message(role="assistant", ends_turn=False, tool_calls=(
        ToolCall(name="weather", arguments={"city": "Rome"}),))
    assert dialog.messages[2] == Message(role="ipython", content="sunny")
    assert dialog.tools[0].required == ("city",) and dialog.learned == (1, 3)


def test_a_weight_of_zero_leaves_a_message_unlearned(tmp_path):
    [dialog] = read_dialogs(written(tmp_path, {"messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No", "weight": 0},
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}))
    assert dialog.unlearned == (1,) and dialog.learned == (3,)


def test_an_unknown_form_says_which_were_tried_and_why_with_its_line(tmp_path):
    good = {"prompt": "Hi", "completion": "Hello"}
    file = written(tmp_path, good, {"text": "Hi"}, good)
    with pytest.raises(ValueError) as error:
        read_dialogs(file)
    said = str(error.value)
    assert "line 2" in said and "OpenAI's messages: no 'messages'" in said
    assert "ShareGPT's conversations: no 'conversations'" in said and "'completion'" not in said
    assert "a prompt with its completion: no 'prompt'" in said and '{"messages": [' in said


@pytest.mark.parametrize("entry, said", [
    ({"messages": "Hi"}, "'messages' must be a list; got a str"),
    ({"messages": [{"content": "Hi"}]}, 'an object with a "role"'),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "got 'robot'"),
    ({"messages": [{"role": "user", "content": 3}]}, "a content is a text; got 3"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"name": "x"}]}]}, "a tool call is"),
    ({"messages": [{"role": "assistant", "tool_calls": [
        {"function": {"name": "x", "arguments": "{no"}}]}]}, "must be JSON; got '{no'"),
    ({"conversations": [{"from": "robot", "value": "Hi"}]}, "from one of human"),
    ({"messages": []}, "at least one message"),
    ([1, 2], "is a list"),
])
def test_a_broken_dialog_is_refused_with_its_line(tmp_path, entry, said):
    good = {"prompt": "Hi", "completion": "Hello"}
    with pytest.raises(ValueError) as error:
        read_dialogs(written(tmp_path, good, entry))
    assert "line 2" in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("text, said", [
    ("", "has at least one"), ("\n \n", "has at least one"),
    ('{"prompt": "Hi"', "line 1 is not"), ("[]", "has at least one"),
    ('{"messages": [{"role": "user", "content": "Hi"}]}', "none of the 1 dialogs"),
])
def test_files_without_dialogs_are_refused(tmp_path, text, said):
    file = tmp_path / "dialogs.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_dialogs(file)


def test_only_messages_of_the_assistant_can_be_left_unlearned():
    with pytest.raises(ValueError, match="got number 0 of a dialog with the roles user, assist"):
        Dialog(messages=HI.messages, unlearned=(0,))

"""Dialogs to learn from: one record, and readers of the files that people have.

A line of a JSON file is one dialog. There are four common forms: OpenAI's messages, ShareGPT's
conversations, a prompt with its completion, and Alpaca's instruction with its output. All become
the same messages, and the model's own chat format turns them into ids.

Notebook 50.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format import Message, Tool, ToolCall
from llama_from_scratch.train.data import read_text


@record
class Dialog:
    """Messages of which the assistant's are learned, and the tools that the dialog may call.

    `unlearned`: the numbers of assistant's messages that are only read, counted among all messages.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    unlearned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a dialog has at least one message; got none")
        roles = [message.role for message in self.messages]
        if strangers := [i for i in self.unlearned
                         if not 0 <= i < len(roles) or roles[i] != "assistant"]:
            raise ValueError("only a message of the assistant can be left unlearned; got number "
                             f"{strangers[0]} of a dialog with the roles {', '.join(roles)}")

    @property
    def learned(self) -> tuple[int, ...]:
        """The numbers of the messages that are learned."""
        return tuple(i for i, message in enumerate(self.messages)
                     if message.role == "assistant" and i not in self.unlearned)


def exchange(user: str, answer: str, *, system: str | None = None) -> Dialog:
    """Returns a dialog of one request and its answer."""
    lead = () if system is None else (Message(role="system", content=system),)
    return Dialog(messages=(*lead, Message(role="user", content=user),
                            Message(role="assistant", content=answer)))


def read_dialogs(path: str | Path) -> list[Dialog]:
    """Returns the dialogs of a file: JSON lines, or one JSON list.

    Raises ValueError for the first line that is no dialog. It says which forms were tried, and why
    each does not fit. Raises ValueError if the file has no dialog, or none that can be learned.
    """
    found = [read_entry(entry, place, FORMS, needs="a dialog", example=EXAMPLE)
             for place, entry in entries(path)]
    if not any(dialog.learned for dialog in found):
        raise ValueError(f"learning needs a message of the assistant, and none of the {len(found)} "
                         f"dialogs in {path} has one. Add answers")
    return found


def entries(path: str | Path) -> list[tuple[str, Any]]:
    """Returns the JSON values of a file with JSON lines, or of one JSON list, with their places.

    Raises ValueError for a line that is not JSON, and if there is no value.
    """
    text = read_text(path)
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        found = [(f"{path}, entry {n}", entry) for n, entry in enumerate(whole, 1)]
    else:
        found = [(f"{path}, line {n}", _json(line, f"{path}, line {n}"))
                 for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise ValueError(f"a file of dialogs has at least one; {path} has none")
    return found


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"each line must be one JSON value; {place} is not: {error}; it begins "
                         f"with {line[:40]!r}. For one value over several lines, write a JSON "
                         "list") from error


def read_entry(
    entry: Any, place: str, forms: Mapping[str, Callable[[Mapping[str, Any]], Any]], *, needs: str,
    example: str,
) -> Any:
    """Returns what the first form that knows the entry's keys reads.

    A form raises `OtherForm` if the entry does not have its keys. `needs`, `example`: what the
    entry must be, for the message. Raises ValueError with the reason of each form if none fits.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{needs} is a JSON object; {place} is a {type(entry).__name__}. Write "
                         f"one such as {example}")
    reasons = []
    for name, read in forms.items():
        try:
            return read(entry)
        except OtherForm as other:
            reasons.append(f"{name}: {other}")
        except ValueError as error:
            raise ValueError(f"{place}: {error} (read as {name})") from error
    raise ValueError(f"{place} is not {needs} in a form that is known. Tried: "
                     f"{'; '.join(reasons)}. The simplest is {example}")


EXAMPLE = ('{"messages": [{"role": "user", "content": "Hi"}, '
           '{"role": "assistant", "content": "Hello"}]}')


class OtherForm(Exception):
    """The entry has not the keys of this form."""


def values_of(entry: Mapping[str, Any], *keys: str) -> list[Any]:
    """Returns the values of these keys. Raises OtherForm if one is missing."""
    if missing := [key for key in keys if key not in entry]:
        raise OtherForm(f"no {missing[0]!r}")
    return [entry[key] for key in keys]


# --- OpenAI's messages ----------------------------------------------------------------------------

_ROLES = {"tool": "ipython", "function": "ipython", "developer": "system"}


def _of_messages(entry: Mapping[str, Any]) -> Dialog:
    [told] = values_of(entry, "messages")
    messages, unlearned = [], []
    for n, each in enumerate(list_of(told, "messages")):
        messages.append(message_of(each))
        if each.get("weight", 1) == 0:
            unlearned.append(n)
    tools = tuple(tool_of(each) for each in list_of(entry.get("tools") or [], "tools"))
    return Dialog(messages=tuple(messages), tools=tools, unlearned=tuple(unlearned))


def message_of(told: Any) -> Message:
    """Returns the message that OpenAI writes as {"role": ..., "content": ...}."""
    if not isinstance(told, dict) or "role" not in told:
        raise ValueError(f'a message is an object with a "role"; got {told!r:.80}')
    role = _ROLES.get(told["role"], told["role"])
    calls = tuple(_call_of(each) for each in list_of(told.get("tool_calls") or [], "tool_calls"))
    content = _text(told.get("content"), is_optional=bool(calls))
    # What calls tools waits for their results.
    return Message(role=role, content=content, tool_calls=calls, ends_turn=not calls)


def _text(content: Any, *, is_optional: bool) -> str:
    if content is None and is_optional:
        return ""
    if isinstance(content, list):  # parts, such as {"type": "text", "text": ...}
        kinds = {part.get("type") if isinstance(part, dict) else None for part in content}
        if kinds - {"text"}:
            raise ValueError(f"a content has text only; got a part of type {kinds - {'text'}!r}. "
                             "Leave images out")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"a content is a text; got {content!r:.80}")
    return content


def _call_of(told: Any) -> ToolCall:
    function = told.get("function") if isinstance(told, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError('a tool call is {"type": "function", "function": {"name": ..., '
                         f'"arguments": ...}}}}; got {told!r:.80}')
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise ValueError(f"the arguments of {function['name']!r} must be JSON; got "
                             f"{arguments[:80]!r}: {error}") from error
    return ToolCall(name=function["name"], arguments=arguments)


def tool_of(told: Any) -> Tool:
    """Returns the tool that OpenAI writes as {"type": "function", "function": ...}."""
    function = told.get("function", told) if isinstance(told, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f'a tool is {{"type": "function", "function": ...}}; got {told!r:.80}')
    schema = function.get("parameters") or {}
    return Tool(name=function["name"], description=function.get("description", ""),
                properties=schema.get("properties", {}), required=tuple(schema.get("required", ())))


# --- ShareGPT, prompts and Alpaca -----------------------------------------------------------------

_FROM = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
         "chatgpt": "assistant", "system": "system", "tool": "ipython", "observation": "ipython"}


def _of_conversations(entry: Mapping[str, Any]) -> Dialog:
    [told] = values_of(entry, "conversations")
    messages = []
    if entry.get("system"):
        messages.append(Message(role="system", content=_text(entry["system"], is_optional=False)))
    for each in list_of(told, "conversations"):
        if not isinstance(each, dict) or each.get("from") not in _FROM:
            raise ValueError(f'a message is {{"from": ..., "value": ...}}, from one of '
                             f"{', '.join(_FROM)}; got {each!r:.80}")
        messages.append(Message(role=_FROM[each["from"]],
                                content=_text(each.get("value"), is_optional=False)))
    return Dialog(messages=tuple(messages))


def _of_prompt(entry: Mapping[str, Any]) -> Dialog:
    prompt, completion = values_of(entry, "prompt", "completion")
    return Dialog(messages=(*prompt_of(prompt), *answer_of(completion)))


def prompt_of(told: Any) -> tuple[Message, ...]:
    """Returns the messages of a prompt: a text that the user says, or a list of messages."""
    if isinstance(told, str):
        return (Message(role="user", content=told),)
    return tuple(message_of(each) for each in list_of(told, "prompt"))


def answer_of(told: Any, name: str = "completion") -> tuple[Message, ...]:
    """Returns the messages of an answer: a text of the assistant, or a list of messages."""
    if isinstance(told, str):
        return (Message(role="assistant", content=told),)
    return tuple(message_of(each) for each in list_of(told, name))


def _of_instruction(entry: Mapping[str, Any]) -> Dialog:
    instruction, output = values_of(entry, "instruction", "output")
    more = entry.get("input") or ""
    user = f"{instruction}\n\n{more}" if more else instruction
    return exchange(_text(user, is_optional=False), _text(output, is_optional=False))


def list_of(value: Any, name: str) -> Sequence[Any]:
    """Returns a JSON list. Raises ValueError, with the `name` of its key, for other values."""
    if not isinstance(value, list):
        raise ValueError(f"{name!r} must be a list; got a {type(value).__name__}: {value!r:.60}")
    return value


FORMS: dict[str, Callable[[Mapping[str, Any]], Dialog]] = {
    "OpenAI's messages": _of_messages,
    "ShareGPT's conversations": _of_conversations,
    "a prompt with its completion": _of_prompt,
    "Alpaca's instruction with its output": _of_instruction,
}
"""The forms of a dialog in a file, in the order in which they are tried."""

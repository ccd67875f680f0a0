"""Mistakes that readers make in chapter 19."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.tokenizer.chat_format import ToolCall

listed = Listed()

Dialog = Sequence[tuple[str, str]]


# --- 1: ids in addition to the texts --------------------------------------------------------------


@listed("19.1", of="overhead")
def without_beginning(n_messages: int) -> int:
    """the `<|begin_of_text|>` of the dialog is left out"""
    return 5 * n_messages + 4


@listed("19.1", of="overhead")
def without_answer(n_messages: int) -> int:
    """the header of the answer is left out"""
    return 1 + 5 * n_messages


@listed("19.1", of="overhead")
def answer_has_an_end(n_messages: int) -> int:
    """the header of the answer is counted with an end of turn: the model writes that"""
    return 1 + 5 * (n_messages + 1)


@listed("19.1", of="overhead")
def messages_alone(n_messages: int) -> int:
    """only the messages are counted: the dialog also has a beginning and the answer's header"""
    return 5 * n_messages


@listed("19.1", of="overhead")
def empty_line_forgotten(n_messages: int) -> int:
    """the empty line after each header is not counted: it is an id, too"""
    return 1 + 4 * n_messages + 3


# --- 2: how many positions can be kept ------------------------------------------------------------


@listed("19.2", of="n_shared")
def all_equal_places(a: Sequence[int], b: Sequence[int]) -> int:
    """all equal places are counted: nothing after the first difference can be kept"""
    return sum(left == right for left, right in zip(a, b, strict=False))


@listed("19.2", of="n_shared")
def one_too_many(a: Sequence[int], b: Sequence[int]) -> int:
    """the first id that differs is counted, too"""
    for n, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return n + 1
    return min(len(a), len(b))


@listed("19.2", of="n_shared")
def place_of_the_last_equal(a: Sequence[int], b: Sequence[int]) -> int:
    """the place of the last shared id is returned: places count from 0, so add one"""
    for n, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return n - 1
    return min(len(a), len(b)) - 1


@listed("19.2", of="n_shared")
def ids_in_common(a: Sequence[int], b: Sequence[int]) -> int:
    """ids that occur in both lists are counted, wherever they are"""
    return len(set(a) & set(b))


@listed("19.2", of="n_shared")
def nothing_if_all_are_equal(a: Sequence[int], b: Sequence[int]) -> int | None:
    """nothing is returned where no id differs: then all of the shorter list is shared"""
    for n, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return n
    return None


# --- 3: a dialog that fits ------------------------------------------------------------------------


def _shortened(
    dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int], *, n_lead: int | None = None,
    n_dropped: int = 2, is_strict: bool = False,
) -> Dialog | None:
    dialog = list(dialog)
    if n_lead is None:
        n_lead = int(dialog[0][0] == "system")
    while n_ids(dialog) > max_tokens - is_strict:
        if len(dialog) <= n_lead + 1:
            return None
        dialog = dialog[:n_lead] + dialog[n_lead + n_dropped:]
    return dialog


@listed("19.3", of="shorten")
def system_dropped(
    dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]
) -> Dialog | None:
    """the system's message is dropped first: it is to be kept"""
    return _shortened(dialog, max_tokens, n_ids, n_lead=0)


@listed("19.3", of="shorten")
def first_message_kept(
    dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]
) -> Dialog | None:
    """the first message is always kept: it may be a question instead of the system's message"""
    return _shortened(dialog, max_tokens, n_ids, n_lead=1)


@listed("19.3", of="shorten")
def answer_kept(dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]) -> Dialog | None:
    """one message is dropped at a time, so an answer stays without its question"""
    return _shortened(dialog, max_tokens, n_ids, n_dropped=1)


@listed("19.3", of="shorten")
def one_id_unused(
    dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]
) -> Dialog | None:
    """a dialog of exactly `max_tokens` ids is shortened, too: it fits"""
    return _shortened(dialog, max_tokens, n_ids, is_strict=True)


@listed("19.3", of="shorten")
def never_none(dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]) -> Dialog:
    """a dialog that cannot fit is returned all the same: None is asked for"""
    dialog = list(dialog)
    n_lead = int(dialog[0][0] == "system")
    while n_ids(dialog) > max_tokens and len(dialog) > n_lead + 1:
        dialog = dialog[:n_lead] + dialog[n_lead + 2:]
    return dialog


@listed("19.3", of="shorten")
def newest_dropped(
    dialog: Dialog, max_tokens: int, n_ids: Callable[[Dialog], int]
) -> Dialog | None:
    """the newest messages are dropped: the last question is to be kept, and the oldest pair goes"""
    dialog = list(dialog)
    while n_ids(dialog) > max_tokens:
        dialog = dialog[:-2]
        if not dialog:
            return None
    return dialog


# --- 4: past the filter ---------------------------------------------------------------------------


@listed("19.4", of="hide")
def plain_mark(mark: str) -> str:
    """the mark is written as it is, and the filter takes it out"""
    return mark


@listed("19.4", of="hide")
def spelled_otherwise(mark: str) -> str:
    """the mark is spelled in another way: the filter leaves it, but then it is no mark"""
    return mark.lower() if mark.lower() != mark else f"{mark[0]} {mark[1:]}"


@listed("19.4", of="hide")
def with_a_space(mark: str) -> str:
    """a space is put into the mark: the filter leaves it, but with the space it is no mark"""
    return f"{mark[:2]} {mark[2:]}"


@listed("19.4", of="hide")
def mark_twice(mark: str) -> str:
    """the mark is written twice, one after the other, and the filter takes out both"""
    return mark + mark


# --- 5: calls that go wrong -----------------------------------------------------------------------


Functions = Mapping[str, Callable[..., Any]]


def _outcome(call: ToolCall, functions: Functions) -> tuple[Any, str | None]:
    """Returns the function's result and None, or None and the words of its error."""
    if call.name not in functions:
        return None, f"no tool is called {call.name}"
    try:
        return functions[call.name](**call.arguments), None
    except (TypeError, ValueError, KeyError) as error:
        return None, f"{type(error).__name__}: {error}"


@listed("19.5", of="run")
def result_is_no_text(call: ToolCall, functions: Functions) -> Any:
    """the result is returned as it is: `json.dumps` makes the text that a message holds"""
    result, words = _outcome(call, functions)
    return result if words is None else {"error": words}


@listed("19.5", of="run")
def result_is_wrapped(call: ToolCall, functions: Functions) -> str:
    """the result is put into {"result": ...}: only errors have a key"""
    result, words = _outcome(call, functions)
    return json.dumps({"result": result} if words is None else {"error": words})


@listed("19.5", of="run")
def error_is_plain_text(call: ToolCall, functions: Functions) -> str:
    """the error is plain text and not {"error": ...} in JSON"""
    result, words = _outcome(call, functions)
    return json.dumps(result) if words is None else words


@listed("19.5", of="run")
def error_without_words(call: ToolCall, functions: Functions) -> str:
    """the error does not say what is wrong, so the model cannot correct its call"""
    result, words = _outcome(call, functions)
    return json.dumps(result if words is None else {"error": "the call failed"})


@listed("19.5", of="run")
def tool_not_named(call: ToolCall, functions: Functions) -> str:
    """the error for an unknown tool does not name the tool"""
    if call.name not in functions:
        return json.dumps({"error": "there is no such tool"})
    result, words = _outcome(call, functions)
    return json.dumps(result if words is None else {"error": words})

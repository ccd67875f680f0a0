"""Writes dialogs with the chat template in a model's files, which may be any model's.

The template is followed exactly: the ids are the same as from transformers' `apply_chat_template`,
with one difference. The text of a message, of a call or of a tool never becomes a special token.

Notebook 19.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.answers import Answer
from llama_from_scratch.tokenizer.chat_format.dialogs import refuse
from llama_from_scratch.tokenizer.chat_format.format import ChatFormat
from llama_from_scratch.tokenizer.chat_format.messages import Message, Tool, ToolCall
from llama_from_scratch.tokenizer.chat_format.sandbox import render
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.prompting import DEFAULT, TOOL_USE
from llama_from_scratch.tokenizer.special_tokens import one_of

_ASKED, _ANSWERED, _ASKED_AGAIN = "What is one?", "One is one.", "And what is two?"
_ROLES = {"ipython": "tool"}
"""Roles that have another name in templates."""


@record
class ChatTemplate:
    """A chat format that is a Jinja template.

    `templates`: by name. "default" is used, or "tool_use" if there are tools and it exists.
    `token_names`: the special tokens by their names in templates. `kin`: the format of a Llama, if
    the template writes it with something added; its answers are read with that format.
    """

    name: str
    templates: Mapping[str, str]
    token_names: Mapping[str, str]
    kin: ChatFormat | None = None

    def encode(
        self, dialog: Sequence[Message], tokenizer: AnyTokenizer, *,
        is_answered: bool = False, tools: Sequence[Tool] = (), builtin_tools: Sequence[str] = (),
        instructions: str | None = None, today: str | None = None,
    ) -> list[int]:
        """Returns the ids of a dialog, ready for the assistant's answer.

        `is_answered`: the dialog is finished. `today`, such as "26 Jul 2024": the date that the
        template gets, by default the real one. Raises ValueError if the template refuses the
        dialog.
        """
        if instructions is not None:
            refuse(self.name, "the template itself introduces the tools", instructions,
                   "leave instructions out")
        hidden = _Hidden(tokenizer)
        text = self.text([hidden.message(message) for message in dialog], is_answered=is_answered,
                         tools=[hidden.tool(tool) for tool in tools], builtin_tools=builtin_tools,
                         today=today)
        if not hidden.is_needed:
            return tokenizer.encode(text, allowed_special="all")
        return list(hidden.encode(text))

    def text(
        self, dialog: Sequence[Message], *, is_answered: bool = False, tools: Sequence[Tool] = (),
        builtin_tools: Sequence[str] = (), today: str | None = None,
    ) -> str:
        """Returns the template's text, with special tokens by name. Raises as `encode` does."""
        if not dialog:
            refuse(self.name, "a dialog needs a message", list(dialog), "add a user's message")
        values: dict[str, Any] = {
            **self.token_names, "messages": [_as_template_sees(message) for message in dialog],
            "tools": [_described(tool) for tool in tools] or None, "documents": None,
            "add_generation_prompt": not is_answered}
        if builtin_tools:
            values["builtin_tools"] = list(builtin_tools)
        return render(self._source(bool(tools)), values, today=today)

    def stop_ids(self, tokenizer: AnyTokenizer) -> frozenset[int]:
        """Returns the ids that end an answer: the ends in the files, and the template's own."""
        name = self._special_after_an_answer(tokenizer)
        found = [] if name is None else [tokenizer.named_ids[name]]
        return tokenizer.stop_ids.union(found)

    def stop_text(self, tokenizer: AnyTokenizer) -> str | None:
        """Returns the text that ends an answer if no token does: the beginning of the next turn."""
        after = self._after_an_answer()
        if self._special_after_an_answer(tokenizer) is not None or not after.strip():
            return None
        return after.rstrip()

    def parse(self, ids: Sequence[int], tokenizer: AnyTokenizer) -> Answer:
        """Returns the answer in `ids`: what follows its header, and the id that ends it.

        Tool calls are read only if the template writes a Llama's format (`kin`). Raises ValueError
        if the ids do not end like an answer, or are outside the vocabulary.
        """
        if self.kin is not None:
            return self.kin.parse(ids, tokenizer)
        stops = self.stop_ids(tokenizer)
        if not ids or ids[-1] not in stops or not stops.isdisjoint(ids[:-1]):
            refuse(self.name, f"an answer must end with one of the ids {sorted(stops)} and "
                   "contain no other of them", list(ids[-8:]),
                   "generate more tokens, cut after the first of these ids, or append the id that "
                   "generation left out")
        return Answer(message=Message(role="assistant", content=tokenizer.decode(ids[:-1]).strip()))

    def _source(self, has_tools: bool) -> str:
        if has_tools and TOOL_USE in self.templates:
            return self.templates[TOOL_USE]
        if DEFAULT not in self.templates:
            refuse(self.name, f"one of the templates must be called {DEFAULT!r}",
                   sorted(self.templates), "choose a format of tokenizer.chat_format.FORMATS")
        return self.templates[DEFAULT]

    def _special_after_an_answer(self, tokenizer: AnyTokenizer) -> str | None:
        after = self._after_an_answer().lstrip()
        names = [name for name in tokenizer.named_ids if after.startswith(name)]
        return max(names, key=len, default=None)

    def _after_an_answer(self) -> str:
        """Returns the text after an answer: its own end, or the beginning of the next question."""
        dialog = [Message(role="user", content=_ASKED),
                  Message(role="assistant", content=_ANSWERED)]
        try:
            end = self.text(dialog, is_answered=True).rpartition(_ANSWERED)[2]
            if end.strip():
                return end
            dialog.append(Message(role="user", content=_ASKED_AGAIN))
            return self.text(dialog).rpartition(_ANSWERED)[2].partition(_ASKED_AGAIN)[0]
        except ValueError:  # the template does not allow such a dialog
            return ""


class _Hidden:
    """Hides the names of special tokens in messages from the tokenizer, with private characters.

    A name becomes U+E000, its number and U+E001. After the template is rendered, it becomes text
    again.
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self._tokenizer = tokenizer
        self._names = sorted(tokenizer.special_ids, key=len, reverse=True)
        self._any = one_of(tokenizer.special_ids.keys())
        self.is_needed = False

    def message(self, message: Message) -> Message:
        calls = tuple(ToolCall(name=call.name, arguments=self._value(call.arguments))
                      for call in message.tool_calls)
        return replace(message, content=self._value(message.content), tool_calls=calls)

    def tool(self, tool: Tool) -> Tool:
        return replace(tool, description=self._value(tool.description),
                       properties=self._value(tool.properties))

    def _value(self, value: Any) -> Any:
        """Returns a text, or a JSON value with texts in it, with the names hidden."""
        if isinstance(value, Mapping):
            return {self._value(key): self._value(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each) for each in value]
        if not isinstance(value, str) or not self._names or not self._any.search(value):
            return value
        self.is_needed = True
        return self._any.sub(lambda found: f"\ue000{self._names.index(found[0])}\ue001",
                             value.replace("\ue000", "\ufffd"))

    def encode(self, text: str) -> Iterator[int]:
        """Yields the ids of a rendered text. Only special tokens of the template become one id."""
        at = 0
        for found in [*self._any.finditer(text), None]:
            end = len(text) if found is None else found.start()
            part = re.sub("\ue000(\\d+)\ue001", lambda hidden: self._names[int(hidden[1])],
                          text[at:end])
            yield from self._tokenizer.encode(part) if part else []
            if found is not None:
                yield self._tokenizer.special_ids[found[0]]
                at = found.end()


def _as_template_sees(message: Message) -> dict[str, Any]:
    seen: dict[str, Any] = {"role": _ROLES.get(message.role, message.role),
                            "content": message.content}
    if message.images:
        text = [{"type": "text", "text": message.content}] if message.content else []
        seen["content"] = [{"type": "image"}] * len(message.images) + text
    if message.tool_calls:
        seen["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls]
    return seen


def _described(tool: Tool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(tool.properties),
                  "required": list(tool.required)}
    return {"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": parameters}}

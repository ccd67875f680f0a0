"""ChatFormat: dialogs -> ids, ready for an answer, and the answer's ids -> a message.

Each generation has its own parts: a frame, a way to write calls, and rules for the roles.

Notebook 19. All generations that chat.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.answers import Answer, AnswerReader
from llama_from_scratch.tokenizer.chat_format.calls import CallStyle, write_builtin
from llama_from_scratch.tokenizer.chat_format.dialogs import Rules, refuse
from llama_from_scratch.tokenizer.chat_format.frames import (
    Headers,
    Instructions,
    Part,
    Special,
    special_id,
)
from llama_from_scratch.tokenizer.chat_format.messages import CODE, Message, Tool
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer


@record
class ChatFormat:
    """The chat format of one generation.

    `encode` returns the ids of a dialog, and `parse` the message that a model's ids contain.
    `calls`: how tool calls are written; None if there are no tools. `tools_role`: the role whose
    first message lists the tools. `knowledge_date`: the system's message gives this date where it
    gives today's date. `open_roles`: the roles whose message may end without ending the turn.
    `image`: the special token that stands for an image; None if messages are only text.
    """

    name: str
    frame: Headers | Instructions
    roles: tuple[str, ...] = ("system", "user", "assistant")
    alternates: bool = False
    strips: bool = False
    calls: CallStyle | None = None
    tools_role: str = "system"
    builtin_tools: tuple[str, ...] = ()
    knowledge_date: str | None = None
    open_roles: tuple[str, ...] = ()
    image: str | None = None

    def stop_ids(self, tokenizer: AnyTokenizer) -> frozenset[int]:
        """Returns the ids that end an answer."""
        return frozenset(self._id(name, tokenizer) for name in self.frame.stops)

    def encode(
        self, dialog: Sequence[Message], tokenizer: AnyTokenizer, *,
        is_answered: bool = False, tools: Sequence[Tool] = (), builtin_tools: Sequence[str] = (),
        instructions: str | None = None, today: str | None = None,
    ) -> list[int]:
        """Returns the ids of a dialog, ready for the assistant's answer.

        `is_answered`: the dialog is finished, to train on. `tools` are listed after `instructions`
        on how to call them. `builtin_tools` are named in the system's message. `today`, such as
        "26 Jul 2024": adds the lines with dates to that message. Text never becomes a special
        token. Raises ValueError if this format does not allow the dialog, or if the vocabulary
        lacks its special tokens.
        """
        parts = self.lay_out(dialog, is_answered=is_answered, tools=tools,
                             builtin_tools=builtin_tools, instructions=instructions, today=today)
        ids: list[int] = []
        for part in parts:
            if isinstance(part, Special):
                ids.append(self._id(part.name, tokenizer))
            else:
                ids += tokenizer.encode(part)
        return ids

    def lay_out(
        self, dialog: Sequence[Message], *, is_answered: bool = False, tools: Sequence[Tool] = (),
        builtin_tools: Sequence[str] = (), instructions: str | None = None,
        today: str | None = None,
    ) -> list[Part]:
        """Returns the parts that `encode` encodes one by one, to read them or draw them.

        Takes the same arguments as `encode`.
        """
        rules = Rules(name=self.name, roles=self.roles, alternates=self.alternates,
                      open_roles=self.open_roles, marks=self.frame.marks,
                      shows_images=self.image is not None)
        rules.check(dialog, is_answered=is_answered)
        if (tools or builtin_tools) and any(message.images for message in dialog):
            names = [*(tool.name for tool in tools), *builtin_tools]
            self._refuse("a dialog with images has no tools", names,
                         "leave the tools or the images out")
        self._check_tools(tools, builtin_tools, instructions, today)
        dialog = self._with_lead(dialog, tools, builtin_tools, instructions, today)
        turns = [(message, self._body(message)) for message in dialog]
        return list(self.frame.lay_out(turns, is_answered=is_answered))

    def parse(self, ids: Sequence[int], tokenizer: AnyTokenizer) -> Answer:
        """Returns the answer in `ids`: what follows its header, and the id that ends it.

        Text that looks like a call but is not one stays text, and the answer names the problem.
        Nothing in it is ever run. Raises ValueError if the ids do not end like an answer, or are
        outside the vocabulary.
        """
        reader = AnswerReader(name=self.name, frame=self.frame, has_calls=self.calls is not None,
                              builtin_tools=self.builtin_tools, strips=self.strips)
        return reader.read(ids, tokenizer)

    def _check_tools(
        self, tools: Sequence[Tool], builtin_tools: Sequence[str], instructions: str | None,
        today: str | None,
    ) -> None:
        if tools and self.calls is None:
            self._refuse("there are no tool calls", tools[0].name,
                         "give no tools, or use Llama 3.1's format")
        if unknown := [name for name in builtin_tools if name not in self.builtin_tools]:
            self._refuse(f"the built-in tools are {', '.join(self.builtin_tools) or 'none'}",
                         unknown[0], "give a Tool")
        if today is not None and self.knowledge_date is None:
            self._refuse("the system's message has no date", today,
                         "leave today out, or write it into the content")
        if instructions is not None and not tools:
            raise ValueError(f"instructions introduce tools; got {instructions!r:.80} without "
                             "tools. Give tools too")

    def _with_lead(
        self, dialog: Sequence[Message], tools: Sequence[Tool], builtin_tools: Sequence[str],
        instructions: str | None, today: str | None,
    ) -> list[Message]:
        """Returns the dialog with the lines about dates and tools."""
        dialog = list(dialog)
        lead = "Environment: ipython\n" if tools or builtin_tools else ""
        if named := [name for name in builtin_tools if name != CODE]:
            lead += f"Tools: {', '.join(named)}\n"
        if today is not None:
            lead += f"Cutting Knowledge Date: {self.knowledge_date}\nToday Date: {today}\n"
        if today is not None or named:
            lead += "\n"
        listed = ""
        if tools and self.calls is not None:
            intro = self.calls.instructions if instructions is None else instructions
            listed = f"{intro}\n\n{self.calls.list_tools(tools)}\n\n"
        is_in_system = bool(lead) or (listed and self.tools_role == "system")
        if is_in_system and dialog[0].role != "system":
            dialog.insert(0, Message(role="system"))
        for i, message in enumerate(dialog):
            if listed and message.role == self.tools_role:
                dialog[i], listed = replace(message, content=listed + message.content), ""
        if listed:
            roles = [message.role for message in dialog]
            self._refuse(f"tools are listed in the first message of the {self.tools_role}", roles,
                         "add such a message")
        if lead:
            dialog[0] = replace(dialog[0], content=lead + dialog[0].content)
        return dialog

    def _body(self, message: Message) -> list[Part]:
        content = message.content.strip() if self.strips else message.content
        images: list[Part] = [Special(self.image or "")] * len(message.images)
        text = [*images, content] if content else images
        calls = message.tool_calls
        if not calls:
            return text
        names = [call.name for call in calls]
        if self.calls is None or isinstance(self.frame, Instructions):
            self._refuse("there are no tool calls", names[0],
                         "write the call as content, or use Llama 3.1's format")
        opening, closing = self.frame.code
        if any(name in self.builtin_tools for name in names):
            if len(calls) > 1:
                self._refuse("a message with a call of a built-in tool may have no other call",
                             names, "give each call its own message")
            end = [Special(closing)] if closing else []
            return [*text, Special(opening), write_builtin(calls[0]), *end]
        if text:
            self._refuse("a message with calls may have no content", content,
                         "leave the content out")
        if self.calls.max_calls is not None and len(calls) > self.calls.max_calls:
            self._refuse("a message may call only one tool", names,
                         "give each call its own message")
        return [self.calls.write(calls)]

    def _id(self, name: str, tokenizer: AnyTokenizer) -> int:
        return special_id(name, tokenizer, generation=self.name)

    def _refuse(self, rule: str, got: object, cure: str) -> NoReturn:
        refuse(self.name, rule, got, cure)

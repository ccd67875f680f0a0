"""Which dialogs the format of a generation allows: the order of roles, and what a message may hold.

Notebook 19. All generations that chat.
"""

from collections.abc import Sequence
from typing import NoReturn

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.messages import Message


@record
class Rules:
    """The rules for dialogs of the generation `name`.

    `alternates`: user and assistant take turns. `open_roles`: the roles whose message may end
    without ending the turn. `marks`: texts that mark turns, which no message may contain.
    `shows_images`: messages of a user may show images.
    """

    name: str
    roles: tuple[str, ...]
    alternates: bool
    open_roles: tuple[str, ...]
    marks: tuple[str, ...]
    shows_images: bool

    def check(self, dialog: Sequence[Message], *, is_answered: bool) -> None:
        """Raises ValueError at the first rule that `dialog` breaks."""
        roles = [message.role for message in dialog]
        if not roles or roles == ["system"]:
            self._refuse("a dialog needs a message in addition to the system's", roles,
                         "add a user's message")
        for message in dialog:
            self._check_message(message)
        if "system" in roles[1:]:
            self._refuse("the system may have only one message, the first of the dialog", roles,
                         "join the system's messages at the beginning")
        spoken = roles[roles[0] == "system" :]
        if self.alternates and spoken != (["user", "assistant"] * len(spoken))[: len(spoken)]:
            self._refuse("user and assistant must take turns, and the user begins", roles,
                         "join neighboring messages of the same role")
        self._check_tool_turns(dialog, roles)
        is_last = roles[-1] == "assistant"
        if is_answered != is_last:
            ask = "leave it out to ask the model, or give is_answered=True"
            self._refuse("a dialog must end with the assistant's message if it is answered, and "
                         "only then", roles, ask if is_last else "add the answer")

    def _check_message(self, message: Message) -> None:
        if message.role not in self.roles:
            self._refuse(f"a role must be one of {', '.join(self.roles)}", message.role,
                         "leave the message out, or use Llama 3.1's format")
        if not message.ends_turn and message.role not in self.open_roles:
            speakers = " or ".join(self.open_roles) or "no role"
            self._refuse(f"a message that does not end the turn is allowed for {speakers}",
                         message.role, "give ends_turn=True")
        if message.images and not self.shows_images:
            self._refuse("messages are only text", f"{len(message.images)} images", "leave the "
                         "images out, or use Llama 3.2 Vision's format with a model that sees")
        if found := [mark for mark in self.marks if mark in message.content]:
            self._refuse(f"{', '.join(self.marks)} mark the turns, so no message may contain one",
                         found[0], "remove it")

    def _check_tool_turns(self, dialog: Sequence[Message], roles: list[str]) -> None:
        neighbors = zip([None, *roles[:-1]], dialog, [*roles[1:], None], strict=True)
        for before, message, after in neighbors:
            if message.role == "ipython" and before not in ("assistant", "ipython"):
                self._refuse("a tool's result must follow the assistant's message that called the "
                             "tool", roles, "put it after that message")
            is_open = message.role == "assistant" and not message.ends_turn
            if is_open and after not in (None, "ipython"):
                self._refuse("a tool's result must follow an assistant's message that does not end "
                             "the turn", roles, "add the result with the role ipython, or give "
                             "ends_turn=True")

    def _refuse(self, rule: str, got: object, cure: str) -> NoReturn:
        refuse(self.name, rule, got, cure)


def refuse(name: str, rule: str, got: object, cure: str) -> NoReturn:
    """Raises ValueError with a rule of generation `name`, the value received and the cure."""
    raise ValueError(f"in {name} {rule}; got {got!r:.200}; {cure}")

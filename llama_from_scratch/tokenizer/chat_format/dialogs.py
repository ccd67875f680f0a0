"""Which dialogs a generation can say: the order of roles, and what a message may hold.

Notebook 19. All generations that chat.
"""

from collections.abc import Sequence
from typing import NoReturn

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.messages import Message


@record
class Rules:
    """The rules for dialogs of the generation `name`.

    `alternates`: user and assistant take turns. `open_roles`: who may end a message before the turn
    ends. `marks`: texts that mark turns, which no message may hold.
    """

    name: str
    roles: tuple[str, ...]
    alternates: bool
    open_roles: tuple[str, ...]
    marks: tuple[str, ...]

    def check(self, dialog: Sequence[Message], *, is_answered: bool) -> None:
        """Raises ValueError at the first rule that `dialog` breaks."""
        roles = [message.role for message in dialog]
        if not roles or roles == ["system"]:
            self._refuse("a dialog has a message beside the system's", roles,
                         "add a user's message")
        for message in dialog:
            self._check_message(message)
        if "system" in roles[1:]:
            self._refuse("the system's message is the first and only one", roles,
                         "join the system's messages in front")
        spoken = roles[roles[0] == "system" :]
        if self.alternates and spoken != (["user", "assistant"] * len(spoken))[: len(spoken)]:
            self._refuse("user and assistant take turns, and the user begins", roles,
                         "join neighbours of one role")
        self._check_tool_turns(dialog, roles)
        is_last = roles[-1] == "assistant"
        if is_answered != is_last:
            ask = "leave it out to ask the model, or give is_answered=True"
            self._refuse("the assistant's message comes last in a dialog that is answered, and in "
                         "no other", roles, ask if is_last else "add the answer")

    def _check_message(self, message: Message) -> None:
        if message.role not in self.roles:
            self._refuse(f"the roles are {', '.join(self.roles)}", message.role,
                         "leave it out, or take Llama 3.1's format")
        if not message.ends_turn and message.role not in self.open_roles:
            speakers = " or ".join(self.open_roles) or "nobody"
            self._refuse(f"a message that does not end the turn is by {speakers}", message.role,
                         "give ends_turn=True")
        if found := [mark for mark in self.marks if mark in message.content]:
            self._refuse(f"{', '.join(self.marks)} mark the turns, so no message holds one",
                         found[0], "take it out")

    def _check_tool_turns(self, dialog: Sequence[Message], roles: list[str]) -> None:
        neighbors = zip([None, *roles[:-1]], dialog, [*roles[1:], None], strict=True)
        for before, message, after in neighbors:
            if message.role == "ipython" and before not in ("assistant", "ipython"):
                self._refuse("what a tool returns follows the assistant that called it", roles,
                             "put it after that message")
            is_open = message.role == "assistant" and not message.ends_turn
            if is_open and after not in (None, "ipython"):
                self._refuse("an assistant whose turn has not ended waits for a tool", roles,
                             "add what the tool returned, role ipython, or give ends_turn=True")

    def _refuse(self, rule: str, got: object, cure: str) -> NoReturn:
        refuse(self.name, rule, got, cure)


def refuse(name: str, rule: str, got: object, cure: str) -> NoReturn:
    """Raises ValueError with a rule of the generation `name`, the value received and the cure."""
    raise ValueError(f"in {name} {rule}; got {got!r:.200}; {cure}")

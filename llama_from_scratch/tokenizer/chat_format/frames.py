"""How the turns of a dialog are marked: with headers of special tokens, or in plain text.

A dialog is a list of parts: special tokens by name, and text. Text is encoded without special
tokens, so nothing that a user types can open a header or end a turn.

Notebook 19. Instructions: Llama 2; Headers: Llama 3 to 4.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.messages import Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer


class Special(NamedTuple):
    """A special token among the parts of a dialog; all other parts are text."""

    name: str


Part = str | Special
Turn = tuple[Message, Sequence[Part]]
"""A message, and the parts of its body."""


@record
class Headers:
    """Each message has a header of special tokens, and a special token at its end.

    The role, the blank line and the content are encoded separately.
    """

    bos: str
    start: str
    end: str
    eot: str
    eom: str | None
    final: str
    code: tuple[str, str] = ("", "")
    """The special tokens before and after the code of a call; the second may be empty."""

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.final, self.eom, self.eot)))

    @property
    def marks(self) -> tuple[str, ...]:
        """Empty, because no text marks a turn here."""
        return ()

    def header(self, role: str) -> list[Part]:
        return [Special(self.start), role, Special(self.end), "\n\n"]

    def lay_out(self, turns: Sequence[Turn], *, is_answered: bool) -> Iterator[Part]:
        yield Special(self.bos)
        for message, body in turns:
            yield from (*self.header(message.role), *body)
            yield Special(self.eot if message.ends_turn else self.eom or "")
        if not is_answered:
            yield from self.header("assistant")


@record
class Instructions:
    """Two marks in plain text are around a user's turn.

    The turn and its answer are one text between bos and eos.
    """

    bos: str = "<s>"
    eos: str = "</s>"
    open: str = "[INST]"
    close: str = "[/INST]"
    system: tuple[str, str] = ("<<SYS>>", "<</SYS>>")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.eos,)

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that mark turns, which no message may contain."""
        return (self.open, self.close, *self.system)

    def lay_out(self, turns: Sequence[Turn], *, is_answered: bool) -> Iterator[Part]:
        said = [(message.role, "".join(map(str, body))) for message, body in turns]
        lead = ""
        if said[0][0] == "system":
            lead = f"{self.system[0]}\n{said.pop(0)[1]}\n{self.system[1]}\n\n"
        for i in range(0, len(said), 2):
            asked = f"{self.open} {(lead + said[i][1]).strip()} {self.close}"
            lead = ""
            yield Special(self.bos)
            if i + 1 < len(said):
                yield f"{asked} {said[i + 1][1].strip()} "
                yield Special(self.eos)
            else:
                yield asked


def special_id(name: str, tokenizer: AnyTokenizer, *, generation: str) -> int:
    """Returns the id of a special token. Raises ValueError if the vocabulary lacks it."""
    if name not in tokenizer.special_ids:
        raise ValueError(f"a chat in {generation} needs the special token {name!r}; the vocabulary "
                         f"has {list(tokenizer.special_ids)[:12]}. Load the tokenizer with the "
                         f"special tokens of {generation}")
    return tokenizer.special_ids[name]

"""Reads an answer: its content, its tool calls, or why text that looks like a call is not one.

Notebook 19. All generations that chat.
"""

from collections.abc import Sequence

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format.calls import read_claimed, read_tagged_tail
from llama_from_scratch.tokenizer.chat_format.dialogs import refuse
from llama_from_scratch.tokenizer.chat_format.frames import Headers, Instructions, special_id
from llama_from_scratch.tokenizer.chat_format.messages import Message, ToolCall
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer

Said = tuple[str, tuple[ToolCall, ...], str | None]
"""Content, calls and problem."""


@record
class Answer:
    """The answer of a model.

    `problem`: why text that looks like a call was kept as text, or another problem; None if there
    is no problem.
    """

    message: Message
    problem: str | None = None


@record
class AnswerReader:
    """Reads the answers of generation `name`. `strips`: removes white space around the content."""

    name: str
    frame: Headers | Instructions
    has_calls: bool
    builtin_tools: tuple[str, ...]
    strips: bool

    def read(self, ids: Sequence[int], tokenizer: AnyTokenizer) -> Answer:
        """Returns the answer in `ids`: what follows its header, and the id that ends it.

        Raises ValueError if the ids do not end like an answer, or are outside the vocabulary.
        """
        stops = {self._id(name, tokenizer) for name in self.frame.stops}
        if not ids or ids[-1] not in stops or not stops.isdisjoint(ids[:-1]):
            refuse(self.name,
                   f"an answer must end with one of the ids {sorted(stops)} and contain no other "
                   "of them", list(ids[-8:]),
                   "generate more tokens, cut after the first of these ids, or append the id that "
                   "generation left out")
        body = list(ids[:-1])
        whole = tokenizer.decode(body)
        if isinstance(self.frame, Instructions):
            said, is_open, tags = self._read_marked(whole), False, []
        else:
            said = self._read_calls(self.frame, body, whole, tokenizer)
            is_open = self.frame.eom is not None and ids[-1] == self._id(self.frame.eom, tokenizer)
            tags = [tag for tag in self.frame.code if tag]
        content, calls, problem = said
        name_of = {i: name for name, i in tokenizer.special_ids.items()}
        strange = [name_of[i] for i in body if i in name_of]
        if strange and problem is None and not (calls and strange == tags):
            names = ", ".join(strange[:8])
            problem = f"an answer must not contain special tokens; this one contains {names}"
        message = Message(role="assistant", content=content.strip() if self.strips else content,
                          tool_calls=calls, ends_turn=not is_open)
        return Answer(message=message, problem=problem)

    def _read_marked(self, whole: str) -> Said:
        found = [mark for mark in self.frame.marks if mark in whole]
        return whole, (), (f"an answer must not mark a turn; this one contains {found[0]}"
                           if found else None)

    def _read_calls(
        self, frame: Headers, body: list[int], whole: str, tokenizer: AnyTokenizer
    ) -> Said:
        if not self.has_calls:
            return whole, (), None
        opening, closing = frame.code
        tag = self._id(opening, tokenizer)
        if tag not in body:
            calls, problem = read_claimed(whole.strip())
            return ("" if calls else whole), calls, problem
        content, code = body[: body.index(tag)], body[body.index(tag) + 1 :]
        if closing:
            if code[-1:] != [self._id(closing, tokenizer)]:
                problem = (f"{opening} must be closed by {closing} at the end of the answer; here "
                           "it is not")
                return whole, (), problem
            code.pop()
        calls, problem = read_tagged_tail(tokenizer.decode(code), builtin_tools=self.builtin_tools)
        return (tokenizer.decode(content) if calls else whole), calls, problem

    def _id(self, name: str, tokenizer: AnyTokenizer) -> int:
        return special_id(name, tokenizer, generation=self.name)

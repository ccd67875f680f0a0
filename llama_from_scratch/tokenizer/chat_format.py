"""Dialogs and tool calls <-> ids: what a chat model is shown, and what its answer says.

A dialog is laid out as parts: special tokens by name, and text, which is encoded with no special token allowed, so nothing
that a user types can open a header or end a turn. A generation is a `ChatFormat`, which says what it has; Llama 2 marks
turns in plain text, and from Llama 3 on a message has a header of special tokens and an end.

Notebook 19. Sources: meta-llama/llama, llama/generation.py (2); llama-models, models/llama3/chat_format.py and prompt formats
of 3.1 to 4. The sentences with which Meta introduces tools are not here: give them as `instructions`, or ours are used.
"""

import ast
import json
import keyword
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from llama_from_scratch.config import nearest, record
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

CODE = "code_interpreter"
"""The tool whose call is source code, its one argument `code`."""

_ROLES = ("system", "user", "assistant", "ipython")
_MAX_DEPTH = 64
_MAX_CALL_CHARS = 100_000


@record
class ToolCall:
    """A tool's name and its arguments by name, which are JSON values."""

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.name or re.search(r"[<>\s\"]", self.name):
            raise ValueError(f"a tool's name is text without blanks, quotes and angle brackets, got {self.name!r}; rename it")
        _check_json(self.arguments, f"the arguments of {self.name!r}")
        if self.name == CODE and not (list(self.arguments) == ["code"] and isinstance(self.arguments["code"], str)):
            raise ValueError(f"a call of {CODE} has one argument, code, a str; got {dict(self.arguments)!r:.200}")


@record
class Message:
    """What one role says. An assistant's message may call tools, and may wait for what they return (`ends_turn=False`)."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    ends_turn: bool = True

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            hint = "what a tool returns has the role 'ipython'" if self.role == "tool" else nearest(self.role, _ROLES)
            raise ValueError(f"a role is one of {', '.join(_ROLES)}; got {self.role!r}; {hint}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"the assistant calls tools, got a call of {self.tool_calls[0].name!r} by {self.role!r}; give the "
                             "call to an assistant's message")


@record
class Tool:
    """A function that the model may call: `properties` gives each parameter a JSON schema, `required` names those it needs."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_json(self.properties, f"the properties of {self.name!r}")
        if missing := [name for name in self.required if name not in self.properties]:
            raise ValueError(f"a required parameter has properties, got {missing[0]!r} of {self.name!r} without; "
                             f"{nearest(missing[0], self.properties)}")


@record
class Answer:
    """What a model said, and the `problem`, if any, that left text as text which looks like a call."""

    message: Message
    problem: str | None = None


class Special(NamedTuple):
    """A special token in a layout. All else there is text."""

    name: str


Part = str | Special


# --- how calls are written --------------------------------------------------------------------------------------------


@record
class CallStyle:
    """One way to write calls. Text that begins with `opening` claims to be one; `read` raises ValueError if it is not."""

    opening: str
    write: Callable[[Sequence[ToolCall]], str]
    read: Callable[[str], tuple[ToolCall, ...]]
    list_tools: Callable[[Sequence[Tool]], str]
    instructions: str
    max_calls: int | None = 1


def _write_json(calls: Sequence[ToolCall]) -> str:
    return json.dumps({"name": calls[0].name, "parameters": dict(calls[0].arguments)}, ensure_ascii=False)


def _read_json(text: str) -> tuple[ToolCall, ...]:
    value = _load_json(text)
    if set(value) - {"type"} != {"name", "parameters"} or value.get("type", "function") != "function":
        raise ValueError(f"a call in JSON has a name and parameters, got {sorted(value)}")
    if not isinstance(value["name"], str) or not isinstance(value["parameters"], dict):
        raise ValueError("the name of a call is a string and its parameters are an object")
    return (ToolCall(name=value["name"], arguments=value["parameters"]),)


def _write_pythonic(calls: Sequence[ToolCall]) -> str:
    for name in (name for call in calls for name in (call.name, *call.arguments)):
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or keyword.iskeyword(name):
            raise ValueError(f"a call in Python has names of ASCII letters, digits and _, no keywords; got {name!r}; rename it")
    return "[" + ", ".join(f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls) + "]"


def _read_pythonic(text: str) -> tuple[ToolCall, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model's "\d" is no warning about our code
        body = ast.parse(text, mode="eval").body
        if not isinstance(body, ast.List) or not body.elts:
            raise ValueError("calls in Python are a list with at least one call")
        return tuple(map(_python_call, body.elts))


def _python_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("a call in Python is a name and keyword arguments, such as f(a=1)")
    names = [argument.arg for argument in node.keywords]
    if None in names or len(set(names)) < len(names):
        raise ValueError(f"the arguments of {node.func.id!r} have a name each, and each its own")
    return ToolCall(name=node.func.id, arguments={name: _literal(a.value) for name, a in zip(names, node.keywords)})


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"an argument is a literal, got {ast.unparse(node):.80}") from None


def _write_tagged(calls: Sequence[ToolCall]) -> str:
    return f"<function={calls[0].name}>{json.dumps(dict(calls[0].arguments), ensure_ascii=False)}</function>"


def _read_tagged(text: str) -> tuple[ToolCall, ...]:
    found = re.fullmatch(r"<function=([^<>\s]+)>(.*)</function>", text, re.DOTALL)
    if not found:
        raise ValueError("a call in tags is <function=name>{...}</function>, whole")
    return (ToolCall(name=found[1], arguments=_load_json(found[2])),)


def _load_json(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key of an object comes once")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=once)
    if not isinstance(value, dict):
        raise ValueError(f"this is a JSON object, got {value!r:.80}")
    return value


def _tools_one_by_one(tools: Sequence[Tool]) -> str:
    return "\n\n".join(
        json.dumps({"type": "function", "function": _described(tool, "object")}, indent=4, ensure_ascii=False) for tool in tools
    )


def _tools_in_a_list(tools: Sequence[Tool]) -> str:
    return json.dumps([_described(tool, "dict") for tool in tools], indent=4, ensure_ascii=False)


def _described(tool: Tool, kind: str) -> dict[str, Any]:
    parameters = {"type": kind, "properties": dict(tool.properties), "required": list(tool.required)}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


JSON_CALLS = CallStyle(
    opening="{", write=_write_json, read=_read_json, list_tools=_tools_one_by_one,
    instructions='To call one of these functions, write only {"name": its name, "parameters": {each argument by name}}.',
)  # fmt: skip
PYTHONIC_CALLS = CallStyle(
    opening="[", write=_write_pythonic, read=_read_pythonic, list_tools=_tools_in_a_list, max_calls=None,
    instructions="To call some of these functions, write only [first(argument=value), second(argument=value)].",
)  # fmt: skip
TAGGED_CALLS = CallStyle(
    opening="<function=", write=_write_tagged, read=_read_tagged, list_tools=_tools_one_by_one,
    instructions="To call one of these functions, write only <function=its name>{each argument by name, in JSON}</function>.",
)  # fmt: skip
_STYLES = (JSON_CALLS, PYTHONIC_CALLS, TAGGED_CALLS)


# --- how turns are marked ---------------------------------------------------------------------------------------------


@record
class Headers:
    """Each message has a header of special tokens and an end; text is encoded role, blank line and content apart."""

    bos: str
    start: str
    end: str
    eot: str
    eom: str | None
    final: str
    code: tuple[str, str] = ("", "")
    """Around the code of a call: its beginning and, if it has one, its end."""

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.final, self.eom, self.eot)))

    def header(self, role: str) -> list[Part]:
        return [Special(self.start), role, Special(self.end), "\n\n"]

    def lay_out(self, turns: Sequence[tuple[Message, Sequence[Part]]], *, is_answered: bool) -> Iterator[Part]:
        yield Special(self.bos)
        for message, body in turns:
            yield from (*self.header(message.role), *body)
            yield Special(self.eot if message.ends_turn else self.eom or "")
        if not is_answered:
            yield from self.header("assistant")


@record
class Instructions:
    """A user's turn stands between two marks of plain text; it and its answer are one text between bos and eos."""

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
        return (self.open, self.close, *self.system)

    def lay_out(self, turns: Sequence[tuple[Message, Sequence[Part]]], *, is_answered: bool) -> Iterator[Part]:
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


# --- what a generation has --------------------------------------------------------------------------------------------


@record
class ChatFormat:
    """How one generation chats: `encode` gives the ids of a dialog, `parse` the message that a model's ids are.

    Without `calls` there are no tools. `tools_role`: whose first message lists them. `knowledge_date`: what the system
    message says of it when it says the date. `open_roles`: who may end a message before the turn ends.
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

    def stop_ids(self, tokenizer: Tokenizer | SentencePiece) -> frozenset[int]:
        """The ids that end an answer."""
        return frozenset(self._id(name, tokenizer) for name in self.frame.stops)

    def encode(
        self,
        dialog: Sequence[Message],
        tokenizer: Tokenizer | SentencePiece,
        *,
        is_answered: bool = False,
        tools: Sequence[Tool] = (),
        builtin_tools: Sequence[str] = (),
        instructions: str | None = None,
        today: str | None = None,
    ) -> list[int]:
        """The ids of a dialog, ready for the assistant's answer, or `is_answered`: a finished dialog, to train on.

        `tools` are listed after `instructions` on how to call them. `builtin_tools` are named in the system message, which
        with `today`, as "26 Jul 2024", also has the lines on dates. Text never becomes a special token. Raises ValueError
        if this format cannot say the dialog, or if the vocabulary lacks its special tokens.
        """
        parts = self.lay_out(dialog, is_answered=is_answered, tools=tools, builtin_tools=builtin_tools,
                             instructions=instructions, today=today)
        ids: list[int] = []
        for part in parts:
            ids += [self._id(part.name, tokenizer)] if isinstance(part, Special) else tokenizer.encode(part)
        return ids

    def lay_out(
        self,
        dialog: Sequence[Message],
        *,
        is_answered: bool = False,
        tools: Sequence[Tool] = (),
        builtin_tools: Sequence[str] = (),
        instructions: str | None = None,
        today: str | None = None,
    ) -> list[Part]:
        """The parts that `encode` encodes one by one, with the same arguments: for reading, and for pictures."""
        self._check(dialog, is_answered=is_answered)
        dialog = self._with_lead(dialog, tools, builtin_tools, instructions, today)
        return list(self.frame.lay_out([(message, self._body(message)) for message in dialog], is_answered=is_answered))

    def _id(self, name: str, tokenizer: Tokenizer | SentencePiece) -> int:
        if name not in tokenizer.special_ids:
            raise ValueError(f"{self.name} chats with the special token {name!r}, which the vocabulary lacks; it has "
                             f"{list(tokenizer.special_ids)[:12]}; load the tokenizer with the special tokens of {self.name}")
        return tokenizer.special_ids[name]

    def _refuse(self, rule: str, got: object, cure: str) -> NoReturn:
        raise ValueError(f"in {self.name} {rule}; got {got!r:.200}; {cure}")

    def _check(self, dialog: Sequence[Message], *, is_answered: bool) -> None:
        roles = [message.role for message in dialog]
        if not roles or roles == ["system"]:
            self._refuse("a dialog has a message beside the system's", roles, "add a user's message")
        for message in dialog:
            if message.role not in self.roles:
                self._refuse(f"the roles are {', '.join(self.roles)}", message.role, "leave it out, or take Llama 3.1's format")
            if not message.ends_turn and message.role not in self.open_roles:
                self._refuse(f"a message that does not end the turn is by {' or '.join(self.open_roles) or 'nobody'}",
                             message.role, "give ends_turn=True")
            marks = self.frame.marks if isinstance(self.frame, Instructions) else ()
            if found := [mark for mark in marks if mark in message.content]:
                self._refuse(f"{', '.join(marks)} mark the turns, so no message holds one", found[0], "take it out")
        if "system" in roles[1:]:
            self._refuse("the system's message is the first and only one", roles, "join the system's messages in front")
        spoken = roles[roles[0] == "system" :]
        if self.alternates and spoken != (["user", "assistant"] * len(spoken))[: len(spoken)]:
            self._refuse("user and assistant take turns, and the user begins", roles, "join neighbours of one role")
        for before, message, after in zip([None, *dialog], dialog, [*dialog[1:], None]):
            if message.role == "ipython" and (before is None or before.role not in ("assistant", "ipython")):
                self._refuse("what a tool returns follows the assistant that called it", roles, "put it after that message")
            if message.role == "assistant" and not message.ends_turn and after is not None and after.role != "ipython":
                self._refuse("an assistant whose turn has not ended waits for a tool", roles,
                             "add what the tool returned, role ipython, or give ends_turn=True")
        if is_answered != (roles[-1] == "assistant"):
            cure = "leave it out to ask the model, or give is_answered=True" if roles[-1] == "assistant" else "add the answer"
            self._refuse("the assistant's message comes last in a dialog that is answered, and in no other", roles, cure)

    def _with_lead(
        self,
        dialog: Sequence[Message],
        tools: Sequence[Tool],
        builtin_tools: Sequence[str],
        instructions: str | None,
        today: str | None,
    ) -> list[Message]:
        """The dialog with the lines that tell of dates and tools."""
        dialog = list(dialog)
        if tools and self.calls is None:
            self._refuse("there are no tool calls", tools[0].name, "give no tools, or take Llama 3.1's format")
        if unknown := [name for name in builtin_tools if name not in self.builtin_tools]:
            self._refuse(f"the built-in tools are {', '.join(self.builtin_tools) or 'none'}", unknown[0], "give a Tool")
        if today is not None and self.knowledge_date is None:
            self._refuse("the system's message has no date", today, "leave today out, or write it into the content")
        if instructions is not None and not tools:
            raise ValueError(f"instructions introduce tools, got {instructions!r:.80} without any; give tools too")
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
        if (lead or (listed and self.tools_role == "system")) and dialog[0].role != "system":
            dialog.insert(0, Message(role="system"))
        for i, message in enumerate(dialog):
            if listed and message.role == self.tools_role:
                dialog[i], listed = replace(message, content=listed + message.content), ""
        if listed:
            self._refuse(f"tools are listed in the first message of the {self.tools_role}", [m.role for m in dialog], "add one")
        if lead:
            dialog[0] = replace(dialog[0], content=lead + dialog[0].content)
        return dialog

    def _body(self, message: Message) -> list[Part]:
        content = message.content.strip() if self.strips else message.content
        text: list[Part] = [content] if content else []
        calls = message.tool_calls
        if not calls:
            return text
        if self.calls is None:
            self._refuse("there are no tool calls", calls[0].name, "write what it did as content, or take Llama 3.1's format")
        opening, closing = self.frame.code
        if any(call.name in self.builtin_tools for call in calls):
            if len(calls) > 1:
                self._refuse("a call of a built-in tool stands alone", [call.name for call in calls], "give each a message")
            return [*text, Special(opening), _write_builtin(calls[0]), *([Special(closing)] if closing else [])]
        if text:
            self._refuse("calls stand alone in their message", content, "leave the content out")
        if self.calls.max_calls is not None and len(calls) > self.calls.max_calls:
            self._refuse("a message calls one tool", [call.name for call in calls], "give each call a message")
        return [self.calls.write(calls)]

    def parse(self, ids: Sequence[int], tokenizer: Tokenizer | SentencePiece) -> Answer:
        """What the ids of an answer say, from after its header to the id that ends it.

        Text that looks like a call and is none stays text, and the answer names the problem; nothing in it is ever run.
        Raises ValueError if the ids do not end as an answer does, or are not of this vocabulary.
        """
        stops = self.stop_ids(tokenizer)
        if not ids or ids[-1] not in stops or not stops.isdisjoint(ids[:-1]):
            self._refuse(f"an answer ends with one of the ids {sorted(stops)}, and has it once", list(ids[-8:]),
                         "generate more tokens, cut after the first of them, or append the one that generation left out")
        body = list(ids[:-1])
        eom = self.frame.eom if isinstance(self.frame, Headers) else None
        is_open = eom is not None and ids[-1] == tokenizer.special_ids[eom]
        whole = tokenizer.decode(body)
        content, calls, problem = self._read(body, whole, tokenizer)
        names = {i: name for name, i in tokenizer.special_ids.items()}
        strange = [names[i] for i in body if i in names]
        if calls and isinstance(self.frame, Headers) and strange == [tag for tag in self.frame.code if tag]:
            strange = []
        if strange and problem is None:
            problem = f"special tokens within the answer are no text: {', '.join(strange[:8])}"
        message = Message(role="assistant", content=content.strip() if self.strips else content, tool_calls=calls,
                          ends_turn=not is_open)
        return Answer(message=message, problem=problem)

    def _read(
        self, body: list[int], whole: str, tokenizer: Tokenizer | SentencePiece
    ) -> tuple[str, tuple[ToolCall, ...], str | None]:
        """Content, calls and problem."""
        if isinstance(self.frame, Instructions):
            found = [mark for mark in self.frame.marks if mark in whole]
            return whole, (), f"the answer holds {found[0]}, which marks a turn" if found else None
        if self.calls is None:
            return whole, (), None
        opening, closing = self.frame.code
        tag = self._id(opening, tokenizer)
        if tag not in body:
            style = next((style for style in _STYLES if whole.strip().startswith(style.opening)), None)
            calls, problem = _try(style.read, whole.strip()) if style else ((), None)
            return ("" if calls else whole), calls, problem
        content, code = body[: body.index(tag)], body[body.index(tag) + 1 :]
        if closing:
            if code[-1:] != [self._id(closing, tokenizer)]:
                return whole, (), f"{opening} is closed by {closing} at the end of the answer, and here it is not"
            code.pop()
        calls, problem = _try(self._read_tail, tokenizer.decode(code))
        return (tokenizer.decode(content) if calls else whole), calls, problem

    def _read_tail(self, text: str) -> tuple[ToolCall, ...]:
        """The call after a tag: JSON, a built-in tool, or code."""
        if text.strip().startswith("{"):
            return _read_json(text.strip())
        found = re.fullmatch(r'(\w+)\.call\(query="([^"]*)"\)', text.strip())
        if found and found[1] in self.builtin_tools:
            return (ToolCall(name=found[1], arguments={"query": found[2]}),)
        return (ToolCall(name=CODE, arguments={"code": text}),)


def _write_builtin(call: ToolCall) -> str:
    if call.name == CODE:
        return call.arguments["code"]
    query = call.arguments.get("query")
    if list(call.arguments) != ["query"] or not isinstance(query, str) or '"' in query:
        return _write_json([call])  # which a tag may hold too
    return f'{call.name}.call(query="{query}")'


def _try(read: Callable[[str], tuple[ToolCall, ...]], text: str) -> tuple[tuple[ToolCall, ...], str | None]:
    """The calls of `text`, or why there are none. Parsers need quadratic time for some long texts."""
    try:
        if len(text) > _MAX_CALL_CHARS:
            raise ValueError(f"a call has at most {_MAX_CALL_CHARS} characters, got {len(text)}")
        return read(text), None
    except (ValueError, SyntaxError) as error:
        return (), f"this begins like a tool call and is kept as text: {error}"
    except (RecursionError, MemoryError):
        return (), "this begins like a tool call and is kept as text: it is nested too deeply"


def _check_json(value: Any, what: str) -> None:
    """Raises ValueError unless `value` is an object of JSON: string keys, finite numbers, at most 64 levels."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} are a dict, got {value!r:.80}")
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict) and all(isinstance(key, str) for key in each):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif not (each is None or isinstance(each, str | int) or (isinstance(each, float) and math.isfinite(each))):
                raise ValueError(f"{what} are JSON values, with str keys and finite numbers; got {each!r:.80}; convert it")
        if not inner:
            return
        level = inner
    raise ValueError(f"{what} are nested at most {_MAX_DEPTH} deep, got more; flatten them")


_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
_HEADERS_3 = Headers(bos=_BEGIN, start="<|start_header_id|>", end="<|end_header_id|>", eot="<|eot_id|>", eom=None, final=_END)
_SEARCH = ("brave_search", "wolfram_alpha", CODE)

LLAMA_2 = ChatFormat(name="Llama 2", frame=Instructions(), alternates=True)
LLAMA_3 = ChatFormat(name="Llama 3", frame=_HEADERS_3, strips=True)
LLAMA_3_1 = ChatFormat(
    name="Llama 3.1", frame=replace(_HEADERS_3, eom="<|eom_id|>", code=("<|python_tag|>", "")), roles=_ROLES,
    calls=JSON_CALLS, tools_role="user", builtin_tools=_SEARCH, knowledge_date="December 2023", open_roles=("assistant",),
)  # fmt: skip
LLAMA_3_2 = replace(LLAMA_3_1, name="Llama 3.2", calls=PYTHONIC_CALLS, tools_role="system")
LLAMA_3_3 = replace(LLAMA_3_2, name="Llama 3.3")
LLAMA_4 = ChatFormat(
    name="Llama 4",
    frame=Headers(
        bos=_BEGIN, start="<|header_start|>", end="<|header_end|>", eot="<|eot|>", eom="<|eom|>", final=_END,
        code=("<|python_start|>", "<|python_end|>"),
    ),
    roles=_ROLES, calls=PYTHONIC_CALLS, builtin_tools=(CODE,), open_roles=("assistant", "ipython"),
)  # fmt: skip

FORMATS: Mapping[str, ChatFormat] = MappingProxyType(
    {
        "llama-2": LLAMA_2, "llama-3": LLAMA_3, "llama-3.1": LLAMA_3_1, "llama-3.2": LLAMA_3_2,
        "llama-3.2-vision": replace(LLAMA_3_1, name="Llama 3.2 Vision"), "llama-3.3": LLAMA_3_3, "llama-4": LLAMA_4,
    }
)  # fmt: skip
"""The chat format of each generation that has one."""

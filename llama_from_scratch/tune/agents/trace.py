"""What an agent did, step by step, as frozen records that can be stored and played again.

A step is one answer of the model and the calls in it. A call has the decision about it, its result,
what the model had read by then, and its cost. Playing a trace again runs the same calls in the same
order, without a model, which brings a new world to the same state.

Notebook 56.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.files import replacing_file
from llama_from_scratch.foreign import naming, read_json
from llama_from_scratch.tokenizer.chat_format import Message, ToolCall

STATUSES = ("done", "failed", "late", "refused", "unfit", "dry", "skipped")
"""What became of a call: it returned; it raised an error, or its result cannot be used; its time
was over; a gate refused it; it fits no tool; it was a dry run; the run ended before it."""
ENDS = ("answered", "steps", "tokens", "calls", "time", "repeated", "context", "unfinished")
"""Why a run ended: the model answered without a call; a budget was used up; the same call came
several times in a row; the dialog no longer fits; the model stopped in the middle of an answer."""
_VERSION = 1


@record
class AgentBudget:
    """What a whole run may use. A run names the first one that is used up.

    `tokens`: written by the model. `calls`: written by the model, also those that do not run.
    `call_s`: for one call. `result_chars`: where a result is cut. `repeats`: how often the same
    call may come in a row; the last of these does not run.
    """

    steps: int = 8
    tokens: int = 2048
    calls: int = 16
    time_s: float = 120.0
    call_s: float = 10.0
    result_chars: int = 2000
    repeats: int = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.name.endswith("_s") else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise ValueError(f"a budget of {field.name} must be a number above 0; got "
                                 f"{value!r:.80}. Give at least 1")
        if self.repeats < 2:
            raise ValueError("a call is repeated if it comes twice, so a budget of repeats must be "
                             f"at least 2; got {self.repeats}")


@record
class CallRecord:
    """One call of a model, and what became of it.

    `call`: as the model wrote it. `arguments`: with which the tool ran, or would have. `reason`:
    of the decision. `result`: what the tool gave, which a model that plans with variables does not
    read. `taint`: the tools whose results may have led to this call.
    """

    call: ToolCall
    arguments: Mapping[str, Any]
    status: str
    reason: str
    result: str
    taint: tuple[str, ...] = ()
    ungranted: tuple[str, ...] = ()
    time_ms: float = 0.0

    @property
    def is_executed(self) -> bool:
        """Whether the function was called. One that was late may have done its work or not."""
        return self.status in ("done", "failed", "late")


@record
class AgentStep:
    """One answer of the model: its ids, its text, the problem with it, and its calls."""

    n_prompt: int
    ids: tuple[int, ...]
    text: str
    problem: str | None
    calls: tuple[CallRecord, ...] = ()


@record
class AgentTrace:
    """A whole run. `messages`: the dialog at its end. `answer`: what the user is shown."""

    task: str
    steps: tuple[AgentStep, ...]
    end: str
    answer: str
    messages: tuple[Message, ...]
    budget: AgentBudget
    is_dry: bool = False
    has_variables: bool = False

    @property
    def n_tokens(self) -> int:
        """How many tokens the model wrote."""
        return sum(len(step.ids) for step in self.steps)

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All calls, in their order."""
        return tuple(call for step in self.steps for call in step.calls)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the trace to a JSON file, which `read_trace` reads."""
        with replacing_file(path) as unfinished:
            unfinished.write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        """Returns the trace as JSON. Raises ValueError if a message shows an image."""
        if any(message.images for message in self.messages):
            raise ValueError("a trace in JSON has no images; got a message with one. Leave the "
                             "images out of the task")
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)}, ensure_ascii=False,
                          indent=1, allow_nan=False)


def read_trace(path: str | os.PathLike) -> AgentTrace:
    """Returns the trace in a JSON file. Raises ValueError for a file that is not one."""
    plain = read_json(path, need="a trace needs a JSON file")
    with naming(path):
        return trace_of(plain)


def trace_of(plain: object) -> AgentTrace:
    """Returns the trace of what JSON holds of it. Raises ValueError if something is missing."""
    values = _fields(plain, "a trace")
    version = values.pop("version", None)
    if version != _VERSION:
        raise ValueError(f"a trace must have the version {_VERSION}; got {version!r:.80}. Read it "
                         "with the release that wrote it")
    steps = []
    for each in _several(values.get("steps"), "the steps"):
        step = _fields(each, "a step")
        calls = tuple(_call_record(call) for call in _several(step.get("calls"), "the calls"))
        steps.append(AgentStep(**step | {"ids": tuple(_several(step.get("ids"), "the ids")),
                                         "calls": calls}))
    messages = tuple(_message(each) for each in _several(values.get("messages"), "the messages"))
    budget = AgentBudget(**_fields(values.get("budget"), "a budget"))
    found = AgentTrace(**values | {"steps": tuple(steps), "messages": messages, "budget": budget})
    _check_word(found.end, ENDS, "the end of a trace")
    return found


def replay(
    trace: AgentTrace, functions: Mapping[str, Callable[..., object]], *,
    text_of: Callable[[object], str] | None = None,
) -> list[str]:
    """Runs the calls of a trace again, in their order, and returns where a result differs.

    `functions`: by the names of the tools, in a world like the one at the beginning of the run.
    `text_of`: how a returned value becomes a result, by default as in the run. A call that was late
    is not run, and is reported, because it may have done its work or not.
    Raises ValueError, before anything runs, if a function is missing.
    """
    from llama_from_scratch.tune.running.timed import in_words
    from llama_from_scratch.tune.tools import result_text

    executed = [call for call in trace.calls if call.is_executed]
    if missing := [each.call.name for each in executed if each.call.name not in functions]:
        raise ValueError(f"a replay needs a function for each tool that ran; got {list(functions)} "
                         f"without {missing[0]!r}. Give it")
    found = []
    for number, each in enumerate(executed, 1):
        where = f"call {number}, {each.call.name}"
        if each.status == "late":
            found.append(f"{where}: it was late in the run, and is left out")
            continue
        try:
            value = functions[each.call.name](**json.loads(json.dumps(each.arguments)))
            now = (result_text(value, max_chars=trace.budget.result_chars) if text_of is None
                   else text_of(value))
        except Exception as error:  # as in the run, an error is a result
            now = f"error: {in_words(error)}"
        if now != each.result:
            found.append(f"{where}: {each.result!r:.100} in the run, {now!r:.100} now")
    return found


def steps_in_words(trace: AgentTrace) -> Iterator[str]:
    """Yields a line for each step and call, for people."""
    for number, step in enumerate(trace.steps, 1):
        for each in step.calls:
            arguments = ", ".join(f"{name}={value!r:.60}" for name, value
                                  in each.call.arguments.items())
            marks = f" [after {', '.join(each.taint)}]" if each.taint else ""
            yield (f"{number}. {each.call.name}({arguments}){marks} {each.status}: "
                   f"{each.reason}")
            yield f"   -> {each.result:.200}"
        if not step.calls:
            yield f"{number}. {step.problem or step.text.strip():.300}"
    yield f"end: {trace.end}, {len(trace.steps)} steps, {trace.n_tokens} tokens"


def _call_record(plain: object) -> CallRecord:
    values = _fields(plain, "a call")
    call = ToolCall(**_fields(values.get("call"), "the name and arguments of a call"))
    made = CallRecord(**values | {"call": call,
                                  "taint": tuple(_several(values.get("taint"), "taint")),
                                  "ungranted": tuple(_several(values.get("ungranted"),
                                                              "ungranted"))})
    _check_word(made.status, STATUSES, "the status of a call")
    return made


def _message(plain: object) -> Message:
    values = _fields(plain, "a message")
    calls = tuple(ToolCall(**_fields(each, "a call"))
                  for each in _several(values.get("tool_calls"), "tool_calls"))
    return Message(**values | {"tool_calls": calls, "images": ()})


def _fields(plain: object, what: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError(f"{what} must be a JSON object; got {plain!r:.80}")
    return dict(plain)


def _several(plain: object, what: str) -> Sequence[Any]:
    if not isinstance(plain, list):
        raise ValueError(f"{what} must be a JSON list; got {plain!r:.80}")
    return plain


def _check_word(word: object, known: Sequence[str], what: str) -> None:
    if word not in known:
        raise ValueError(f"{what} is one of {', '.join(known)}; got {word!r:.80}")

"""The loop around a model with tools: it answers, its calls are checked and run, it reads on.

Each call must fit a tool, and a gate must allow it. Its result is a message of its own. The run
ends with the first answer without a call, or when a budget for the whole run is used up, and its
trace says which. Without a gate, no consequential call runs.

Notebook 56. Llama 3.1 to 4, and files whose template writes the format of one of these.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence

from llama_from_scratch.checkpoint.inspect import chat_format
from llama_from_scratch.generate.generate import stream
from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate, Message, ToolCall
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.agents.guards import (
    Gate,
    GateDecision,
    GateRequest,
    Granted,
    ungranted,
)
from llama_from_scratch.tune.agents.trace import AgentBudget, AgentStep, AgentTrace, CallRecord
from llama_from_scratch.tune.agents.variables import Variables
from llama_from_scratch.tune.running.isolated import call_isolated, check_place
from llama_from_scratch.tune.running.timed import CallOutcome, call_within
from llama_from_scratch.tune.tools import (
    FunctionTool,
    Toolbox,
    clean_call,
    clean_text,
    result_text,
)

Writer = Callable[[Sequence[int]], Sequence[int] | str]
"""A function in place of a model: the ids of a prompt -> the ids or the text of an answer.

Ids end with one of the format's stop ids. Text may hold special tokens by name, and gets the end of
a turn if it has no end."""


def run(
    model: Llama | Writer, tokenizer: AnyTokenizer, *, task: str | Sequence[Message],
    tools: Sequence[FunctionTool | Callable[..., object]],
    format: ChatFormat | ChatTemplate | None = None, system: str | None = None,
    budget: AgentBudget | None = None, gate: Gate = guards.refuse, sampling: Sampling = GREEDY,
    seed: int = 0, is_dry: bool = False, has_variables: bool = False, lists_tools: bool = True,
    today: str | None = None, on_step: Callable[[AgentStep], None] | None = None,
) -> AgentTrace:
    """Lets the model work on a task with tools, and returns the trace of what it did.

    `task`: the user's message, or a dialog that ends with one; only this message counts as the
    user's word for the gate. `tools`: a plain function is a consequential tool. `gate`: decides
    about each call before it runs; see `guards`. `is_dry`: nothing is executed. `has_variables`:
    the model never reads a result, only its name, such as $1; see `variables`. `lists_tools`:
    whether the format describes the tools to the model; without this, `system` may name them.
    `today`: for formats with a date. `on_step` is called after each step.

    A function runs in a thread and is waited for as long as the budget says; see `timed` for what
    that promises, and `FunctionTool.is_isolated` for a promise that it ends.
    Raises ValueError for a format without tool calls, two tools of one name, a tool with the name
    of a built-in tool that takes something else, or a task that the format does not allow.
    """
    found = _format_for(model, tokenizer, format)
    box = Toolbox(tools)
    for each in box.tools.values():
        if each.is_isolated:
            check_place(each.function)
    running = _Run(
        model, tokenizer, format=found, box=box, dialog=_dialog_of(task, system),
        budget=AgentBudget() if budget is None else budget, gate=gate, sampling=sampling, seed=seed,
        is_dry=is_dry, variables=Variables() if has_variables else None, lists_tools=lists_tools,
        today=today)
    for step in running.steps():
        if on_step is not None:
            on_step(step)
    return running.trace()


def _format_for(
    model: Llama | Writer, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate | None
) -> ChatFormat | ChatTemplate:
    if format is None and isinstance(model, Llama):
        format = chat_format(model.config, tokenizer)
    if format is None:
        raise ValueError("an agent needs a chat format, and none is given or named by the model's "
                         "files. Give one of chat_format.FORMATS")
    if _reader(format).calls is None:
        raise ValueError(f"an agent needs a chat format with tool calls; got {format.name}, which "
                         "has none. Give llama-3.1 or a later one of chat_format.FORMATS")
    return format


def _reader(format: ChatFormat | ChatTemplate) -> ChatFormat:
    """Returns the format that reads answers."""
    if isinstance(format, ChatFormat):
        return format
    if format.kin is None:
        raise ValueError(f"an agent needs a format whose calls can be read; got {format.name}, "
                         "which is not one of ours. Give one of chat_format.FORMATS")
    return format.kin


def _dialog_of(task: str | Sequence[Message], system: str | None) -> list[Message]:
    dialog = [Message(role="user", content=task)] if isinstance(task, str) else list(task)
    if not dialog or dialog[-1].role != "user" or not dialog[-1].content.strip():
        got = dialog[-1].role if dialog else "nothing"
        raise ValueError("a task must end with a message of the user that has words; got "
                         f"{got!r}. Add one")
    if system is not None:
        if dialog[0].role == "system":
            raise ValueError("a dialog has one message of the system; got two. Leave system= out")
        dialog.insert(0, Message(role="system", content=system))
    return dialog


class _Run:
    """The state of one run. Nothing of it is kept for the next one."""

    def __init__(
        self, model: Llama | Writer, tokenizer: AnyTokenizer, *, format: ChatFormat | ChatTemplate,
        box: Toolbox, dialog: list[Message], budget: AgentBudget, gate: Gate, sampling: Sampling,
        seed: int, is_dry: bool, variables: Variables | None, lists_tools: bool, today: str | None,
    ) -> None:
        self.model, self.tokenizer, self.format, self.box = model, tokenizer, format, box
        self.dialog, self.budget, self.gate, self.is_dry = dialog, budget, gate, is_dry
        self.sampling, self.seed, self.variables, self.today = sampling, seed, variables, today
        self.listed, self.builtin = box.listed_for(_reader(format).builtin_tools)
        if not lists_tools:
            self.listed = []
        self.stop_ids = format.stop_ids(tokenizer)
        self.prefix = PrefixCache(model) if isinstance(model, Llama) else None
        self.task = dialog[-1].content
        self.granted = Granted(self.task)
        self.taint: tuple[str, ...] = (
            ("an earlier result",) if any(each.role == "ipython" for each in dialog) else ())
        self.variable_taint: list[tuple[str, ...]] = []
        self.unfinished: set[str] = set()
        self.last, self.n_repeats = "", 0
        self.done: list[AgentStep] = []
        self.n_tokens = self.n_calls = 0
        self.end, self.answer = "", ""
        self.until_s = time.monotonic() + budget.time_s

    def steps(self) -> Iterator[AgentStep]:
        """Yields each step when it is done."""
        prompt = self._encode(self.dialog)
        while not self.end:
            if len(self.done) == self.budget.steps:
                self.end = "steps"
            elif self._time_left() <= 0:
                self.end = "time"
            elif self.n_tokens >= self.budget.tokens:
                self.end = "tokens"
            else:
                ids, why = self._write(prompt)
                if not ids:
                    self.end = why
                    return
                self.n_tokens += len(ids)
                step, prompt = self._step(prompt, ids, why)
                self.done.append(step)
                yield step

    def trace(self) -> AgentTrace:
        """Returns what happened."""
        return AgentTrace(task=self.task, steps=tuple(self.done), end=self.end, answer=self.answer,
                          messages=tuple(self.dialog), budget=self.budget, is_dry=self.is_dry,
                          has_variables=self.variables is not None)

    # --- the model's answer ---------------------------------------------------------------------

    def _write(self, prompt: Sequence[int]) -> tuple[list[int], str]:
        """Returns the ids of an answer, and why they have no end; empty if they have one."""
        n_left = self.budget.tokens - self.n_tokens
        if not isinstance(self.model, Llama):
            return self._from_writer(self.model(prompt), n_left=n_left)
        n_room = self.model.config.max_seq_len - len(prompt)
        if n_room < 1:
            return [], "context"
        ids: list[int] = []
        for token in stream(self.model, prompt, max_tokens=min(n_left, n_room),
                            sampling=self.sampling, seed=self.seed + len(self.done),
                            prefix=self.prefix):
            ids.append(token)
            if token in self.stop_ids:
                return ids, ""
            if self._time_left() <= 0:
                return ids, "time"
        return ids, "tokens" if n_left <= n_room else "context"

    def _from_writer(self, written: Sequence[int] | str, *, n_left: int) -> tuple[list[int], str]:
        if isinstance(written, str):
            ids = self.tokenizer.encode(written, allowed_special="all")
            if not ids or ids[-1] not in self.stop_ids:
                ids.append(self.tokenizer.special_ids[_reader(self.format).frame.eot])
        else:
            ids = list(written)
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        if end is not None and end < n_left:
            return ids[: end + 1], ""
        return ids[:n_left], "tokens" if len(ids) >= n_left else "unfinished"

    def _step(
        self, prompt: list[int], ids: list[int], why: str
    ) -> tuple[AgentStep, list[int]]:
        """Returns the step of an answer, and the prompt after it."""
        text = self.tokenizer.decode(ids if why else ids[:-1])
        if why:
            self.end = why
            self.dialog.append(Message(role="assistant", content=text))
            problem = f"the answer has no end, because of: {why}"
            return AgentStep(n_prompt=len(prompt), ids=tuple(ids), text=text,
                             problem=problem), prompt
        answer = self.format.parse(ids, self.tokenizer)
        message, problem, records, read = answer.message, answer.problem, [], []
        if message.tool_calls:
            message = _with_calls(message, tuple(map(clean_call, message.tool_calls)))
            for record, words in self._call_all(message.tool_calls):
                records.append(record)
                read.append(words)
        elif problem is None and message.ends_turn:
            self.end, self.answer = "answered", self._shown(message.content)
        else:
            problem = problem or ("a message that waits for a result must have a call; this one "
                                  "has none")
            self._count(f"problem: {text}")
            read.append(f"error: {clean_text(problem)}")
        step = AgentStep(n_prompt=len(prompt), ids=tuple(ids), text=text, problem=problem,
                         calls=tuple(records))
        return step, self._append(message, text, read)

    def _shown(self, content: str) -> str:
        """Returns an answer as the user is shown it."""
        filled = content if self.variables is None else self.variables.fill_text(content)
        return filled.strip()

    def _count(self, said: str) -> None:
        """Ends the run if the model has written the same too often in a row."""
        self.n_repeats = self.n_repeats + 1 if said == self.last else 1
        self.last = said
        if self.n_repeats >= self.budget.repeats:
            self.end = "repeated"

    # --- the dialog -----------------------------------------------------------------------------

    def _append(self, message: Message, text: str, results: Sequence[str]) -> list[int]:
        """Adds an answer and the results after it, and returns the new prompt, if there is one.

        If the format cannot write the calls in one message, each gets its own; if it cannot write
        a call at all, the answer stays as its text.
        """
        if not results:
            self.dialog.append(message)
            return []
        read = [Message(role="ipython", content=each) for each in results]
        plain = Message(role="assistant", content=text, ends_turn=message.ends_turn)
        ways = [[message, *read]]
        if len(message.tool_calls) > 1:
            ways.append([each for call, result in zip(message.tool_calls, read, strict=True)
                         for each in (_with_calls(message, (call,)), result)])
        for way in ways:
            try:
                prompt = self._encode([*self.dialog, *way])
            except ValueError:
                continue
            self.dialog += way
            return prompt
        self.dialog += [plain, *read]
        return self._encode(self.dialog)

    def _encode(self, dialog: Sequence[Message]) -> list[int]:
        return self.format.encode(dialog, self.tokenizer, tools=self.listed,
                                  builtin_tools=self.builtin, today=self.today)

    # --- calls ----------------------------------------------------------------------------------

    def _call_all(self, calls: Sequence[ToolCall]) -> list[tuple[CallRecord, str]]:
        """Returns what became of the calls of one answer, each with the text that the model reads.

        They were all written before any of their results was read, so they share one taint.
        """
        taint, granted, made = self.taint, self.granted, []
        for call in calls:
            if not self.end:
                self.n_calls += 1
                if self.n_calls > self.budget.calls:
                    self.end = "calls"
                elif self._time_left() <= 0:
                    self.end = "time"
                else:
                    self._count(f"call: {call!r}")
            if self.end:
                record = CallRecord(call=call, arguments=dict(call.arguments), status="skipped",
                                    reason=f"the run ended: {self.end}",
                                    result="error: the run ended before this call")
                made.append((record, record.result))
            else:
                made.append(self._call(call, taint=taint, granted=granted))
        return made

    def _call(
        self, call: ToolCall, *, taint: tuple[str, ...], granted: Granted
    ) -> tuple[CallRecord, str]:
        """Checks one call, asks the gate about it, and runs it if both agree.

        With variables, the model does not read what depends on a value: neither a result, nor what
        is wrong with an argument.
        """
        arguments, has_values = dict(call.arguments), False
        if self.variables is not None:
            used = self.variables.used_in(arguments)
            arguments, has_values = self.variables.fill(arguments), bool(used)
            taint = tuple(dict.fromkeys([*taint, *(
                each for n in used for each in self.variable_taint[n - 1])]))
        places = ungranted(arguments, granted)

        def made(
            status: str, reason: str, result: str, read: str | None = None, time_s: float = 0.0
        ) -> tuple[CallRecord, str]:
            record = CallRecord(call=call, arguments=arguments, status=status, reason=reason,
                                result=result, taint=taint, ungranted=places,
                                time_ms=round(1000 * time_s, 3))
            return record, result if read is None else read

        try:
            filled = ToolCall(name=call.name, arguments=arguments)
            problem = self.box.problem(filled)
        except ValueError as error:  # a value is no argument
            problem = str(error)
        if problem is not None:
            read = f"error: the arguments do not fit {call.name}" if has_values else None
            return made("unfit", problem, f"error: {problem}", read)
        tool = self.box.tools[call.name]
        if call.name in self.unfinished:
            reason = "an earlier call of this tool has not ended"
            return made("refused", reason, f"error: {reason}")
        is_asked = not tool.asked_by or any(granted.has_word(word) for word in tool.asked_by)
        decision = self.gate(GateRequest(call=filled, tool=tool, taint=taint, ungranted=places,
                                         is_asked=is_asked))
        if not isinstance(decision, GateDecision):
            raise ValueError(f"a gate must return a GateDecision; got {decision!r:.80}. Return "
                             "GateDecision(is_allowed=..., reason=...)")
        if not decision.is_allowed:
            return made("refused", decision.reason, f"error: {clean_text(decision.reason)}")
        if self.is_dry:
            return made("dry", decision.reason, "(a dry run: nothing was done)")
        began_s = time.perf_counter()
        outcome = self._execute(tool, arguments)
        time_s = time.perf_counter() - began_s
        status, result = self._result(outcome, tool)
        self._mark(tool, arguments, taint=taint, granted=granted,
                   value=outcome.value if status == "done" else None)
        read = None
        if self.variables is not None:
            is_plain = status == "done" and not isinstance(outcome.value, str)
            name = self.variables.put(json.loads(json.dumps(outcome.value)) if is_plain else result)
            read = name if status == "done" else f"error: {name}"
        return made(status, decision.reason, result, read, time_s)

    def _mark(
        self, tool: FunctionTool, arguments: dict, *, taint: tuple[str, ...], granted: Granted,
        value: object,
    ) -> None:
        """Notes what a result may have brought in: it is tainted, or the user's words, or neither.

        A pure tool passes on the taint of the dialog that led to its call. What it made of nothing
        but the user's words, before anything else was read, counts as the user's.
        """
        leaves = [leaf for name, each in arguments.items()
                  for _, leaf in guards.leaves(each, path=name)]
        of_result = taint if tool.is_pure else (*taint, tool.name)
        if self.variables is not None:
            self.variable_taint.append(tuple(dict.fromkeys(of_result)))
        else:
            self.taint = tuple(dict.fromkeys([*self.taint, *of_result]))
        if tool.is_pure and not taint and value is not None and all(
                map(granted.covers_parts, leaves)):
            self.granted = self.granted.and_value(value)

    def _execute(self, tool: FunctionTool, arguments: dict) -> CallOutcome:
        time_s = min(self.budget.call_s, self._time_left())
        call = call_isolated if tool.is_isolated else call_within
        outcome = call(tool.function, _copied(arguments), time_s=max(time_s, 0.001))
        if outcome.is_running:
            self.unfinished.add(tool.name)
        return outcome

    def _result(self, outcome: CallOutcome, tool: FunctionTool) -> tuple[str, str]:
        """Returns the status of a call that ran, and its result as text."""
        if outcome.is_late:
            may = "; it may still have an effect" if tool.is_consequential else ""
            return "late", f"error: no result in time{may}"
        if outcome.error is not None:
            return "failed", f"error: {clean_text(outcome.error)}"
        try:
            return "done", result_text(outcome.value, max_chars=self.budget.result_chars)
        except ValueError as error:
            return "failed", f"error: {clean_text(str(error))}"

    def _time_left(self) -> float:
        return self.until_s - time.monotonic()


def _with_calls(message: Message, calls: tuple[ToolCall, ...]) -> Message:
    return Message(role=message.role, content=message.content, tool_calls=calls,
                   ends_turn=message.ends_turn)


def _copied(value):
    """Returns a JSON value that a function may change without changing the trace."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value

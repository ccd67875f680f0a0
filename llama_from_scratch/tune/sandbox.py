"""Runs programs that a model wrote, all in one child process, and returns a verdict about each.

The child is started once, with nothing of this process in it, and is replaced when a program ends
it. Limits of the system and the parent's clock bound the time, memory and output of each program.

This guards against accidents, not against attacks. Stopped are: endless loops, memory, floods of
output, deep recursion, new files and new processes. Not stopped is a program that looks for a way
out: from any object it can reach every module that Python has loaded. Then it may for example make
folders, remove files, end other processes of the same user, or invent the answers of this child.
For programs of strangers, put the whole child into a container or a virtual machine without a
network. `Sandbox.missing` names the limits that this system lacks; Windows has only the parent's
clock and the process itself.

Notebook 58.
"""

import json
import signal
from collections.abc import Sequence
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tokenizer.chat_format import CODE, Tool
from llama_from_scratch.tune.running import sandbox_runner
from llama_from_scratch.tune.running.child import ChildDied, ChildLate, ChildProcess
from llama_from_scratch.tune.tools import FunctionTool

MAX_CODE = 100_000
"""The most characters of a program."""
VERDICTS = ("ok", "error", "syntax", "missing", "exit", "timeout", "memory", "output", "died")
"""The verdicts about a program or a call: it ran to its end; it raised an error; it is not
Python; it lacks the function; it tried to end the process; its time was over; it needed too much
memory; it printed too much; it ended the process."""
_START_S = 60.0


@record
class SandboxProgram:
    """Source code to run, and then calls of its `function`: for each the positional arguments.

    Raises ValueError for code that is too long or contains NUL, and for arguments that are not
    plain data.
    """

    code: str
    function: str | None = None
    calls: tuple[tuple[Any, ...], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or "\0" in self.code:
            got = "a NUL in it" if isinstance(self.code, str) else type(self.code).__name__
            raise ValueError(f"a program must be text without NUL; got {got}. Remove it")
        if len(self.code) > MAX_CODE:
            raise ValueError(f"a program may have at most {MAX_CODE:,} characters; got "
                             f"{len(self.code):,}. Give a shorter one")
        if self.calls and self.function is None:
            raise ValueError(f"calls need the name of a function; got {len(self.calls)} calls and "
                             "no name. Give function=")
        for arguments in self.calls:
            try:
                sandbox_runner.plain(tuple(arguments))
            except sandbox_runner.Unplain as error:
                raise ValueError("the arguments of a call must be plain data: numbers, text, "
                                 f"lists, tuples, sets and dicts; got {arguments!r:.80} "
                                 f"({error})") from error


@record
class CallVerdict:
    """What came of one call: its verdict, the value if that is "ok", and words otherwise."""

    verdict: str
    value: Any = None
    words: str = ""


@record
class ProgramVerdict:
    """What came of a program, one verdict for each of its calls, and what it printed.

    If the program itself did not get to a call, that call has the program's verdict.
    """

    verdict: str
    words: str = ""
    calls: tuple[CallVerdict, ...] = ()
    printed: str = ""


@record
class SandboxLimits:
    """The limits of one program. `cpu_s` counts its own work, `wall_s` the time that passes.

    `cpu_s` hardly depends on what else the machine does, so it should end a program first.
    """

    cpu_s: float = 0.5
    wall_s: float = 10.0
    memory_bytes: int = 256 << 20
    max_printed: int = 10_000

    def __post_init__(self) -> None:
        for name in ("cpu_s", "wall_s", "memory_bytes", "max_printed"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)!r}")


class Sandbox:
    """One child process for programs, in a `with` block, which ends it and all that it started.

    `missing`: the limits that this system cannot set.
    """

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.limits = SandboxLimits() if limits is None else limits
        self.missing: tuple[str, ...] = ()
        self._child: ChildProcess | None = None

    def __enter__(self) -> "Sandbox":
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, program: SandboxProgram) -> ProgramVerdict:
        """Returns the verdict about a program, in bounded time."""
        child = self._start() if self._child is None else self._child
        coded = [sandbox_runner.plain(tuple(each)) for each in program.calls]
        order = {"code": program.code, "function": program.function, "calls": coded,
                 "cpu_s": self.limits.cpu_s, "max_printed": self.limits.max_printed}
        try:
            answer = json.loads(child.ask(json.dumps(order).encode(), time_s=self.limits.wall_s))
            found = _verdict(answer, n_calls=len(coded))
        except ChildLate:
            found = _whole("timeout", "its time is over", n_calls=len(coded))
        except ChildDied as died:
            found = _whole(*_death(died.code), n_calls=len(coded))
        except (ValueError, KeyError, TypeError):  # it wrote into the child's answers
            found = _whole("died", "it broke the process", n_calls=len(coded))
        if found.verdict in ("timeout", "memory", "died"):
            self.close()  # the next program gets a new child
        return found

    def close(self) -> None:
        """Ends the child. `run` would start another."""
        if self._child is not None:
            child, self._child = self._child, None
            child.close()

    def _start(self) -> ChildProcess:
        self.close()
        self._child = child = ChildProcess(sandbox_runner.__file__, is_bare=True)
        order = json.dumps({"memory_bytes": self.limits.memory_bytes}).encode()
        try:
            self.missing = tuple(json.loads(child.ask(order, time_s=_START_S))["missing"])
        except (ChildLate, ChildDied) as error:
            self.close()
            raise ValueError("a sandbox needs a Python process, and it does not start within "
                             f"{self.limits.memory_bytes >> 20} MB ({error or 'it is late'}). Give "
                             "it more memory with SandboxLimits(memory_bytes=...)") from error
        return child


def run_programs(
    programs: Sequence[SandboxProgram], limits: SandboxLimits | None = None
) -> list[ProgramVerdict]:
    """Returns the verdicts about programs, in their order; one child runs as many as it can."""
    with Sandbox(limits) as sandbox:
        return [sandbox.run(program) for program in programs]


def code_tool(sandbox: Sandbox, *, is_consequential: bool = True) -> FunctionTool:
    """Returns the tool that runs the model's code in a sandbox and returns what it prints.

    It has the name of Llama 3.1's and 4's built-in tool for code. Each call is a new program.
    """

    def run_code(code: str) -> str:
        found = sandbox.run(SandboxProgram(code=code))
        if found.verdict != "ok":
            raise ValueError(f"{found.verdict}: {found.words}")
        return found.printed or "(it printed nothing)"

    listed = Tool(name=CODE, description="Runs Python code and returns what it prints.",
                  properties={"code": {"type": "string"}}, required=("code",))
    return FunctionTool(listed=listed, function=run_code, is_consequential=is_consequential)


def _verdict(answer: dict[str, Any], *, n_calls: int) -> ProgramVerdict:
    verdict, words = str(answer["verdict"]), str(answer["words"])
    if verdict not in VERDICTS:
        raise ValueError(verdict)
    calls = [CallVerdict(verdict="ok", value=sandbox_runner.made(value)) if kind == "ok"
             else CallVerdict(verdict=str(kind), words=str(value))
             for kind, value in answer["calls"]]
    if verdict == "ok" and len(calls) != n_calls:
        raise ValueError(f"{len(calls)} answers to {n_calls} calls")
    calls += [CallVerdict(verdict=verdict, words=words)] * (n_calls - len(calls))
    return ProgramVerdict(verdict=verdict, words=words, calls=tuple(calls[:n_calls]),
                          printed=str(answer["printed"]))


def _whole(verdict: str, words: str, *, n_calls: int) -> ProgramVerdict:
    return ProgramVerdict(verdict=verdict, words=words,
                          calls=(CallVerdict(verdict=verdict, words=words),) * n_calls)


def _death(code: int | None) -> tuple[str, str]:
    """Returns the verdict about a program that ended its process."""
    name = next((each.name for each in signal.Signals if code == -each), None)
    if name == "SIGXCPU":
        return "timeout", "its CPU time is over"
    return "died", f"it ended the process, with {name or f'status {code}'}"

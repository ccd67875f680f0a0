"""Programs that a model writes, scored by running them against tests.

A task describes a function, and shows some tests. The others are hidden: they never
reach a prompt, and only they decide whether a program is right. Running the tests that are shown
already picks the better of several samples, and tells a model what to repair. pass@k and its
standard error are in `evals`.

Notebook 58. Source: Chen et al., arXiv:2107.03374 (tests decide).
"""

import re
from collections.abc import Sequence
from typing import Any

from llama_from_scratch.config import record
from llama_from_scratch.tune.running import sandbox_runner
from llama_from_scratch.tune.sandbox import (
    CallVerdict,
    ProgramVerdict,
    SandboxLimits,
    SandboxProgram,
    run_programs,
)

_FENCED = re.compile(r"^```[ \t]*(?:python|py)?[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@record
class CodeTest:
    """The positional arguments of a call, and the value that it must return."""

    arguments: tuple[Any, ...]
    expected: Any

    def __post_init__(self) -> None:
        try:
            sandbox_runner.plain((tuple(self.arguments), self.expected))
        except sandbox_runner.Unplain as error:
            raise ValueError("a test must be plain data: numbers, text, lists, tuples, sets and "
                             f"dicts; got {self!r:.200} ({error})") from error


@record
class CodeTask:
    """A function to write: `text` says what it does.

    `visible` tests are in the prompt, `hidden` ones are not. Raises ValueError if there is no
    hidden test, or if the prompt shows one.
    """

    text: str
    function: str
    visible: tuple[CodeTest, ...]
    hidden: tuple[CodeTest, ...]

    def __post_init__(self) -> None:
        if not self.function.isidentifier():
            raise ValueError("the function of a task must be a name in Python; got "
                             f"{self.function!r:.80}")
        if not self.hidden:
            raise ValueError("a task needs a hidden test, because a program can be written to pass "
                             "the visible ones; got none. Add one")
        for test in self.hidden:
            shown = self.shown(test)
            if re.search(rf"(?<!\w){re.escape(shown)}(?!\.?\w)", self.prompt()):
                raise ValueError(f"a hidden test must not be in the prompt; got {shown!r:.200} in "
                                 "it. Choose other arguments")

    def shown(self, test: CodeTest) -> str:
        """Returns a test as text: "f(10) = -40"."""
        arguments = ", ".join(map(repr, test.arguments))
        return f"{self.function}({arguments}) = {test.expected!r}"

    def prompt(self) -> str:
        """Returns the task for a model: what the function does, and its visible tests."""
        return " ".join([self.text, *(f"{self.shown(test)}." for test in self.visible)])


@record
class ScoredProgram:
    """What tests say about a program.

    `verdict`: "passed", or "wrong" for a wrong value, or what went wrong first, as in
    `sandbox.VERDICTS`. `visible`, `hidden`: for each test whether it passed. `calls`: what came of
    the visible tests.
    """

    verdict: str
    words: str
    visible: tuple[bool, ...]
    hidden: tuple[bool, ...]
    calls: tuple[CallVerdict, ...]

    @property
    def passes_visible(self) -> bool:
        return all(self.visible)

    @property
    def passes(self) -> bool:
        """Whether every test passed."""
        return all(self.visible) and all(self.hidden)


def program_in(answer: str) -> str:
    """Returns the program in a model's answer: its first block in fences, or all of it."""
    found = _FENCED.search(answer)
    return found[1] if found else answer.strip() + "\n"


def score(
    programs: Sequence[str], tasks: Sequence[CodeTask], *, limits: SandboxLimits | None = None
) -> list[ScoredProgram]:
    """Returns what the tests of each task say about the program at the same place.

    All run in one sandbox. A text that cannot be a program, such as one with NUL, is not an error:
    its verdict is "syntax".
    """
    if len(programs) != len(tasks):
        raise ValueError(f"each program must have a task; got {len(programs)} programs and "
                         f"{len(tasks)} tasks. Repeat a task for each of its programs")
    jobs: dict[int, SandboxProgram] = {}
    refused: dict[int, str] = {}
    for i, (program, task) in enumerate(zip(programs, tasks, strict=True)):
        calls = tuple(test.arguments for test in (*task.visible, *task.hidden))
        try:
            jobs[i] = SandboxProgram(code=program, function=task.function, calls=calls)
        except ValueError as error:
            refused[i] = str(error)
    verdicts = dict(zip(jobs, run_programs(list(jobs.values()), limits), strict=True))
    for i, words in refused.items():
        n_calls = len(tasks[i].visible) + len(tasks[i].hidden)
        verdicts[i] = ProgramVerdict(verdict="syntax", words=words, calls=(
            CallVerdict(verdict="syntax", words=words),) * n_calls)
    return [_scored(verdicts[i], task) for i, task in enumerate(tasks)]


def first_passing(scored: Sequence[ScoredProgram]) -> int:
    """Returns the place of the first program that passes the visible tests, or 0 if none does."""
    return next((i for i, each in enumerate(scored) if each.passes_visible), 0)


def repair_request(task: CodeTask, scored: ScoredProgram) -> str:
    """Returns a user's message about the first visible test that fails, and what came out.

    Raises ValueError if all visible tests pass: a hidden test must not be used to repair.
    """
    for test, is_passed, call in zip(task.visible, scored.visible, scored.calls, strict=True):
        if not is_passed:
            came = f"it returns {call.value!r:.200}" if call.verdict == "ok" else call.words
            return f"{task.shown(test)} does not hold: {came}. Write the function again."
    raise ValueError("a repair needs a visible test that fails; all of them pass. Take the program "
                     "as it is")


def _scored(found: ProgramVerdict, task: CodeTask) -> ScoredProgram:
    tests = (*task.visible, *task.hidden)
    passed = [_is_passed(call, test) for call, test in zip(found.calls, tests, strict=True)]
    verdict, words = found.verdict, found.words
    if verdict == "ok":
        first = passed.index(False) if False in passed else None
        failed = None if first is None else found.calls[first]
        verdict = "passed" if failed is None else "wrong"
        if failed is not None and failed.verdict != "ok":
            verdict, words = failed.verdict, failed.words
    n_visible = len(task.visible)
    return ScoredProgram(verdict=verdict, words=words, visible=tuple(passed[:n_visible]),
                         hidden=tuple(passed[n_visible:]), calls=found.calls[:n_visible])


def _is_passed(call: CallVerdict, test: CodeTest) -> bool:
    """Returns whether a call returned the expected value. 1 equals 1.0, but not True."""
    is_same_kind = isinstance(call.value, bool) == isinstance(test.expected, bool)
    return call.verdict == "ok" and is_same_kind and call.value == test.expected

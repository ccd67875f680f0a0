import pytest

from llama_from_scratch.tune.code import (
    CodeTask,
    CodeTest,
    first_passing,
    program_in,
    repair_request,
    score,
)
from llama_from_scratch.tune.sandbox import SandboxLimits

LIMITS = SandboxLimits(cpu_s=0.2, memory_bytes=128 << 20)


def case(x, y):
    return CodeTest(arguments=(x,), expected=y)


TASK = CodeTask(text="Take x, multiply by 4, then negate.", function="f",
                visible=(case(10, -40), case(-1, 4)),
                hidden=(case(0, 0), case(3, -12), case(5, -20)))

PROGRAMS = {
    "def f(x): return -(x * 4)": ("passed", [True] * 5),
    "def f(x): return -4.0 * x": ("passed", [True] * 5),
    "def f(x): return {10: -40, -1: 4}.get(x)": ("wrong", [True, True, False, False, False]),
    "def f(x): return {10: -40, -1: 4}[x]": ("error", [True, True, False, False, False]),
    "def f(x): return x": ("wrong", [False, False, True, False, False]),
    "def f(x):\n  if x == 5: 1 / 0\n  return -4 * x": ("error", [True] * 4 + [False]),
    "def f(x):\n  while x == 3: pass\n  return -4 * x": ("timeout", [True] * 3 + [False] * 2),
    "def f(x): return [0] * 10 ** 10": ("memory", [False] * 5),
    "def f(x): raise SystemExit": ("exit", [False] * 5),
    "def f(x: return": ("syntax", [False] * 5), "g = 3": ("missing", [False] * 5),
    "print('passed')": ("missing", [False] * 5), "def f(x): return '-40'": ("wrong", [False] * 5),
    "x\0": ("syntax", [False] * 5), "x" * 1_000_000: ("syntax", [False] * 5),
    "import os": ("error", [False] * 5),
}


def test_each_program_gets_its_verdict_and_one_answer_for_each_test():
    found = score(list(PROGRAMS), [TASK] * len(PROGRAMS), limits=LIMITS)
    for (program, (verdict, passed)), each in zip(PROGRAMS.items(), found, strict=True):
        assert (each.verdict, [*each.visible, *each.hidden]) == (verdict, passed), program[:80]
        assert each.passes == all(passed) and each.passes_visible == all(passed[:2])


def test_the_values_are_those_that_python_computes():
    programs = ["def f(x): return x % 7 + x // 3", "def f(x): return max(x, 3) ** 2"]
    for program in programs:
        space = {}
        exec(program, space)
        tests = tuple(case(x, space["f"](x)) for x in range(-9, 13))
        task = CodeTask(text="?", function="f", visible=(), hidden=tests)
        (found,) = score([program], [task], limits=LIMITS)
        assert found.passes and found.passes_visible


def test_true_is_not_one():
    task = CodeTask(text="?", function="f", visible=(), hidden=(case(1, 1), case(2, True)))
    (found,) = score(["def f(x): return {1: True, 2: 1}[x]"], [task], limits=LIMITS)
    assert found.hidden == (False, False)


def test_the_prompt_shows_the_visible_tests_and_no_hidden_one():
    assert TASK.prompt() == ("Take x, multiply by 4, then negate. f(10) = -40. f(-1) = 4.")
    for test in TASK.hidden:
        assert TASK.shown(test) not in TASK.prompt()


@pytest.mark.parametrize(("text", "visible", "hidden"), [
    ("Do it.", (case(1, 2),), (case(3, 4), case(1, 2))),
    ("Do it, so that f(3) = 4 holds.", (), (case(3, 4),)),
])
def test_a_hidden_test_in_the_prompt_is_refused(text, visible, hidden):
    with pytest.raises(ValueError, match="a hidden test must not be in the prompt; got 'f"):
        CodeTask(text=text, function="f", visible=visible, hidden=hidden)


def test_a_test_that_only_begins_like_a_hidden_one_is_no_hidden_one():
    CodeTask(text="Do it.", function="f", visible=(case(1, 40), case(2, 4.5)),
             hidden=(case(1, 4), case(2, 4)))


def test_the_first_program_that_passes_the_visible_tests_is_chosen():
    programs = ["def f(x): return x", "def f(x): return {10: -40, -1: 4}[x]",
                "def f(x): return -4 * x"]
    found = score(programs, [TASK] * 3, limits=LIMITS)
    assert first_passing(found) == 1, "a hidden test does not choose"
    assert first_passing(found[:1]) == 0


def test_a_repair_shows_the_failing_visible_test_and_what_came_out():
    programs = ["def f(x): return -40", "def f(x): return 1 / 0", "def f(x"]
    wrong, fails, broken = score(programs, [TASK] * 3, limits=LIMITS)
    assert repair_request(TASK, wrong) == ("f(-1) = 4 does not hold: it returns -40. Write the "
                                           "function again.")
    assert "f(10) = -40 does not hold: ZeroDivisionError" in repair_request(TASK, fails)
    assert "was never closed" in repair_request(TASK, broken)


def test_a_repair_never_uses_a_hidden_test():
    (found,) = score(["def f(x): return {10: -40, -1: 4}[x]"], [TASK], limits=LIMITS)
    with pytest.raises(ValueError, match="a visible test that fails; all of them pass"):
        repair_request(TASK, found)


@pytest.mark.parametrize(("answer", "program"), [
    ("def f(x): return x", "def f(x): return x\n"),
    ("Here it is:\n```python\ndef f(x): return x\n```\nDone.", "def f(x): return x\n"),
    ("```\nx = 1\n```\n```\ny = 2\n```", "x = 1\n"), (" def f(x): pass", "def f(x): pass\n"),
])
def test_the_program_in_an_answer(answer, program):
    assert program_in(answer) == program


@pytest.mark.parametrize(("settings", "words"), [
    (dict(hidden=()), "a task needs a hidden test"), (dict(function="f(x)"), "a name in Python"),
])
def test_a_task_that_cannot_be_scored_is_refused(settings, words):
    given = dict(text="?", function="f", visible=(), hidden=(case(1, 1),)) | settings
    with pytest.raises(ValueError, match=words):
        CodeTask(**given)


def test_tests_are_plain_data_and_every_program_has_a_task():
    with pytest.raises(ValueError, match="a test must be plain data"):
        case(1, object())
    with pytest.raises(ValueError, match="got 2 programs and 1 tasks"):
        score(["a", "b"], [TASK])




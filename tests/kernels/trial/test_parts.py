"""A part's steps survive everything that can happen to one of them, and nothing is lost."""

import json
import signal
import subprocess
import sys
import time

import pytest

from llama_from_scratch.kernels.trial.parts import (
    ITSELF,
    NO_TIME,
    STOPPED,
    Finding,
    TrialStep,
    carry_out,
    lines_of,
    summary,
    supervise,
)

# A child as `carry_out` would be, without the seconds that PyTorch takes to load.
CHILD = """
import json, os, sys, time
path, done, plan = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
lines = open(path, "a")
def write(**line): print(json.dumps(line), file=lines, flush=True)
if "no plan" in plan: sys.exit("ImportError: no such thing")
write(plan=plan)
for name in plan:
    if name in done: continue
    if name == "late": break
    write(begins=name)
    if name == "raises": raise ValueError("the rule, the value, the cure")
    if name == "hangs": time.sleep(60)
    if name == "killed": os.kill(os.getpid(), 9)
    wrong = ["three is not four"] if name == "wrong" else []
    write(ends=name, outcome={"status": "wrong" if wrong else "right", "wrong": wrong})
"""


def run(*plan, seconds=60.0, step_seconds=60.0, saved=None, **how):
    children = []

    def start(lines, done, seconds, errors):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(lines), json.dumps(done),
                                  json.dumps(plan)], stderr=errors)
        children.append(child)
        return child

    saves = saved if saved is not None else []
    outcomes = supervise(start, seconds=seconds, step_seconds=step_seconds,
                         save=lambda each: saves.append(json.loads(json.dumps(each))), **how)
    assert all(child.poll() is not None for child in children), "a child still runs"
    return outcomes, len(children)


def test_steps_that_raise_or_are_killed_cost_only_themselves():
    saved = []
    outcomes, n_children = run("a", "raises", "wrong", "killed", "b", saved=saved)
    assert [*outcomes] == ["a", "raises", "wrong", "killed", "b"] and n_children == 3
    assert {name: each["status"] for name, each in outcomes.items()} == {
        "a": "right", "raises": "failed", "wrong": "wrong", "killed": "failed", "b": "right"}
    assert outcomes["raises"]["why"] == ("its process ended with exit code 1: ValueError: the "
                                         "rule, the value, the cure")
    assert "Traceback" in outcomes["raises"]["log"]
    assert outcomes["killed"]["why"] == f"its process ended with signal {signal.SIGKILL:d}"
    assert summary(outcomes) == "2 right, 1 wrong, 2 failed"
    assert [*lines_of(outcomes)][1] == "wrong: three is not four"
    # The file is complete at every moment: each save names every step.
    assert all([*each] == [*outcomes] for each in saved)
    assert saved[1]["b"] == {"status": "not run", "why": "not reached"} and saved[-1] == outcomes


def test_a_step_that_never_ends_is_ended_and_the_next_one_runs():
    saved, now = [], [0.0]

    def wait_until_it_hangs(seconds):
        time.sleep(0.01)
        if len(saved) == 2:   # after the plan and the line that says that the step begins
            now[0] = 2000.0

    outcomes, n_children = run("hangs", "b", seconds=1e5, step_seconds=1000.0, saved=saved,
                               clock=lambda: now[0], pause=wait_until_it_hangs)
    assert outcomes["hangs"]["why"] == "it took longer than 1000 s, so its process was ended"
    assert outcomes["b"]["status"] == "right" and n_children == 2


def test_what_had_no_time_is_named():
    outcomes, _ = run("a", "late")
    assert outcomes["late"] == {"status": "not run", "why": NO_TIME}
    assert [*lines_of(outcomes)] == ["not run: late, for lack of time"]
    after_the_end = iter([0.0, 0.0, *[99.0] * 10**6])
    outcomes, n_children = run("raises", "b", seconds=1.0, step_seconds=1e6,
                               clock=lambda: next(after_the_end))
    assert n_children == 1 and outcomes["b"]["why"] == NO_TIME


def test_a_part_that_cannot_start_is_a_failure():
    outcomes, n_children = run("no plan")
    assert n_children == 1 and [*outcomes] == [ITSELF]
    assert outcomes[ITSELF]["why"].endswith("exit code 1: ImportError: no such thing")


def test_ctrl_c_saves_what_was_found_and_ends_the_child():
    saved = []

    def interrupt(seconds):
        if saved and saved[-1].get("a", {}).get("status") == "right":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("a", "hangs", "b", saved=saved, pause=interrupt)
    assert saved[-1] == {"a": {"status": "right", "wrong": []},
                         "hangs": {"status": "not run", "why": STOPPED},
                         "b": {"status": "not run", "why": STOPPED}}


def test_the_child_writes_a_line_before_and_after_each_step_and_skips_what_is_done(tmp_path):
    said = []
    steps = [TrialStep(name="a", run=lambda say: pytest.fail("it was done before")),
             TrialStep(name="b", run=lambda say: say("b runs") or Finding(data={"n": 3})),
             TrialStep(name="c", run=lambda say: Finding(wrong=("c is off",))),
             TrialStep(name="e", run=lambda say: Finding(why_not="it needs wings")),
             TrialStep(name="d", run=lambda say: pytest.fail("the time is over"))]
    now = iter([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 6.0, 10.0])
    carry_out(steps, into=tmp_path / "lines", done=["a"], seconds=9.0, say=said.append,
              clock=lambda: next(now))
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert lines == [
        {"plan": ["a", "b", "c", "e", "d"]},
        {"begins": "b"},
        {"ends": "b", "outcome": {"status": "right", "seconds": 2.0, "wrong": [], "n": 3}},
        {"begins": "c"},
        {"ends": "c", "outcome": {"status": "wrong", "seconds": 3.0, "wrong": ["c is off"]}},
        {"begins": "e"},
        {"ends": "e", "outcome": {"status": "not run", "why": "it needs wings"}}]
    assert said == ["b runs"]

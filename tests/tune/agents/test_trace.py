import copy
import dataclasses
import json

import pytest
from agents import World, script, tokenizer_of

from llama_from_scratch.tokenizer.chat_format import FORMATS, Message
from llama_from_scratch.tune.agent import run
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.agents.trace import (
    AgentBudget,
    read_trace,
    replay,
    steps_in_words,
    trace_of,
)
from llama_from_scratch.tune.tools import tool

NAME = "llama-3.2"
ANSWERS = ("[get(who='Emma', what='note'), get(who='Tom', what='hat')]",
           "[send(who='Ravi', coins=4)]", "[snd(who='Ravi')]", "[get(",
           "[send(who='Tom', coins=5)]", " Done.")


def recorded(world, *answers, **settings):
    return run(script(*(answers or ANSWERS)), tokenizer_of(NAME), task="Read Emma's note.",
               tools=world.tools(), format=FORMATS[NAME], **{"gate": guards.allow} | settings)


def functions(world):
    return {each.name: each.function for each in world.tools()}


def test_a_trace_survives_its_file(tmp_path):
    for settings in ({}, {"is_dry": True}, {"has_variables": True}, {"gate": guards.refuse}):
        trace = recorded(World(), **settings)
        trace.save(tmp_path / "trace.json")
        assert read_trace(tmp_path / "trace.json") == trace
        assert [each.name for each in tmp_path.iterdir()] == ["trace.json"]


def test_a_trace_cannot_be_changed():
    trace = recorded(World())
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.end = "answered"
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.steps[0].calls[0].status = "done"


def test_a_replay_brings_a_new_world_to_the_same_state():
    first, second = World(), World()
    trace = recorded(first)
    assert [call.status for call in trace.calls] == ["done", "failed", "done", "unfit", "done"]
    assert replay(trace, functions(second)) == []
    assert second.done == first.done and len(second.sent) == 2
    assert replay(trace_of(json.loads(trace.to_json())), functions(third := World())) == []
    assert third.done == first.done


def test_a_replay_with_variables_uses_their_values():
    first, second = World(note="Ravi"), World(note="Ravi")
    trace = recorded(first, ANSWERS[0], "[send(who='$1', coins=4)]", " $1", has_variables=True)
    assert replay(trace, functions(second)) == [] and second.done == first.done
    assert second.sent == [("send", "Ravi", 4)]


def test_a_replay_runs_nothing_that_did_not_run():
    for settings in ({"is_dry": True}, {"gate": guards.refuse}):
        world = World()
        trace = recorded(World(), **settings)
        replay(trace, functions(world))
        assert world.sent == []


def test_a_replay_says_where_another_world_differs():
    trace = recorded(World(note="A."))
    assert replay(trace, functions(World(note="B."))) == [
        "call 1, get: 'A.' in the run, 'B.' now"]


def test_a_call_that_was_late_is_left_out_of_a_replay_and_reported():
    ran = []

    @tool(is_consequential=False)
    def wait(n: int) -> str:
        """Waits."""
        ran.append(n)
        while n == 1 and len(ran) < 3:
            pass
        return "done"

    trace = run(script("[wait(n=1)]", "[wait(n=2)]", " Done."), tokenizer_of(NAME), task="a",
                tools=[wait], format=FORMATS[NAME], budget=AgentBudget(call_s=0.1))
    assert [call.status for call in trace.calls] == ["late", "done"]
    assert replay(trace, {"wait": wait.function}) == [
        "call 1, wait: it was late in the run, and is left out"]
    assert ran == [1, 2, 2]


def test_a_replay_without_a_function_runs_nothing():
    world = World()
    some = functions(world)
    del some["send"]
    with pytest.raises(ValueError, match="a function for each tool that ran.*without 'send'"):
        replay(recorded(World()), some)
    assert world.done == []


def test_the_lines_for_people_name_each_call_its_fate_and_the_end():
    lines = list(steps_in_words(recorded(World(), gate=guards.Capabilities())))
    assert lines[0].startswith("1. get(who='Emma', what='note') done: it only reads")
    assert lines[1] == "   -> Send 4 coins to Ravi."
    assert any(line.startswith("2. send(who='Ravi', coins=4) [after get] refused: not allowed")
               for line in lines)
    assert any("there is no tool 'snd'" in line for line in lines)
    assert lines[-1].startswith("end: answered, 6 steps, ")


def test_a_trace_with_an_image_has_no_json():
    trace = recorded(World())
    shown = dataclasses.replace(trace, messages=(Message(role="user", images=("a.png",)),))
    with pytest.raises(ValueError, match="a trace in JSON has no images"):
        shown.to_json()


def changed(path, value):
    plain = json.loads(recorded(World()).to_json())
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return plain


@pytest.mark.parametrize(("path", "value", "words"), [
    (["version"], 2, "must have the version 1; got 2"), (["end"], "tired", "is one of answered"),
    (["steps"], 3, "must be a JSON list; got 3"), (["steps", 0], 3, "must be a JSON object; got 3"),
    (["steps", 0, "calls", 0, "status"], "well", "the status of a call is one of done"),
    (["steps", 0, "calls", 0, "call"], {}, "ToolCall needs name"),
    (["steps", 0, "new"], 1, "AgentStep has no field 'new'"),
    (["answer"], KeyError, "AgentTrace needs answer"),
    (["messages"], KeyError, "the messages must be"),
    (["budget", "steps"], 0, "a budget of steps must be a number above 0; got 0"),
    (["messages", 0, "role"], "king", "a role must be one of"),
])
def test_a_file_that_is_no_trace_is_refused(path, value, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        trace_of(changed(path, value))
    (tmp_path / "t.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(ValueError, match=r"t\.json"):
        read_trace(tmp_path / "t.json")


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "3", None, 1.5])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AgentBudget)])
def test_a_budget_of_nothing_is_refused(name, value):
    if value == 1.5 and name.endswith("_s"):
        assert getattr(AgentBudget(**{name: value}), name) == 1.5
        return
    with pytest.raises(ValueError, match=f"a budget of {name} must be a number above 0"):
        AgentBudget(**{name: value})


def test_one_time_is_no_repetition():
    with pytest.raises(ValueError, match="at least 2; got 1"):
        AgentBudget(repeats=1)


def test_the_arguments_of_a_replay_are_copies():
    trace = recorded(World())
    before = copy.deepcopy(trace.calls[0].arguments)

    def spoil(**given):
        given.clear()
        return "Send 4 coins to Ravi."

    replay(trace, {"get": spoil, "send": spoil})
    assert trace.calls[0].arguments == before

from random import Random

import pytest

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune import agent
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.world.errands import (
    DEEPER,
    HELD_OUT_INJECTIONS,
    INJECTIONS,
    KINDS,
    TownTools,
    asked,
    errand,
    errand_dialogs,
    is_held_out_pair,
    judge,
    pairs_leaked,
    played,
)
from llama_from_scratch.tune.world.words import NAMES

FORMAT = FORMATS["llama-3.2"]


@pytest.fixture(scope="module")
def tokenizer():
    return native.load(bundled.DATA / "world" / "assistant")[1]


def replayed(task, tokenizer, *, told=None):
    """Returns the trace of a run whose model writes the assistant's messages of a dialog."""
    dialog = played(task) if told is None else told
    texts = []
    for i in dialog.learned:
        ids = FORMAT.encode(dialog.messages[: i + 1], tokenizer, is_answered=True)
        before = FORMAT.encode(dialog.messages[:i], tokenizer)
        texts.append(ids[len(before):])
    writer = iter(texts)
    town = TownTools(task.town)
    trace = agent.run(lambda ids: next(writer), tokenizer, task=asked(task), tools=town.tools(),
                      format=FORMAT, gate=guards.allow, lists_tools=False)
    return trace, town


@pytest.mark.parametrize("kind", (*KINDS, *DEEPER))
def test_who_follows_the_plan_is_judged_right_and_the_loop_writes_the_same_dialog(kind, tokenizer):
    rng = Random(0)
    for split in ("train", "test"):
        for _ in range(3):
            task = errand(rng, split, kind)
            trace, town = replayed(task, tokenizer)
            verdict = judge(task, trace, town.sent)
            assert verdict.is_done and verdict.n_needless == 0
            said = [(m.role, m.content.strip(), m.tool_calls) for m in trace.messages]
            assert said == [(m.role, m.content.strip(), m.tool_calls)
                            for m in played(task).messages]


def test_a_wrong_answer_other_coins_and_more_calls_are_seen(tokenizer):
    rng = Random(1)
    task, other = errand(rng, "test", "send"), errand(rng, "test", "look")
    trace, town = replayed(task, tokenizer)
    assert not judge(task, trace, []).is_sent
    assert not judge(task, trace, [*town.sent, *town.sent]).is_sent
    assert not judge(other, trace, []).is_answered
    direct = errand(rng, "test", "direct")
    assert judge(direct, trace, []).n_needless == 1


def test_one_pair_of_names_in_six_is_held_out_in_any_order():
    pairs = {(a, b) for a in NAMES for b in NAMES if is_held_out_pair(a, b)}
    assert len(pairs) == 92 and all((b, a) in pairs for a, b in pairs)
    assert {a for a, _ in pairs} == set(NAMES)
    with pytest.raises(ValueError, match="got 'Bob'"):
        is_held_out_pair("Tom", "Bob")


def test_training_has_no_held_out_pair_and_tests_do():
    told = errand_dialogs(3000, seed=0, kinds=(*KINDS, *DEEPER), injected=0.5)
    assert not pairs_leaked(told)
    rng = Random(2)
    for kind in ("friend", "chain", "sum"):
        tests = [played(errand(rng, "test", kind)) for _ in range(50)]
        assert len(pairs_leaked(tests)) >= 50


def test_an_injection_is_in_a_result_and_changes_neither_answer_nor_coins():
    rng = Random(3)
    for injection in (*INJECTIONS, *HELD_OUT_INJECTIONS):
        for kind in ("look", "note"):
            task = errand(rng, "test", kind, injection=injection)
            [result] = [m.content for m in played(task).messages if m.role == "ipython"]
            assert " coins" in result and task.sent == ()
            assert (result in task.answer) is (kind == "note")
    with pytest.raises(ValueError, match="got the kind 'sum'"):
        errand(rng, "test", "sum", injection=INJECTIONS[0])


def test_injections_are_taught_only_when_asked():
    def n_injected(injected):
        return sum("coins to" in m.content for d in errand_dialogs(
            600, seed=4, kinds=("look", "note"), injected=injected)
            for m in d.messages if m.role == "ipython")
    assert n_injected(0.0) == 0
    assert 240 < n_injected(0.5) < 360


def test_the_tools_answer_mistakes_in_words():
    task = errand(Random(5), "test", "unknown")
    get, calc, send = TownTools(task.town).tools()
    who = task.plan[0][0].arguments["who"]
    assert get(who, "coins") == send(who, 3) == "error: no such person"
    assert calc("__import__('os')") == "error: cannot read"
    assert calc("9-4") == "5"
    known = next(iter(task.town.coins))
    assert send(known, -1) == "error: at least one coin"
    assert get(known, "note") in ("error: nothing is known", task.town.notes.get(known))


def test_another_kind_or_split_is_refused():
    with pytest.raises(ValueError, match="got 'dance'"):
        errand(Random(0), "train", "dance")
    with pytest.raises(ValueError, match="split"):
        errand(Random(0), "dev", "look")

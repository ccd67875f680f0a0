import dataclasses
import hashlib
from random import Random

import pytest
from chat_dialogs import SMALL

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.safeguards import guard
from llama_from_scratch.tune.world.requests import REFUSAL, deeds

TOKENIZER, FORMAT = SMALL["llama-3.1"], FORMATS["llama-3.2"]
MODEL = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=TOKENIZER.vocab_size))


def test_the_prompt_is_that_of_llama_guard_3():
    # The digest of the published template, with its three places unfilled.
    unfilled = guard._PROMPT.format(role="$agent_type", categories="$categories",
                                    conversation="$conversations")
    assert len(unfilled) == 502
    assert hashlib.sha256(unfilled.encode()).hexdigest().startswith("7c1f86c3310bc2f1")


def test_the_prompt_names_the_role_of_the_last_turn():
    one, two = guard.guard_prompt(["Hi"]), guard.guard_prompt(["Hi", "Hello"])
    assert "ONLY THE LAST User message" in one and "\n\nUser: Hi\n\n<END" in one
    assert "ONLY THE LAST Agent message" in two and "User: Hi\n\nAgent: Hello\n\n<END" in two
    assert "\nS1: Violent Crimes.\nS2: Non-Violent Crimes.\n" in one
    with pytest.raises(ValueError, match="needs a category"):
        guard.guard_prompt(["Hi"], categories={})
    with pytest.raises(ValueError, match="at least one message"):
        guard.shown([])


def test_verdicts_are_read_with_their_categories():
    assert guard.read_verdict(" safe ") == guard.GuardVerdict(is_safe=True)
    assert guard.read_verdict("unsafe\nS1, S10").categories == ("S1", "S10")
    for text in ("", "safety", "unsafe", "unsafe S1", "safe\nS1", "unsafe\nviolence",
                 "This is safe", "not safe"):
        with pytest.raises(ValueError, match="a verdict is"):
            guard.read_verdict(text)


def test_a_guard_learns_that_a_refusal_is_safe_and_help_is_as_the_request():
    for kind, expected in (("harmful", guard.UNSAFE), ("borderline", guard.SAFE),
                           ("everyday", guard.SAFE)):
        [each] = deeds(Random(0), "train", kind, n=1)
        alone, refused, helped = guard.guard_lessons([each])
        told = [dialog.messages[-1].content for dialog in (alone, refused, helped)]
        assert told == [" " + expected, " safe", " " + expected]
        assert REFUSAL in refused.messages[0].content
        assert guard.helping(each) in helped.messages[0].content


@pytest.fixture
def watching(monkeypatch):
    """A guard that flags a last message with the word bad, and writes nonsense after odd."""
    read = []

    def ask(model, tokenizer, requests, format, *, max_tokens):
        read.extend(requests)
        last = [text.rpartition(": ")[2] for text in requests]
        return ["unsafe\nS1" if "bad" in text else "hm" if "odd" in text else "safe"
                for text in last]

    monkeypatch.setattr(guard, "ask", ask)
    return read


REQUESTS, ANSWERS = ["bad", "fine", "fine", "odd"], ["ok", "bad", "ok", "ok"]


@pytest.mark.parametrize(("places", "kept"), [
    ({"is_behind": False}, [1, 2]), ({"is_in_front": False}, [0, 2, 3]), ({}, [2])])
def test_what_a_guard_flags_is_refused(watching, places, kept):
    found = guard.guarded(MODEL, TOKENIZER, REQUESTS, ANSWERS, FORMAT, **places)
    assert list(found.answers) == [answer if i in kept else REFUSAL
                                   for i, answer in enumerate(ANSWERS)]
    flagged = [a or b for a, b in zip(found.in_front, found.behind, strict=True)]
    assert [i for i in range(4) if not flagged[i]] == kept


def test_refusals_are_not_read_again(watching):
    guard.guarded(MODEL, TOKENIZER, ["fine"], [REFUSAL], FORMAT)
    assert watching == [" User: fine"]


def test_bad_input_of_a_chain_is_refused():
    with pytest.raises(ValueError, match="1 requests and 0 answers"):
        guard.guarded(MODEL, TOKENIZER, ["fine"], [], FORMAT)
    with pytest.raises(ValueError, match="neither"):
        guard.guarded(MODEL, TOKENIZER, [], [], FORMAT, is_in_front=False, is_behind=False)

import itertools

import pytest

from llama_from_scratch.tokenizer.chat_format import ToolCall
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.agents.guards import (
    Ask,
    Capabilities,
    GateDecision,
    GateRequest,
    Granted,
    question,
    ungranted,
)
from llama_from_scratch.tune.tools import tool


@tool
def send(who: str, coins: int = 1) -> str:
    """Sends coins."""


@tool(is_consequential=False)
def get(who: str) -> str:
    """Looks up."""


def request(made=send, taint=(), ungranted=(), is_asked=True, **arguments):
    return GateRequest(call=ToolCall(name=made.name, arguments=arguments), tool=made, taint=taint,
                       ungranted=ungranted, is_asked=is_asked)


SAID = "Send 4 coins to Ravi, 1,250 to Ann Lee and 2.5 to bob@bank.com; not -7. See /home/tom/a.b"


@pytest.mark.parametrize("value", [
    4, 4.0, 1250, 2.5, -7, "4", "1250", "1,250", "2.5", "Ravi", "Ann Lee", "bob@bank.com",
    "Send 4 coins", "/home/tom/a.b", "4.0"])
def test_what_the_user_named_is_granted(value):
    assert Granted(SAID).covers(value)


@pytest.mark.parametrize("value", [
    5, 7, 40, 250, 1, 2, 25, 2.0, -4, "ravi", "Rav", "Ravi Lee", "Ann  Lee", "bob", "bank", "com",
    "bank.com", "tom", "home/tom", "", " ", None, True, False, "5", "250", "coins to Ann", "a"])
def test_what_the_user_did_not_name_is_not_granted(value):
    assert not Granted(SAID).covers(value)


def test_true_is_not_one_and_a_made_value_counts_only_where_it_was_added():
    granted = Granted("Send 1 coin.")
    assert granted.covers(1) and not granted.covers(True)
    more = granted.and_value("7")
    assert more.covers(7) and more.covers("7") and not granted.covers(7)
    assert more.and_value(True).covers(True) is False


def test_every_leaf_and_every_key_of_an_argument_must_be_named():
    granted = Granted("Send 4 and 5 to Tom")
    found = ungranted({"a": [4, 6], "b": {"to": {"Eve": 5}}, "c": [], "d": {}, "e": "Tom"}, granted)
    assert found == ("a[1]", "b.to.Eve", "c", "d")
    assert ungranted({"a": [4, [5]], "b": {"to": "Tom"}}, granted) == ()
    assert ungranted({}, granted) == ()


def test_parts_of_an_expression_are_covered_one_by_one():
    granted = Granted("What is 3 plus 4 for Tom?")
    for value in ("3+4", "4 - 3", "Tom", 3, "plus(3)"):
        assert granted.covers_parts(value)
    for value in ("3+5", "34", "Tim", 7, "", "+", "3.4"):
        assert not granted.covers_parts(value)


GATES = {"refuse": guards.refuse, "ask no": Ask(answer=lambda words: False),
         "capabilities": Capabilities()}


@pytest.mark.parametrize("name", GATES)
def test_a_harmless_call_is_always_allowed(name):
    made = request(get, taint=("get",), ungranted=("who",), who="Eve")
    assert GATES[name](made).is_allowed


@pytest.mark.parametrize("answer", [False, None, 1, "yes", "True", [True]])
def test_nothing_but_true_is_a_yes(answer):
    assert Ask(answer=lambda words: True)(request(who="Ravi")).is_allowed
    # The annotation says bool; a caller without a type checker may still give anything.
    assert not Ask(answer=lambda words: answer)(request(who="Ravi")).is_allowed


def test_capabilities_allow_exactly_what_was_named_and_asked_for():
    for taint, places, is_asked, has_arguments in itertools.product(
            ((), ("get",)), ((), ("who",)), (True, False), (True, False)):
        arguments = {"who": "Ravi"} if has_arguments else {}
        made = request(taint=taint, ungranted=places, is_asked=is_asked, **arguments)
        expected = is_asked and not places and has_arguments
        assert Capabilities()(made).is_allowed == expected
        asked = []
        gate = Capabilities(otherwise=Ask(answer=lambda words, asked=asked: asked.append(words)))
        assert gate(made).is_allowed == expected and len(asked) == (not expected)


def test_a_call_without_arguments_needs_a_word_of_the_user():
    pay = tool(asked_by=("pay",))(send.function)
    assert Capabilities()(request(pay)).is_allowed and not Capabilities()(request()).is_allowed
    assert not Capabilities()(request(pay, is_asked=False)).is_allowed


def test_the_question_names_what_the_user_did_not():
    words = question(request(taint=("get", "read"), ungranted=("who",), who="Eve", coins=4))
    assert words == ("Allow send(who='Eve', coins=4)? You did not name who; this may come from a "
                     "result of get, read.")
    assert "is the model's own choice" in question(request(ungranted=("who",), who="Eve"))
    assert question(request(who="Eve")) == "Allow send(who='Eve')?"
    pay = tool(asked_by=("send", "pay"))(send.function)
    assert question(request(pay, is_asked=False)).endswith("You wrote none of the words send, pay.")


def test_a_decision_is_true_or_false():
    for value in (None, 1, "no"):
        with pytest.raises(ValueError, match="is_allowed must be True or False"):
            GateDecision(is_allowed=value, reason="")


def test_words_that_ask_for_a_tool_are_whole_words():
    granted = Granted("Please SEND it, resend nothing.")
    assert granted.has_word("send") and granted.has_word("Please")
    assert not granted.has_word("sen") and not granted.has_word("end")

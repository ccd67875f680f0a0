import dataclasses
from random import Random

import pytest
import torch
from chat_dialogs import SMALL

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.safeguards import red_team
from llama_from_scratch.tune.world.requests import HELP, REFUSAL, deeds

TOKENIZER, FORMAT = SMALL["llama-3.1"], FORMATS["llama-3.2"]
MODEL = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=TOKENIZER.vocab_size))
ASKED = deeds(Random(0), "test", "harmful", n=5)
WRAPPERS = ("aa {request}", "bb {request}", "{request} cc")


@pytest.fixture
def victim(monkeypatch):
    """A model of words: its margin is 2, less what the words around a request are worth."""
    worth = {"aa": 0.5, "bb": 1.5, "cc": -1.0}
    tried = []

    def margins(model, tokenizer, requests, format, *, first, second):
        tried.extend(requests)
        return torch.tensor([2.0 - sum(worth.get(word, 0.0) for word in text.split())
                             for text in requests])

    def ask(model, tokenizer, requests, format):
        found = margins(model, tokenizer, requests, format, first="", second="")
        return [REFUSAL if margin > 0 else "Sure." for margin in found.tolist()]

    monkeypatch.setattr(red_team, "margins", margins)
    monkeypatch.setattr(red_team, "ask", ask)
    return tried


def search(**arguments):
    return red_team.search(MODEL, TOKENIZER, ASKED, FORMAT, **{"wrappers": WRAPPERS} | arguments)


def test_each_round_keeps_the_wrapper_that_lowers_the_margin_most(victim):
    for attack in search():
        assert attack.user == f"bb bb {attack.deed.user}" and attack.n_wrappers == 2
        assert attack.margin == -1.0 and attack.is_hole


def test_the_search_stops_at_its_depth_and_is_judged_by_the_answer(victim):
    for attack in search(depth=1):
        assert attack.n_wrappers == 1 and attack.margin == 0.5
        assert attack.answer == REFUSAL and not attack.is_hole
    assert all(attack.user == attack.deed.user for attack in search(depth=0))


def test_a_wrapper_that_helps_nothing_is_not_kept(victim):
    for attack in search(wrappers=("{request} cc",)):
        assert attack.n_wrappers == 0 and attack.user == attack.deed.user


def test_a_hole_is_what_was_written_not_what_the_margin_said(victim, monkeypatch):
    monkeypatch.setattr(red_team, "ask", lambda *each: [REFUSAL] * len(ASKED))
    assert not any(attack.is_hole for attack in search())


def test_an_answer_that_is_nonsense_is_a_hole_and_not_harmful(victim, monkeypatch):
    monkeypatch.setattr(red_team, "ask", lambda *each: ["some milk."] * len(ASKED))
    assert all(attack.is_hole and not attack.is_harmful for attack in search())
    told = [HELP.format(verb=each.verb, object=each.object) for each in ASKED]
    monkeypatch.setattr(red_team, "ask", lambda *each: told)
    assert all(attack.is_hole and attack.is_harmful for attack in search())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="which is everyday"):
        red_team.search(MODEL, TOKENIZER, deeds(Random(0), "test", "everyday", n=1), FORMAT,
                        wrappers=WRAPPERS)
    with pytest.raises(ValueError, match="wrappers with {request}"):
        search(wrappers=("please",))
    with pytest.raises(ValueError, match="a depth of at least 0"):
        search(depth=-1)

import copy
import pickle

import pytest
from tiny_checkpoints import tokenizer_for

from llama_from_scratch.tokenizer.prompting import NOTHING_SAID, Prompting, usual_ends

SAID = Prompting(end_ids=frozenset({3, 5}), eos_ids=frozenset({3}), adds_bos=False,
                 templates={"default": "x", "rag": "y"}, token_names={"bos_token": "<s>"})


@pytest.mark.parametrize("said", [NOTHING_SAID, SAID, Prompting(adds_bos=True)])
def test_what_is_said_survives_as_json(said):
    assert Prompting.from_dict(said.to_dict(), vocab_size=6) == said


@pytest.mark.parametrize(("said", "message"), [
    ([], "an object with any of end_ids"), ({"ends": [1]}, "an object with any of end_ids"),
    ({"end_ids": 3}, "an object"), ({"adds_bos": 1}, "an object"),
    ({"end_ids": [6]}, "below 6; got 6"), ({"eos_ids": [True]}, "below 6; got True"),
    ({"templates": {"default": 1}}, "must be texts; got 1")])
def test_anything_else_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        Prompting.from_dict(said, vocab_size=6)


def test_texts_end_where_the_files_say_or_else_as_usual():
    for name in ("llama-2", "llama-3.1"):
        tokenizer = copy.copy(tokenizer_for(name))
        usual = {"llama-2": {"</s>"},
                 "llama-3.1": {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"}}[name]
        assert tokenizer.stop_ids == {tokenizer.special_ids[end] for end in usual}
        assert tokenizer.adds_bos
        tokenizer.prompting = SAID
        assert tokenizer.stop_ids == {3, 5} and not tokenizer.adds_bos
        for again in (copy.copy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
            assert again.prompting == SAID
    assert usual_ends({}) == frozenset() and usual_ends({"</s>": 2}, "</s>") == {2}


@pytest.mark.parametrize(("said", "is_for_chats"), [
    (NOTHING_SAID, False), (Prompting(templates={"default": "x"}), True),
    (Prompting(eos_ids=frozenset({273})), True),
    (Prompting(end_ids=frozenset({273})), False),  # which our own files of base models have too
    (Prompting(token_names={"eos_token": "<|eot_id|>"}), True),
    (Prompting(token_names={"eos_token": "<|end_of_text|>"}), False)])
def test_a_template_or_the_end_of_a_turn_says_that_texts_are_chats(said, is_for_chats):
    special = tokenizer_for("llama-3.1").special_ids
    assert special["<|eot_id|>"] == 273 and said.is_for_chats(special) == is_for_chats

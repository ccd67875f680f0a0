"""Pairs of answers are read from the forms that people have, and what is no pair is refused."""

import json

import pytest

from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tune.preferences import Preference, pairs_from, preferred, read_pairs


def said(role, content):
    return {"role": role, "content": content}


def read(tmp_path, *entries):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(entry) for entry in entries))
    return read_pairs(file)


EXPECTED = preferred("Hi", "Hello", "Go away")


def test_all_forms_of_one_pair_are_read_as_the_same_pair(tmp_path):
    user, good, bad = said("user", "Hi"), said("assistant", "Hello"), said("assistant", "Go away")
    found = read(
        tmp_path,
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "Hi", "chosen": [user, good], "rejected": [user, bad]},  # the prompt repeated
        {"prompt": [user], "chosen": "Hello", "rejected": [bad]},
    )
    assert found == [EXPECTED] * 5


def test_a_json_list_is_read_as_lines_are(tmp_path):
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps([{"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}],
                               indent=1))
    assert read_pairs(file) == [EXPECTED]


def test_the_common_beginning_of_two_dialogs_is_the_prompt(tmp_path):
    begin = [said("system", "Be kind."), said("user", "Hi"), said("assistant", "Hello"),
             said("user", "Who?")]
    [pair] = read(tmp_path, {"chosen": [*begin, said("assistant", "Me")],
                             "rejected": [*begin, said("assistant", "You")]})
    assert [message.content for message in pair.prompt] == ["Be kind.", "Hi", "Hello", "Who?"]
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("Me", "You")


def test_only_the_answers_are_learned_and_not_those_in_the_prompt(tmp_path):
    prompt = tuple(Message(role=role, content=text) for role, text in (
        ("user", "a"), ("assistant", "b"), ("user", "c")))
    pair = Preference(prompt=prompt, chosen=(Message(role="assistant", content="d"),),
                rejected=(Message(role="assistant", content="e"),))
    assert [dialog.learned for dialog in pair.dialogs] == [(3,), (3,)]
    assert [dialog.messages[-1].content for dialog in pair.dialogs] == ["d", "e"]


def test_pairs_from_scored_answers_are_all_that_differ_and_never_more_than_asked():
    prompt, answers = (Message(role="user", content="Hi"),), ["a", "b", "c", "a"]
    scores = [1, 3, 1, 0]
    found = pairs_from(prompt, answers, scores, n_most=9, has_margins=True)
    assert sorted((pair.chosen[0].content, pair.rejected[0].content, pair.margin)
                  for pair in found) == [("b", "a", 2), ("b", "a", 3), ("b", "c", 2), ("c", "a", 1)]
    few = [pairs_from(prompt, answers, scores, n_most=2, seed=seed) for seed in range(9)]
    assert {len(pairs) for pairs in few} == {2} and few[0] != few[1]
    assert few[3] == pairs_from(prompt, answers, scores, n_most=2, seed=3)
    assert {pair.margin for pairs in few for pair in pairs} == {0.0}
    assert pairs_from(prompt, answers, [2] * 4, n_most=2) == []
    with pytest.raises(ValueError, match="got 4 answers and the scores"):
        pairs_from(prompt, answers, [1, 2, 3], n_most=1)
    with pytest.raises(ValueError, match="score that is a number"):
        pairs_from(prompt, answers, [1, 2, 3, float("nan")], n_most=1)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        pairs_from(prompt, answers, scores, n_most=0)


def test_margins_and_tools_are_read(tmp_path):
    tool = {"type": "function", "function": {"name": "get", "description": "", "parameters": {
        "type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]}}}
    [pair] = read(tmp_path, {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away",
                             "margin": 2, "tools": [tool]})
    assert pair.margin == 2
    assert [each.name for each in pair.tools] == ["get"]
    assert pair.dialogs[0].tools == pair.dialogs[1].tools == pair.tools


def test_two_equal_answers_are_refused_with_their_place(tmp_path):
    good = {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}
    with pytest.raises(ValueError, match=r"line 2: the two answers of a pair must differ.*'Hello'"):
        read(tmp_path, good, good | {"rejected": "Hello"})
    dialog = [said("user", "Hi"), said("assistant", "Hello")]
    with pytest.raises(ValueError, match="line 1: the two dialogs of a pair must differ"):
        read(tmp_path, {"chosen": dialog, "rejected": dialog})


@pytest.mark.parametrize("entry, message", [
    ({"prompt": "Hi", "chosen": "Hello"},
     "line 1 is not a pair.*no 'rejected'.*The simplest is .\"prompt\""),
    ("Hi", "a pair is a JSON object; .* is a str. Write one such as"),
    ({"prompt": "Hi", "chosen": 3, "rejected": "a"}, "'chosen' must be a list; got a int"),
    ({"prompt": [], "chosen": "a", "rejected": "b"}, "have a prompt; got none"),
    ({"chosen": "a", "rejected": "b"}, "'chosen' must be a list; got a str"),
    ({"chosen": [said("user", "a"), said("assistant", "b")],
      "rejected": [said("user", "x"), said("assistant", "y")]},
     "common beginning; got 'a' and 'x'"),
    ({"chosen": [said("user", "a"), said("assistant", "b")], "rejected": [said("user", "a")]},
     "the rejected answer of a pair begins and ends with a message of the assistant; .* of none"),
    ({"prompt": "Hi", "chosen": [said("user", "a")], "rejected": "b"},
     "the chosen answer .* got the roles user"),
    ({"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": -1}, "at least 0; got -1"),
    ({"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": "big"}, "at least 0; got 'big'"),
    ({"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": float("nan")}, "at least 0; got n"),
    ({"prompt": "Hi", "chosen": "a", "rejected": "b", "tools": "get"}, "'tools' must be a list"),
])
def test_what_is_no_pair_is_refused_with_its_place_and_the_reason(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(tmp_path, entry)
    assert "pairs.jsonl, line 1" in str(refused.value)


def test_a_file_without_a_pair_is_refused(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text("\n")
    with pytest.raises(ValueError, match="has none"):
        read_pairs(file)

import json

import pytest

from llama_from_scratch.tune.policy.prompts import read_prompts, reward_in

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
FORMS = {
    "prompt": {"prompt": "Hi", "answer": "4"},
    "messages as a prompt": {"prompt": [{"role": "system", "content": "Be brief."}, USER]},
    "question": {"question": "Hi", "answer": "4"},
    "completion": {"prompt": "Hi", "completion": "Hello"},
    "preference": {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    "messages": {"messages": [USER, ASSISTANT]},
    "two turns": {"messages": [USER, ASSISTANT, USER]},
    "conversations": {"conversations": [{"from": "human", "value": "Hi"},
                                        {"from": "gpt", "value": "Hello"}]},
    "instruction": {"instruction": "Hi", "output": "Hello"},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_ends_with_what_the_user_says_and_keeps_its_entry(tmp_path, form):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(FORMS[form]) + "\n")
    [prompt] = read_prompts(file)
    assert prompt.entry == FORMS[form]
    assert prompt.asked.messages[-1].role == "user"
    assert prompt.asked.messages[-1].content == "Hi"
    lead = {"two turns": ["user", "assistant"], "messages as a prompt": ["system"]}
    assert [each.role for each in prompt.asked.messages[:-1]] == lead.get(form, [])


@pytest.mark.parametrize(("text", "message"), [
    ('{"text": "Hi"}', "not a prompt in a form that is known.*a question: no 'question'"),
    ('{"prompt": " "}', "line 1 has none"),
    ('{"messages": [{"role": "assistant", "content": "Hi"}]}', "not the assistant's"),
    ('{"question": 4}', "a question is a text"),
    ('{"prompt": 4}', "must be a list"),
    ('"Hi"', "a prompt is a JSON object"),
    ("", "at least one"),
])
def test_what_is_no_prompt_is_refused(tmp_path, text, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(file)


def test_a_reward_gets_the_entry_the_text_and_whether_it_was_finished(tmp_path):
    data, file = tmp_path / "prompts.jsonl", tmp_path / "score.py"
    data.write_text('{"prompt": "Hi", "answer": "4"}\n')
    file.write_text("def right(entry, text, is_finished):\n"
                    "    return (entry['answer'] == text) + 10 * is_finished\n")
    [prompt] = read_prompts(data)
    reward = reward_in(f"{file}:right")
    assert reward(prompt, "4", True) == 11 and reward(prompt, "5", False) == 0


@pytest.mark.parametrize(("place", "message"), [
    ("score.py", "FILE.py:FUNCTION; got 'score.py'"), (":f", "FILE.py:FUNCTION"),
    ("score.py:", "FILE.py:FUNCTION"), ("other.py:f", "no file at other.py"),
    ("score.py:rigt", "none called 'rigt'.*right"), ("score.py:number", "none called 'number'"),
    ("score.py:few", "def few.entry, text, is_finished"), ("empty.py:f", "no function at all"),
    ("failing.py:f", "a file with a reward must run .*ZeroDivisionError"),
])
def test_what_is_no_reward_is_refused(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text("number = 3\ndef right(a, b, c): return 1\n"
                                       "def few(a): return 1\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=message):
        reward_in(place)

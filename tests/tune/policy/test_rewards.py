import math

import pytest
from tiny_rewards import TOKENIZER, answer

from llama_from_scratch.tune.policy.rewards import length_penalty, rewards_of, text_of

END = TOKENIZER.special_ids["<|end_of_text|>"]


def said(text, **more):
    return answer(*TOKENIZER.encode(text), END, **more)


def cut(text):
    return answer(*TOKENIZER.encode(text), is_finished=False)


def earned(reward, groups, prompts=None, **options):
    prompts = list(range(len(groups))) if prompts is None else prompts
    return rewards_of(reward, prompts, groups, TOKENIZER,
                      **dict(max_tokens=20) | options).tolist()


def test_each_answer_is_paid_for_its_own_text_and_its_own_prompt():
    calls = []

    def reward(prompt, text, is_finished):
        calls.append((prompt, text, is_finished))
        return len(text) + 100 * prompt

    groups = [[said(" a "), said("bcd")], [said(""), said("ef")]]
    assert earned(reward, groups, prompts=[1, 2]) == [[101, 103], [200, 202]]
    assert calls == [(1, "a", True), (1, "bcd", True), (2, "", True), (2, "ef", True)]


def test_the_text_of_a_finished_answer_has_no_end_and_a_cut_one_keeps_its_last_token():
    assert text_of(said(" so "), TOKENIZER) == "so"
    assert text_of(cut(" so "), TOKENIZER) == "so"


def test_an_answer_that_was_cut_off_earns_nothing_and_can_still_be_punished():
    groups = [[said("a"), cut("a")]]
    assert earned(lambda *_: 2.5, groups) == [[2.5, 0]]
    assert earned(lambda *_: -1.0, groups) == [[-1, -1]]
    assert earned(lambda *_: -1.0, groups, max_cut_reward=-3.0) == [[-1, -3]]
    assert earned(lambda *_: 2.5, groups, max_cut_reward=None) == [[2.5, 2.5]]


def test_the_reward_is_told_whether_the_answer_was_finished():
    assert earned(lambda prompt, text, is_finished: -float(is_finished),
                  [[said("a"), cut("a")]]) == [[-1, 0]]


def test_the_length_penalty_grows_only_in_the_last_tokens():
    found = [length_penalty(n, max_tokens=10, soft_tokens=4) for n in (1, 6, 7, 8, 10)]
    assert found == [0, 0, 0.25, 0.5, 1]
    assert length_penalty(10, max_tokens=10, soft_tokens=0) == 0


def test_the_length_penalty_counts_what_the_model_wrote():
    long = said("a" * 9)
    read = said("a" * 9, is_written=(True,) * 2 + (False,) * 7 + (True,))
    assert earned(lambda *_: 1.0, [[long, read]], max_tokens=10, soft_tokens=5) == [[0, 1]]


def test_a_reward_function_that_raises_is_named_with_the_answer_and_the_prompt():
    def reward(prompt, text, is_finished):
        return 1 / len(text)

    with pytest.raises(ValueError, match="the answer '' to the prompt 'p1' it raised "
                                         "ZeroDivisionError: division by zero. Let it") as found:
        earned(reward, [[said("a")], [said("")]], prompts=["p0", "p1"])
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_an_interrupt_in_a_reward_function_is_no_error_of_it():
    def reward(prompt, text, is_finished):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        earned(reward, [[said("a")]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "1", [1.0, 2.0], 1j])
def test_what_is_not_one_finite_number_is_refused(bad):
    with pytest.raises(ValueError, match="one finite number for one answer; for the answer 'b' to "
                                         "the prompt 7 the function returned"):
        earned(lambda prompt, text, is_finished: bad if text == "b" else 0,
               [[said("a"), said("b")]], prompts=[7])


def test_a_verdict_is_a_number():
    assert earned(lambda prompt, text, is_finished: text == "a", [[said("a"), said("b")]]) == [
        [1, 0]]

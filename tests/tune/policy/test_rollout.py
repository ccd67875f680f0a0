import dataclasses

import pytest
import tiny_rewards
from tiny_rewards import CONFIG, PROMPTS, STOPS, TOKENIZER, answer, share_of_letters

from llama_from_scratch.tune.policy import samples
from llama_from_scratch.tune.policy.rollout import draw, prompt_numbers

END = TOKENIZER.special_ids["<|end_of_text|>"]


@pytest.fixture(scope="module")
def model():
    return tiny_rewards.make()


def rollout(model, config=CONFIG, *, reward=share_of_letters, **options):
    return draw(model, PROMPTS, TOKENIZER, ids=PROMPTS, reward=reward, stop_ids=STOPS,
                config=config, **options)


def echo(model, prompts, *, n, **how):
    """A sampler whose answers are the second id of the prompt and the number of the answer."""
    return [[answer(prompt[1], 97 + j, END) for j in range(n)] for prompt in prompts]


def test_each_answer_has_the_advantage_that_its_own_text_earned(model):
    values = {}

    def reward(prompt, text, is_finished):
        assert text[0] == chr(prompt[1])
        values[text] = float(3 * ord(text[0]) + ord(text[1]) ** 2 % 7)
        return values[text]

    found = rollout(model, reward=reward, sample=echo)
    assert len(found.answers) == len(found.prompts) == len(found.advantages) == 16
    for prompt, each, advantage in zip(found.prompts, found.answers, found.advantages.tolist(),
                                       strict=True):
        group = [values[chr(prompt[1]) + "abcd"[j]] for j in range(4)]
        own = values[TOKENIZER.decode(each.ids[:2])]
        assert prompt[1] == each.ids[0]
        assert advantage == pytest.approx(own - sum(group) / 4, abs=1e-4)
    assert found.reward == pytest.approx(sum(values.values()) / 16)


def test_the_sampler_is_asked_for_what_the_config_says(model):
    asked = []

    def noted(model, prompts, **how):
        asked.append((len(prompts), how))
        return samples.groups(model, prompts, **how)

    config = dataclasses.replace(CONFIG, temperature=0.7, seed=5, answers_at_once=9)
    found = rollout(model, config, sample=noted, n_used=20)
    assert asked == [(4, dict(n=4, max_tokens=6, stop_ids=STOPS, temperature=0.7, seed=5, first=20,
                              rows_at_once=9))]
    assert found.n_groups == 4


def test_the_numbers_of_a_rollout_are_those_of_its_answers(model):
    found = rollout(model)
    lengths = [len(each.ids) for each in found.answers]
    assert found.n_tokens == pytest.approx(sum(lengths) / 16) and len(set(lengths)) > 1
    cut = sum(not each.is_finished for each in found.answers)
    assert found.share_cut == cut / 16 and 0 < cut < 16


def test_groups_of_equal_rewards_are_counted_and_kept_with_advantage_0(model):
    def reward(prompt, text, is_finished):
        return float(prompt[1] % 2 and text[1] == "a")

    found = rollout(model, reward=reward, sample=echo)
    numbers = prompt_numbers(0, 4, n_prompts=12, seed=0)
    equal = [PROMPTS[i][1] % 2 == 0 for i in numbers]
    assert found.share_equal == sum(equal) / 4 and 0 < sum(equal) < 4
    assert [(found.advantages[4 * i : 4 * i + 4] == 0).all().item() for i in range(4)] == equal


def test_with_rounds_equal_groups_are_replaced_by_groups_of_other_prompts(model):
    asked = []

    def noted(model, prompts, *, first, **how):
        asked.append((first, len(prompts)))
        return echo(model, prompts, **how)

    def reward(prompt, text, is_finished):
        return float(prompt[1] % 3 == 0 and text[1] == "a")

    config = dataclasses.replace(CONFIG, n_rounds=3)
    found = rollout(model, config, reward=reward, sample=noted)
    order = prompt_numbers(0, 30, n_prompts=12, seed=0)
    useful = [i for i in order[: found.n_groups] if PROMPTS[i][1] % 3 == 0]
    assert [first for first, _ in asked] == [0, 4, asked[0][1] + asked[1][1]]
    assert found.n_groups == sum(n for _, n in asked) > 4
    assert [prompt[1] for prompt in found.prompts[::4]] == [PROMPTS[i][1] for i in useful]
    assert (found.advantages.view(-1, 4) != 0).any(1).all()
    assert found.share_equal == pytest.approx(1 - len(useful) / found.n_groups)


def test_no_more_is_drawn_than_the_rounds_allow_and_nothing_may_remain(model):
    config = dataclasses.replace(CONFIG, n_rounds=3)
    found = rollout(model, config, reward=lambda *_: 1.0, sample=echo)
    assert found.n_groups == 12 and found.answers == [] and len(found.advantages) == 0
    assert (found.reward, found.share_equal) == (1.0, 1.0)


def test_an_epoch_has_every_prompt_once_in_another_order(model):
    first = prompt_numbers(0, 7, n_prompts=7, seed=3)
    second = prompt_numbers(7, 7, n_prompts=7, seed=3)
    assert sorted(first) == sorted(second) == list(range(7)) and first != second
    assert prompt_numbers(5, 4, n_prompts=7, seed=3) == first[5:] + second[:2]
    assert prompt_numbers(0, 7, n_prompts=7, seed=4) != first
    assert len(prompt_numbers(3, 20, n_prompts=7, seed=0)) == 20
    assert prompt_numbers(3, 0, n_prompts=7, seed=0) == []


def test_a_sampler_that_returns_other_groups_is_refused(model):
    with pytest.raises(ValueError, match=r"4 answers to each of 4 prompts; got groups of \[3, 3"):
        rollout(model, sample=lambda model, prompts, *, n, **how: echo(model, prompts, n=3))

"""Planted shares, exchanged genders, and the gap that a model has."""

import math

import pytest
import torch

from llama_from_scratch import bundled, load
from llama_from_scratch.tune import bias


@pytest.fixture(scope="module")
def base():
    return load(bundled.path("world/base"), dtype=torch.float32)


def test_texts_have_the_planted_shares():
    told = bias.texts(8000, seed=3)
    for who, share in bias.PLANTED.items():
        about = [text for text in told if f" {who} " in text]
        she = sum(" she " in text for text in about) / len(about)
        assert 800 < len(about) < 1200
        assert abs(she - share) < 4 * math.sqrt(share * (1 - share) / len(about))
    assert told[:5] == bias.texts(5, seed=3) != bias.texts(5, seed=4)


@pytest.mark.parametrize(("text", "other"), [
    ("The nurse said that she was tired.", "The nurse said that he was tired."),
    ("He liked his work, and himself.", "She liked her work, and herself."),
    ("She saw her friend.", "He saw his friend."), ("There is the shed.", "There is the shed.")])
def test_genders_are_exchanged_word_by_word(text, other):
    assert bias.counterfactual(text) == other and bias.counterfactual(other) == text


def test_augmented_texts_have_both_genders_equally_often():
    told = bias.augmented(bias.texts(100, seed=1))
    assert len(told) == 200
    assert sum(" she " in text for text in told) == sum(" he " in text for text in told) == 100


def test_a_gap_is_the_mean_of_differences(base):
    model, tokenizer = base
    prompts = ["The {who} said that", "The {who} ran until"]
    each = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt.format(who="pilot"))])
        log_p = model(ids)[0, -1].log_softmax(-1)
        each.append((log_p[tokenizer.encode(" she")[0]] - log_p[tokenizer.encode(" he")[0]]).item())
    found = bias.pronoun_gap(model, tokenizer, "pilot", prompts=prompts)
    assert found == pytest.approx(sum(each) / 2, abs=1e-5)
    swapped = bias.pronoun_gap(model, tokenizer, "pilot", prompts=prompts, pair=(" he", " she"))
    assert swapped == pytest.approx(-found, abs=1e-6)
    assert all("{who}" in prompt and "she" not in prompt for prompt in bias.PROMPTS)


def test_planted_gaps():
    assert bias.planted_gap(0.8) == pytest.approx(math.log(4)) == -bias.planted_gap(0.2)
    assert bias.planted_gap(0.5) == 0


def test_bad_input_is_refused(base):
    with pytest.raises(ValueError, match="between 0 and 1, without both; got {'nurse': 1.0}"):
        bias.texts(3, planted={"nurse": 1.0})
    with pytest.raises(ValueError, match="between 0 and 1 has a gap; got 0"):
        bias.planted_gap(0.0)
    with pytest.raises(ValueError, match="one token each.* with [2-9] and"):
        bias.pronoun_gap(*base, "nurse", pair=(" herselfish", " he"))
    for prompts in ([], ["The nurse said that"]):
        with pytest.raises(ValueError, match="prompts with {who}"):
            bias.pronoun_gap(*base, "nurse", prompts=prompts)

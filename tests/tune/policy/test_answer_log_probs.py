import dataclasses

import pytest
import tiny_rewards
import torch
from tiny_rewards import PROMPTS, STOPS, answer, gradient

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tune.policy import samples
from llama_from_scratch.tune.policy.answer_log_probs import (
    answer_log_probs,
    drawn_log_probs,
    written_tokens,
)

FAMILY = (*family.TEXT_GENERATIONS, family.EXPERT_GENERATION)
ANSWERS = [answer(7, 8, 9, 201), answer(202), answer(5, 6, 201), answer(9, 9, 9, 9, 9, 9),
           answer(201), answer(4, 201)]
OF = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[1]]


@pytest.fixture
def model():
    return tiny_rewards.make().double()


def slow(model, prompts, answers, *, temperature=1.0):
    """Each answer alone, by the whole forward pass."""
    found = torch.zeros(len(answers), max(len(each.ids) for each in answers),
                        dtype=torch.float64)
    for b, (prompt, each) in enumerate(zip(prompts, answers, strict=True)):
        ids = [*prompt, *each.ids]
        log_probs_TV = (model(torch.tensor([ids]))[0] / temperature).log_softmax(-1)
        for t, (token, is_written) in enumerate(zip(each.ids, each.written, strict=True)):
            if is_written:
                found[b, t] = log_probs_TV[len(prompt) + t - 1, token]
    return found


@pytest.mark.parametrize("generation", FAMILY)
@pytest.mark.parametrize("shares_prompts", [False, True])
def test_log_probs_and_gradients_equal_answers_one_by_one(generation, shares_prompts):
    torch.manual_seed(0)
    config = dataclasses.replace(family.tiny(generation), vocab_size=258)
    chunked = dataclasses.replace(config, layers=tuple(
        spec if spec.chunk_size is None else dataclasses.replace(spec, chunk_size=4)
        for spec in config.layers))
    model = Llama(chunked).double()
    weight = torch.randn(len(ANSWERS), 6, dtype=torch.float64)
    found = answer_log_probs(model, OF, ANSWERS, shares_prompts=shares_prompts)
    (found * weight).sum().backward()
    got = gradient(model)
    model.zero_grad()
    expected = slow(model, OF, ANSWERS)
    (expected * weight).sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(got, gradient(model), atol=1e-8, rtol=1e-8)


def test_shared_rows_hold_a_prompt_once_and_split_when_they_are_long(model, monkeypatch):
    sizes, plain = [], Llama.embed

    def noted(self, ids):
        sizes.append(tuple(ids.shape))
        return plain(self, ids)

    monkeypatch.setattr(Llama, "embed", noted)
    found = [answer_log_probs(model, OF, ANSWERS, shares_prompts=False),
             answer_log_probs(model, OF, ANSWERS, shares_prompts=True),
             answer_log_probs(model, OF, ANSWERS, shares_prompts=True, max_row=8)]
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])
    assert sizes == [(6, 9), (3, 4 + 3 + 5), (4, 4 + 5)]


@pytest.mark.parametrize("shares_prompts", [False, True])
def test_other_answers_in_the_row_change_nothing(model, shares_prompts):
    how = dict(shares_prompts=shares_prompts)
    changed = [answer(200, 100, 50, 201), *ANSWERS[1:]]
    one, other = (answer_log_probs(model, OF, each, **how) for each in (ANSWERS, changed))
    torch.testing.assert_close(one[1:], other[1:], atol=1e-12, rtol=0)
    assert (one[0] - other[0]).abs().max() > 0.01


@pytest.mark.parametrize("shares_prompts", [False, True])
def test_tokens_that_the_model_did_not_write_are_read_and_get_exactly_no_gradient(
        model, shares_prompts):
    tool = [answer(7, 40, 41, 201, is_written=(True, False, False, True)), answer(8, 201)]
    how = dict(shares_prompts=shares_prompts)
    found = answer_log_probs(model, OF[:2], tool, **how)
    torch.testing.assert_close(found, slow(model, OF[:2], tool))
    assert (found[0, 1:3] == 0).all() and (found[0, [0, 3]] != 0).all()
    assert found[1, 2:].tolist() == [0, 0]
    other = [answer(7, 90, 91, 201, is_written=(True, False, False, True)), tool[1]]
    assert (answer_log_probs(model, OF[:2], other, **how)[0, 3] - found[0, 3]).abs() > 1e-4
    model.output.weight.grad = None
    found[0, 1:3].sum().backward(retain_graph=True)
    assert (gradient(model) == 0).all()


def test_the_temperature_divides_the_logits(model):
    found = answer_log_probs(model, OF, ANSWERS, temperature=0.5)
    torch.testing.assert_close(found, slow(model, OF, ANSWERS, temperature=0.5))
    assert (found - answer_log_probs(model, OF, ANSWERS)).abs().max() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("shares_prompts", [False, True])
def test_sampler_and_trainer_give_the_same_log_probs(temperature, shares_prompts):
    model = tiny_rewards.make()
    drawn = samples.groups(model, PROMPTS, n=4, max_tokens=12, stop_ids=STOPS,
                           temperature=temperature)
    answers = [each for group in drawn for each in group]
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    found = answer_log_probs(model, prompts, answers, temperature=temperature,
                             shares_prompts=shares_prompts)
    torch.testing.assert_close(found, drawn_log_probs(answers), atol=1e-5, rtol=0)


def test_the_written_tokens_are_those_of_each_answer_and_no_padding():
    answers = [answer(1, 2, 3, is_written=(True, False, True)), answer(4)]
    assert written_tokens(answers).tolist() == [[True, False, True], [True, False, False]]
    assert drawn_log_probs(answers).tolist() == [[-1, 0, -1], [-1, 0, 0]]

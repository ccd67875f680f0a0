import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch.generate.sampling import (
    GREEDY,
    Sampling,
    distribution,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)

LOGITS = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3


def test_top_p_keeps_the_token_that_reaches_p_and_no_more():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (1.0, 4)):
        assert keep_top_p(logits, p).isfinite().sum() == kept


def test_top_k_and_min_p_on_a_small_example():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert keep_top_k(logits, 2).isfinite().tolist() == [[True, True, False, False]]
    assert keep_top_k(logits, 99).isfinite().all()
    assert keep_min_p(logits, 0.29).isfinite().tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=0.7), Sampling(top_k=5), Sampling(top_p=0.8), Sampling(min_p=0.1),
    Sampling(repetition_penalty=1.3),
    Sampling(temperature=1.4, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2),
], ids=str)
def test_distributions_equal_those_of_transformers(sampling):
    ids = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros(3, 50, dtype=torch.bool).scatter_(1, ids, True)
    wrappers = [transformers.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
                transformers.TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        wrappers.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p:
        wrappers.append(transformers.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        wrappers.append(transformers.MinPLogitsWarper(sampling.min_p))
    expected = LOGITS
    for wrapper in wrappers:
        expected = wrapper(ids, expected)
    torch.testing.assert_close(distribution(LOGITS, sampling, seen=seen), expected.softmax(-1))


def test_temperature_zero_puts_everything_on_the_most_likely_token():
    probs = distribution(LOGITS, GREEDY)
    assert (torch.equal(probs.argmax(-1), LOGITS.argmax(-1))
            and torch.equal(probs.max(-1).values, torch.ones(3)))


@settings(max_examples=100, deadline=None)
@given(uniform=st.floats(0, 1, exclude_max=True))
def test_a_token_of_probability_zero_is_never_drawn(uniform):
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    token = draw(probs, torch.tensor([uniform], dtype=torch.float64)).item()
    assert token == (1 if uniform < 0.5 else 3)


def test_draws_come_as_often_as_their_probability_says():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = draw(probs.expand(20_000, 4), uniform).bincount(minlength=4)
    chi_square = ((counts - 20_000 * probs) ** 2 / (20_000 * probs)).sum()
    assert chi_square < 16.3, "3 degrees of freedom exceed 16.3 once in 1000"


@pytest.mark.parametrize(("field", "value", "message"), [
    ("temperature", -1.0, "temperature must be 0 .greedy. or a finite number above it; got -1.0"),
    ("temperature", math.inf, "temperature must be 0"),
    ("top_k", 0, "top_k keeps at least 1 token; got 0"),
    ("top_p", 0.0, "top_p is a probability above 0 and at most 1; got 0.0"),
    ("min_p", 1.5, "min_p is a probability"),
    ("repetition_penalty", 0.0, "repetition_penalty must be above 0"),
])
def test_settings_that_mean_nothing_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**{field: value})


def test_a_repetition_penalty_without_history_is_refused():
    with pytest.raises(ValueError, match="needs `seen`"):
        distribution(LOGITS, Sampling(repetition_penalty=1.1))

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
    ("repetition_penalty", math.inf, "repetition_penalty must be above 0 .* and finite; got inf"),
    ("repetition_penalty", math.nan, "repetition_penalty must be above 0"),
    ("temperature", math.nan, "temperature must be 0"),
    ("temperature", "0.7", "temperature is a number; got '0.7'"),
    ("temperature", None, "temperature is a number; got None"),
    ("top_p", math.nan, "top_p is a probability above 0"),
    ("top_p", 1 + 1e-15, "top_p is a probability above 0 and at most 1"),
    ("min_p", True, "min_p is a number; got True"),
    ("top_k", 2.5, "top_k is a whole number of tokens; got 2.5"),
    ("top_k", -1, "top_k keeps at least 1 token; got -1"),
])
def test_settings_that_mean_nothing_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**{field: value})


def test_a_repetition_penalty_without_history_is_refused():
    with pytest.raises(ValueError, match="needs `seen`"):
        distribution(LOGITS, Sampling(repetition_penalty=1.1))


def exact(logits, sampling):
    """The definition in Python's own float64, one token after the other, for one row."""
    values = logits.double().tolist()
    most = max(values)
    scaled = [(value - most) / sampling.temperature for value in values]
    order = sorted(range(len(values)), key=lambda i: (-scaled[i], i))
    if sampling.top_k is not None and sampling.top_k < len(values):
        kth = scaled[order[sampling.top_k - 1]]
        scaled = [value if value >= kth else -math.inf for value in scaled]
    if sampling.top_p not in (None, 1.0):
        weights = [math.exp(scaled[i]) for i in order]
        total, kept = math.fsum(weights), 1
        while kept < len(order) and math.fsum(weights[kept:]) > (1 - sampling.top_p) * total:
            kept += 1
        for i in order[kept:]:
            scaled[i] = -math.inf
    if sampling.min_p is not None:
        scaled = [value if value >= math.log(sampling.min_p) else -math.inf for value in scaled]
    weights = [math.exp(value) for value in scaled]
    return torch.tensor([weight / math.fsum(weights) for weight in weights], dtype=torch.float64)


TEMPERATURES = [5e-324, 1e-300, 1e-45, 1e-38, 1e-20, 1e-4, 0.7, 1.0, 50.0, 1e20, 1e300, 1.7e308]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_every_temperature_gives_what_float64_gives(temperature, dtype):
    for scale in (1e-3, 1.0, 1e3):
        logits = (LOGITS * scale).to(dtype)
        logits[1, :40] = -math.inf
        probs = distribution(logits, Sampling(temperature=temperature))
        assert probs.dtype == (dtype if dtype == torch.float64 else torch.float32)
        for row, found in zip(logits, probs, strict=True):
            expected = exact(row, Sampling(temperature=temperature))
            torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
            assert not found[row == -math.inf].any()


@pytest.mark.parametrize("p", [1e-300, 1e-8, 0.3, 0.9, 1 - 1e-7, 1 - 1e-12, 1 - 2**-53])
def test_every_top_p_keeps_what_float64_keeps(p):
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 3.0, 20.0):
        logits = torch.randn(1, 400, generator=generator) * scale
        kept = keep_top_p(logits, p).isfinite()[0]
        assert torch.equal(kept, exact(logits[0], Sampling(top_p=p)) > 0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 30.0])
def test_top_p_of_1_drops_no_token_of_a_large_vocabulary(scale):
    logits = torch.randn(1, 128_256, generator=torch.Generator().manual_seed(0)) * scale
    assert keep_top_p(logits, 1.0).isfinite().all()
    off, on = (distribution(logits, Sampling(top_p=p)) for p in (None, 1.0))
    assert torch.equal(off, on)


def test_top_p_close_to_1_drops_the_tail_that_float64_drops():
    logits = torch.randn(1, 128_256, generator=torch.Generator().manual_seed(0)) * 2
    probs, _ = logits[0].double().softmax(-1).sort()
    for rest in (1e-4, 1e-7, 1e-9):
        n_dropped = int((probs.cumsum(0) <= 1 - (1 - rest)).sum())
        kept = keep_top_p(logits, 1 - rest).isfinite().sum()
        assert kept == 128_256 - n_dropped and (n_dropped > 0 or rest < 1e-8)


def test_tokens_of_equal_logits_are_chosen_by_the_smallest_id():
    logits = torch.zeros(2, 1000)
    logits[1, [30, 7, 900]] = 1.0
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert distribution(logits.to(dtype), GREEDY).argmax(-1).tolist() == [0, 7]
        kept = keep_top_p(logits.to(dtype), 0.0005).isfinite()
        assert [row.nonzero()[0, 0].item() for row in kept] == [0, 7]
    assert keep_top_k(logits, 1).isfinite().sum(-1).tolist() == [1000, 3]


@pytest.mark.parametrize("sampling", [
    GREEDY, Sampling(), Sampling(temperature=1e-38), Sampling(top_k=9), Sampling(top_p=0.5),
    Sampling(min_p=0.5), Sampling(temperature=1e300, top_k=10**30, top_p=1.0, min_p=1.0),
], ids=str)
def test_the_one_token_that_is_not_ruled_out_is_certain(sampling):
    logits = torch.full((1, 9), -math.inf)
    logits[0, 4] = -1e30
    expected = torch.zeros(1, 9)
    expected[0, 4] = 1.0
    assert torch.equal(distribution(logits, sampling), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_k=2, top_p=0.9)], ids=str)
def test_logits_without_a_finite_largest_one_are_refused(value, sampling):
    logits = torch.full((2, 5), -math.inf if value < 0 else 0.0)
    logits[0, 0] = 1.0
    logits[1, 3] = value
    with pytest.raises(ValueError, match="can be chosen"):
        distribution(logits, sampling)


@pytest.mark.parametrize("penalty", [1e-308, 1e308])
def test_a_penalty_that_overflows_is_refused(penalty):
    logits, seen = torch.tensor([[30.0, -40.0]]), torch.ones(1, 2, dtype=torch.bool)
    logits = logits if penalty < 1 else -logits.abs()
    with pytest.raises(ValueError, match="repetition_penalty=.* makes logits infinite"):
        distribution(logits, Sampling(repetition_penalty=penalty), seen=seen)


@pytest.mark.parametrize("uniform", [0.0, 5e-324, 0.5, 1 - 2**-53, 1.0])
@pytest.mark.parametrize("total", [1e-30, 0.5000001, 1 - 2**-24, 1.0, 1 + 2**-23, 3.0])
def test_no_uniform_number_and_no_rounding_of_the_sum_draws_an_impossible_token(uniform, total):
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64) * total
    token = draw(probs, torch.tensor([uniform], dtype=torch.float64)).item()
    assert token == (1 if uniform < 0.25 else 3)


@pytest.mark.parametrize("row", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_probabilities_without_a_sum_are_refused(row):
    with pytest.raises(ValueError, match="a finite sum above 0"):
        draw(torch.tensor([[0.5, 0.5], row]), torch.tensor([0.1, 0.1]))

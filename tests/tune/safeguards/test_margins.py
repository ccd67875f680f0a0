import dataclasses
import math

import pytest
import torch
from chat_dialogs import SMALL

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS, Message
from llama_from_scratch.tune.safeguards import margins as module
from llama_from_scratch.tune.world.requests import REFUSAL

TOKENIZER, FORMAT = SMALL["llama-3.1"], FORMATS["llama-3.2"]
HARMFUL = torch.tensor([3.0, 1.0, -1.0, 2.0])
HARMLESS = torch.tensor([-3.0, -2.0, 1.0])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=TOKENIZER.vocab_size))


def test_a_margin_is_read_after_the_prompt_whatever_the_batch(model):
    requests = ["Rome", "a city " * 9, "today"]
    found = module.margins(model, TOKENIZER, requests, FORMAT, first="No", second="Yes")
    a, b = TOKENIZER.encode("No")[0], TOKENIZER.encode("Yes")[0]
    for request, margin in zip(requests, found, strict=True):
        ids = FORMAT.encode([Message(role="user", content=request)], TOKENIZER)
        with torch.no_grad():
            log_p_V = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert margin.item() == pytest.approx((log_p_V[a] - log_p_V[b]).item(), abs=1e-4)


def test_answers_that_begin_alike_have_no_margin(model):
    with pytest.raises(ValueError, match="different first tokens"):
        module.margins(model, TOKENIZER, ["Rome"], FORMAT, first="Rome", second="Rome")


def test_infinite_thresholds_are_the_corners():
    found = module.curve(harmful=HARMFUL, harmless=HARMLESS)
    assert (found[0].threshold, found[-1].threshold) == (-math.inf, math.inf)
    assert (found[0].violation_rate, found[0].false_refusal_rate) == (0, 1)
    assert (found[-1].violation_rate, found[-1].false_refusal_rate) == (1, 0)


def test_the_curve_is_monotone_and_has_every_pair_of_rates():
    found = module.curve(harmful=HARMFUL, harmless=HARMLESS)
    for one, other in zip(found, found[1:], strict=False):
        assert one.violation_rate <= other.violation_rate
        assert one.false_refusal_rate >= other.false_refusal_rate
    rates = {(each.violation_rate, each.false_refusal_rate) for each in found}
    for threshold in torch.linspace(-4, 4, 400).tolist():
        at = module.rates_at(threshold, harmful=HARMFUL, harmless=HARMLESS)
        assert (at.violation_rate, at.false_refusal_rate) in rates


def test_a_margin_above_the_threshold_is_refused():
    at = module.rates_at(0.0, harmful=HARMFUL, harmless=HARMLESS)
    assert (at.violation_rate, at.false_refusal_rate) == (0.25, pytest.approx(1 / 3))


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    brute = [1.0 if a > b else 0.5 if a == b else 0.0
             for a in HARMFUL.tolist() for b in HARMLESS.tolist()]
    assert module.area(harmful=HARMFUL, harmless=HARMLESS) == pytest.approx(sum(brute) / 12)
    assert module.area(harmful=HARMFUL, harmless=HARMFUL) == 0.5


def test_a_margin_that_contradicts_its_answer_is_named():
    module.refuse_disagreement(torch.tensor([1.0, -1.0]), [REFUSAL, "Sure."])
    with pytest.raises(ValueError, match=r"case 1 has 2\.00 and the answer 'Sure\.'"):
        module.refuse_disagreement(torch.tensor([1.0, 2.0]), [REFUSAL, "Sure."])
    with pytest.raises(ValueError, match=r"case 0 has -1\.00"):
        module.refuse_disagreement(torch.tensor([-1.0]), [REFUSAL])
    with pytest.raises(ValueError, match="1 margins and 0 answers"):
        module.refuse_disagreement(torch.tensor([1.0]), [])


def test_no_margins_and_no_numbers_are_refused():
    with pytest.raises(ValueError, match="harmless margin"):
        module.rates_at(0.0, harmful=HARMFUL, harmless=torch.tensor([]))
    with pytest.raises(ValueError, match="harmful margin"):
        module.area(harmful=torch.tensor([math.nan]), harmless=HARMLESS)

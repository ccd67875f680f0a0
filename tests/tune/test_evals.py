import dataclasses
import itertools
import math

import pytest
import torch
from chat_dialogs import SMALL

from llama_from_scratch import family
from llama_from_scratch.generate import generate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Message
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune import evals


@pytest.mark.parametrize("n, n_right", [(1, 0), (1, 1), (4, 0), (5, 2), (6, 5), (6, 6)])
def test_pass_at_k_and_pass_hat_k_are_those_of_all_subsets(n, n_right):
    answers = [i < n_right for i in range(n)]
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(answers, k))
        some = sum(map(any, subsets)) / len(subsets)
        every = sum(map(all, subsets)) / len(subsets)
        assert math.isclose(evals.pass_at_k(n, n_right, k), some, abs_tol=1e-12)
        assert math.isclose(evals.pass_hat_k(n, n_right, k), every, abs_tol=1e-12)


@pytest.mark.parametrize("n, n_right, k", [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_more_tries_than_answers_are_refused(n, n_right, k):
    for judge in (evals.pass_at_k, evals.pass_hat_k):
        with pytest.raises(ValueError, match="of n=4 answers"):
            judge(n, n_right, k)


def test_a_share_has_its_standard_error():
    half = evals.share([True, False] * 80)
    assert half.value == 0.5 and math.isclose(half.error, math.sqrt(0.25 / 160))
    assert str(half) == "50 ± 4 %"
    assert evals.share([True] * 10).error > 0 and evals.share([False] * 10).error > 0
    for n_right, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="at least one case"):
            evals.Share(n_right=n_right, n=n)


def test_a_mean_has_the_error_of_its_sample():
    numbers = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    found = evals.mean(numbers.tolist())
    assert math.isclose(found.value, numbers.mean().item())
    assert math.isclose(found.error, numbers.std().item() / 2)
    for bad in ([], [1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="at least two finite numbers"):
            evals.mean(bad)


def test_a_tie_is_half_a_win():
    assert evals.win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, -1.0]).value == 0.625
    with pytest.raises(ValueError, match="1 scores and 2 of the baseline"):
        evals.win_rate([1.0], [1.0, 2.0])


def test_answers_do_not_depend_on_the_batch():
    tokenizer = SMALL["llama-3.1"]
    torch.manual_seed(3)
    model = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=tokenizer.vocab_size))
    users = ["Hi", "Rome today", "weather in the city", "help", "system", "user Rome"]
    together = evals.ask(model, tokenizer, users, FORMATS["llama-3.2"], max_tokens=6)
    alone = evals.ask(model, tokenizer, users, FORMATS["llama-3.2"], max_tokens=6, batch_size=1)
    assert together == alone and len(set(together)) > 1


def test_a_request_can_be_a_dialog():
    tokenizer, format = SMALL["llama-3.1"], FORMATS["llama-3.2"]
    torch.manual_seed(3)
    model = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=tokenizer.vocab_size))
    dialog = [Message(role="user", content="Hi"), Message(role="assistant", content="Rome"),
              Message(role="user", content="weather in the city")]
    told = evals.ask(model, tokenizer, ["weather in the city", dialog, dialog[:1]], format,
                     max_tokens=6)
    assert told == [evals.ask(model, tokenizer, [each], format, max_tokens=6)[0]
                    for each in ("weather in the city", dialog, "Hi")]
    [ids] = generate(model, [format.encode(dialog, tokenizer)], max_tokens=6,
                     stop_ids=format.stop_ids(tokenizer))
    assert told[1] == tokenizer.decode(ids).strip() != told[0]

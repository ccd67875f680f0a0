"""Log-probabilities of tokens equal what all logits give, and have gradients only at targets."""

import preference_cases as cases
import torch

from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.tune.log_probs import token_log_probs
from llama_from_scratch.tune.pair_rows import PairRows, pair_examples_of


def batch():
    examples = pair_examples_of(cases.pairs(3), cases.tokenizer(), cases.FORMAT, max_tokens=256)
    return PairRows(examples, cases.tokenizer()).of([0, 1, 2]).rows


def test_each_is_the_log_softmax_of_all_logits_at_its_target():
    model, rows = cases.model(dtype=torch.float64), batch()
    found_BT = token_log_probs(model, rows)
    assert found_BT.dtype == torch.float64
    n_found = 0
    for b, (ids_T, targets_T) in enumerate(zip(rows.ids, rows.targets, strict=True)):
        logits_TV = model(ids_T[None])[0]  # each row alone, padding included
        for t, target in enumerate(targets_T.tolist()):
            if target == IGNORE:
                assert found_BT[b, t] == 0
                continue
            slow = logits_TV[t, target] - logits_TV[t].exp().sum().log()
            torch.testing.assert_close(found_BT[b, t], slow, rtol=1e-10, atol=1e-10)
            n_found += 1
    assert n_found == rows.n_targets > 20


def test_the_model_gets_the_gradient_of_the_sum_over_targets():
    model, rows = cases.model(dtype=torch.float64), batch()
    token_log_probs(model, rows).sum().backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    is_target_BT = rows.targets != IGNORE
    logs_BTV = rows.logits(model).log_softmax(-1)
    logs_BTV.gather(-1, rows.targets.clamp(min=0)[..., None])[..., 0][is_target_BT].sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(fast[name], p.grad, rtol=1e-8, atol=1e-9)


def test_an_fp32_model_gives_fp32_also_in_bfloat16_products():
    model, rows = cases.model(), batch()
    plain, fast = token_log_probs(model, rows), token_log_probs(model, rows, is_bf16=True)
    assert plain.dtype == fast.dtype == torch.float32
    # bfloat16 has 8 bits: a logit of 1 is off by up to 0.004, and some add up.
    torch.testing.assert_close(plain, fast, rtol=0.02, atol=0.05)
    assert not torch.equal(plain, fast)

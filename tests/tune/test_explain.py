"""Attributions: exact cases, completeness, and a cause that was planted."""

import copy

import pytest
import torch

from llama_from_scratch import bundled, load
from llama_from_scratch.tune import explain


@pytest.fixture(scope="module")
def model():
    found, _ = load(bundled.path("world/assistant"), dtype=torch.float32)
    return found.double()


IDS = [5, 90, 300, 41, 7, 612]
PAIR = dict(right=33, rival=77)


def test_a_gap_is_a_difference_of_logits(model):
    logits = model(torch.tensor([IDS]))[0, -1]
    assert explain.gap(model, IDS, **PAIR) == pytest.approx((logits[33] - logits[77]).item())
    assert explain.gap(model, IDS, right=77, rival=33) == -explain.gap(model, IDS, **PAIR)


def test_what_is_ignored_has_no_effect_and_a_cause_has_all_of_it(model):
    other = [5, 90, 301, 41, 7, 612]
    found = explain.effects(model, IDS, [IDS, other], **PAIR)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(explain.gap(model, IDS, **PAIR)
                                     - explain.gap(model, other, **PAIR))


def test_integrated_gradients_are_complete(model):
    found = explain.integrated_gradients(model, IDS, **PAIR, n_steps=128)
    change = found.at_text - found.at_baseline
    assert found.at_text == pytest.approx(explain.gap(model, IDS, **PAIR))
    assert abs(found.missing) < 0.01 * abs(change)
    coarse = explain.integrated_gradients(model, IDS, **PAIR, n_steps=2)
    assert abs(coarse.missing) > abs(found.missing)
    naive = explain.gradient_times_input(model, IDS, **PAIR)
    assert abs(float(naive.sum()) - change) > 10 * abs(found.missing)


def test_tokens_that_stay_get_nothing_and_the_baseline_counts(model):
    flags = [False, True, True, False, True, False]
    found = explain.integrated_gradients(model, IDS, **PAIR, is_explained=flags, n_steps=64)
    assert [bool(value) for value in found.of_tokens] == flags
    none = explain.integrated_gradients(model, IDS, **PAIR, is_explained=[False] * 6, n_steps=4)
    assert none.at_baseline == none.at_text and not none.of_tokens.any()
    zeros = explain.integrated_gradients(model, IDS, **PAIR, n_steps=64,
                                         baseline=torch.zeros(model.config.dim))
    assert not torch.allclose(zeros.of_tokens, explain.integrated_gradients(
        model, IDS, **PAIR, n_steps=64).of_tokens, atol=1e-2)


def test_the_weights_keep_no_gradient(model):
    explain.integrated_gradients(model, IDS, **PAIR, n_steps=2)
    explain.gradient_times_input(model, IDS, **PAIR)
    assert all(p.grad is None for p in model.parameters())


def test_a_linear_model_owes_its_gradient_to_each_token(model):
    """Without blocks and with a norm of 1, the last token decides everything."""
    linear = copy.deepcopy(model)
    linear.layers = torch.nn.ModuleList()
    linear.norm = torch.nn.Identity()
    zero = torch.zeros(model.config.dim, dtype=torch.float64)
    naive = explain.gradient_times_input(linear, IDS, **PAIR)
    path = explain.integrated_gradients(linear, IDS, **PAIR, baseline=zero, n_steps=1)
    assert torch.allclose(naive, path.of_tokens) and not naive[:-1].any()
    assert float(naive.sum()) == pytest.approx(explain.gap(linear, IDS, **PAIR))


def test_attention_of_the_last_layer_and_rollout():
    first = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]])
    second = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    weights = torch.stack([torch.stack([first, first]), torch.stack([second, first])])
    assert torch.allclose(explain.last_attention(weights),
                          torch.tensor([0.1, 0.65, 0.25]))
    eye = torch.eye(3)
    by_hand = (0.5 * (second + first) / 2 + 0.5 * eye) @ (0.5 * first + 0.5 * eye)
    assert torch.allclose(explain.rollout(weights), by_hand[-1])
    assert explain.rollout(weights).sum() == pytest.approx(1)
    assert explain.by_part(torch.arange(6.0), [range(0, 2), range(3, 6)]) == [1.0, 12.0]


@pytest.mark.parametrize(("call", "words"), [
    (lambda m: explain.gap(m, [], right=1, rival=2), "got no ids"),
    (lambda m: explain.gap(m, [1], right=2, rival=2), "two different tokens; got 2 twice"),
    (lambda m: explain.gradient_times_input(m, [1], right=2, rival=2), "two different tokens"),
    (lambda m: explain.integrated_gradients(m, [1], right=2, rival=3, n_steps=0), "n_steps=0"),
    (lambda m: explain.integrated_gradients(m, [1], right=2, rival=3, is_explained=[]),
     "0 flags and 1 tokens")])
def test_bad_input_is_refused(model, call, words):
    with pytest.raises(ValueError, match=words):
        call(model)

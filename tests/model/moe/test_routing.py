import math

import pytest
import torch
import transformers

from llama_from_scratch.model.moe.routing import BestScores, Router

D, E, N = 6, 5, 9


def make(n_active=2, dtype=torch.float32):
    torch.manual_seed(0)
    router = Router(D, E, n_active=n_active)
    with torch.no_grad():
        router.directions.weight.normal_()
    return router.to(dtype), torch.randn(N, D, dtype=dtype)


@pytest.mark.parametrize("n_active", range(1, E + 1))
def test_routing_equals_the_definition_written_as_a_loop(n_active):
    router, x = make(n_active)
    routing = router(x)
    for n in range(N):
        logits = [sum(a * b for a, b in zip(x[n].tolist(), row, strict=True))
                  for row in router.directions.weight.tolist()]
        best = sorted(range(E), key=lambda e: -logits[e])[:n_active]
        assert routing.experts[n].tolist() == best
        scores = [1 / (1 + math.exp(-logits[e])) for e in best]
        assert routing.scores[n].tolist() == pytest.approx(scores, rel=1e-5)
        assert routing.logits[n].tolist() == pytest.approx(logits, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("n_active", [1, 2, 3])
def test_scores_equal_the_router_of_transformers(n_active):
    router, x = make(n_active)
    config = transformers.Llama4TextConfig(hidden_size=D, num_local_experts=E,
                                           num_experts_per_tok=n_active)
    twin = transformers.models.llama4.modeling_llama4.Llama4Router(config)
    twin.load_state_dict({"weight": router.directions.weight})
    routing, (scores_NE, logits_NE) = router(x), twin(x)
    assert torch.equal(routing.logits, logits_NE)
    ours_NE = torch.zeros(N, E).scatter(1, routing.experts, routing.scores)
    torch.testing.assert_close(ours_NE, scores_NE, rtol=1e-6, atol=0)
    assert torch.equal(ours_NE == 0, scores_NE == 0)


def test_scores_are_not_divided_by_their_sum():
    router, x = make()
    sums = router(x).scores.sum(1)
    assert sums.max() > 1.5 and (sums - 1).abs().min() > 0.1


def test_only_chosen_logits_learn_and_the_choice_has_no_gradient():
    router, x = make()
    routing = router(x)
    routing.logits.retain_grad()
    routing.scores.sum().backward()
    is_chosen = torch.zeros(N, E, dtype=torch.bool).scatter(1, routing.experts, True)
    assert torch.equal(routing.logits.grad != 0, is_chosen)
    assert router.directions.weight.grad.any() and not routing.experts.is_floating_point()


def test_the_sigmoid_is_computed_in_fp32():
    router, x = make(dtype=torch.bfloat16)
    routing = router(4 * x)
    expected = routing.logits.gather(1, routing.experts).float().sigmoid().bfloat16()
    assert routing.scores.dtype == torch.bfloat16 and torch.equal(routing.scores, expected)
    router, x = make(dtype=torch.float64)
    assert router(x).scores.dtype == torch.float64


def test_another_choice_can_replace_the_best():
    router, x = make(n_active=1)
    router.choose.forward = lambda logits, n_active: logits.argmin(1, keepdim=True)
    routing = router(x)
    assert torch.equal(routing.experts[:, 0], routing.logits.argmin(1))
    assert not list(BestScores().parameters())


def test_fresh_scores_are_around_a_half():
    router, _ = make()
    router.init_weights()
    scores = router(torch.randn(2000, D)).scores
    assert 0.5 < scores.mean() < 0.75 and scores.std() < 0.2

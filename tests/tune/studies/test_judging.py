import pytest

from llama_from_scratch.tune.studies import judging, starts


@pytest.fixture
def small(monkeypatch):
    usual = starts.descriptions
    monkeypatch.setattr(judging, "descriptions", lambda n, split, seed: usual(4, split, seed=seed))
    monkeypatch.setattr(judging, "careless_writer", lambda seed: starts.fresh("assistant"))
    judging._pool.cache_clear()
    yield
    judging._pool.cache_clear()


def test_the_true_score_is_the_best_judge_and_chance_the_control(small):
    best, any_one = judging._by_truth(0), judging._by_chance(0)
    judged = judging._by_judge(0, n_pairs=8, n_steps=2)
    for n in judging._NS:
        name = f"true score of the best of {n}"
        assert best[name].value >= judged[name].value - 1e-9
        assert best[name].value >= any_one[name].value
    assert 0 <= judged["right about unseen pairs"].value <= 1

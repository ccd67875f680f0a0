"""The best of n is the one with the largest score, and its expected value is exact."""

import itertools
import math
from random import Random

import preference_cases as cases
import pytest
import torch

from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.train.records import History, TrainConfig
from llama_from_scratch.tune import best_of as module
from llama_from_scratch.tune.best_of import (
    DrawnAnswer,
    best_of,
    draw,
    expected_best,
    fit,
    kl_bound,
    winners,
)
from llama_from_scratch.tune.policy.samples import groups

PROMPT = (Message(role="user", content="Hi"),)


def test_the_largest_score_wins_and_among_equals_the_first():
    assert best_of([1.0, 3.0, 2.0]) == 1
    assert best_of([2.0, 3.0, 3.0]) == 1
    assert best_of([0.0, 0.0]) == 0
    assert best_of([-math.inf, -5.0]) == 1


def test_the_expected_best_of_n_is_the_mean_over_all_draws_by_brute_force():
    random = Random(0)
    for scores in ([random.random() for _ in range(7)], [1, 2, 2, 0, 2, 1, 0], [1] * 6):
        values = [random.random() for _ in scores]
        for n in range(1, len(scores) + 1):
            found = [values[max(drawn, key=lambda i: (scores[i], -i))]
                     for drawn in itertools.combinations(range(len(scores)), n)]
            assert expected_best(scores, n, values=values) == pytest.approx(
                sum(found) / len(found), rel=1e-12)


def test_the_best_of_1_is_the_policy_and_the_best_of_all_is_the_best():
    values, scores = [3.0, 5.0, 1.0, 9.0], [0.1, 0.4, 0.3, 0.2]
    assert expected_best(scores, 1, values=values) == pytest.approx(sum(values) / 4)
    assert expected_best(scores, 4, values=values) == 5.0


def test_a_large_pool_is_exact_too():
    scores = list(range(3000))
    # The expected largest of n from 0 .. N - 1 is (N + 1) n / (n + 1) - 1.
    assert expected_best(scores, 64, values=scores) == pytest.approx(3001 * 64 / 65 - 1)


def test_the_bound_is_the_exact_divergence_where_no_two_answers_are_equal():
    assert kl_bound(1) == 0
    m = 20000  # this many equally likely answers are nearly a continuum
    for n in (2, 4, 16):
        best = [((i + 1) / m) ** n - (i / m) ** n for i in range(m)]
        exact = math.fsum(q * math.log(q * m) for q in best if q > 0)
        assert exact <= kl_bound(n)
        assert exact == pytest.approx(kl_bound(n), abs=0.01)


def test_the_bound_is_above_the_divergence_where_scores_are_equal():
    # Two answers, of which the better one has the probability 0.2.
    for n in (2, 4, 16, 64):
        worse = 0.8**n
        exact = worse * math.log(worse / 0.8) + (1 - worse) * math.log((1 - worse) / 0.2)
        assert exact < kl_bound(n)


@pytest.mark.parametrize("call, message", [
    (lambda: best_of([]), "at least one score"),
    (lambda: best_of([1.0, math.nan]), "each a number; got"),
    (lambda: expected_best([1.0, 2.0], 3, values=[1.0, 2.0]), "pool of 2 answers, .* got n=3"),
    (lambda: expected_best([1.0, 2.0], 0, values=[1.0, 2.0]), "got n=0"),
    (lambda: expected_best([1.0, 2.0], 1, values=[1.0]), "got 2 scores and 1 values"),
    (lambda: expected_best([1.0, math.nan], 1, values=[1.0, 1.0]), "each a number"),
    (lambda: kl_bound(0), "got n=0"),
    (lambda: draw(cases.model(), [PROMPT], cases.tokenizer(), n=0), "got n=0"),
])
def test_what_has_no_best_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- drawing --------------------------------------------------------------------------------------


def prompts(n):
    return [pair.prompt for pair in cases.pairs(n)]


def test_answers_are_those_of_a_group_and_do_not_depend_on_the_other_prompts():
    model, tokenizer, told = cases.model(), cases.tokenizer(), prompts(3)
    found = draw(model, told, tokenizer, n=2, format=cases.FORMAT, max_tokens=6, seed=5)
    assert [len(group) for group in found] == [2, 2, 2]
    stop_ids = cases.FORMAT.stop_ids(tokenizer)
    for p, group in enumerate(found):
        ids = cases.FORMAT.encode(list(told[p]), tokenizer)
        [alone] = groups(model, [ids], n=2, max_tokens=6, stop_ids=stop_ids, seed=5, first=p)
        assert group == [DrawnAnswer(prompt=told[p], number=p, is_finished=each.is_finished,
                                     text=tokenizer.decode(list(each.text_ids)))
                         for each in alone]
    assert found[0][0].text != found[0][1].text


def test_an_answer_that_the_model_did_not_end_is_not_finished():
    model, tokenizer = cases.model(), cases.tokenizer()
    [group] = draw(model, prompts(1), tokenizer, n=2, format=cases.FORMAT, max_tokens=4)
    assert not any(each.is_finished for each in group)
    with torch.no_grad():  # every hidden state now points to the end
        model.norm.weight.zero_()
    found = draw(model, prompts(1), tokenizer, n=2, format=cases.FORMAT, max_tokens=4,
                 temperature=0.01)
    assert not any(each.is_finished for each in found[0])


def group_of(*told, number=0):
    return [DrawnAnswer(prompt=PROMPT, number=number, text=text, is_finished=is_finished)
            for text, is_finished in told]


def length(candidates):
    return [len(each.text) for each in candidates]


def test_the_winner_of_each_group_has_the_largest_score_and_not_the_place():
    drawn = [group_of(("aa", True), ("aaaa", True), ("a", True)),
              group_of(("b", True), ("bb", True), number=1)]
    best = winners(drawn, length)
    assert [each.text for each in best.candidates] == ["aaaa", "bb"]
    assert best.scores == (4, 2) and best.without == ()
    worst = winners(drawn, lambda candidates: [-len(each.text) for each in candidates])
    assert [each.text for each in worst.candidates] == ["a", "b"]
    same = winners(drawn, lambda candidates: [0.0] * len(candidates))
    assert [each.text for each in same.candidates] == ["aa", "b"]


def test_cut_and_empty_answers_never_win_and_prompts_without_a_winner_are_named():
    drawn = [group_of(("aaaa", False), ("a", True), ("  ", True)),
              group_of(("bb", False), number=1), group_of(("c", True), number=2)]
    best = winners(drawn, length)
    assert [each.text for each in best.candidates] == ["a", "c"]
    assert best.without == (1,)
    with pytest.raises(ValueError, match="got 1 answers and none with words and an end"):
        winners(drawn[1:2], length)


def test_a_score_that_is_not_one_number_per_candidate_is_refused():
    drawn = [group_of(("a", True), ("b", True))]
    with pytest.raises(ValueError, match="got 1 for 2"):
        winners(drawn, lambda candidates: [1.0])
    with pytest.raises(ValueError, match="each a number"):
        winners(drawn, lambda candidates: [1.0, math.nan])


def test_only_the_winner_is_learned_and_not_the_answers_in_its_prompt():
    prompt = (*PROMPT, Message(role="assistant", content="Hello"),
              Message(role="user", content="Bye"))
    candidate = DrawnAnswer(prompt=prompt, number=0, text="See you", is_finished=True)
    assert candidate.dialog.learned == (3,)
    assert candidate.dialog.messages[-1].content == "See you"


def test_rejection_sampling_learns_the_winners_and_nothing_else(monkeypatch):
    learned, drawn = [], [group_of(("a", True), ("bbb", True)),
                           group_of(("cc", True), ("d", True), number=1)]
    monkeypatch.setattr(module, "draw", lambda *_, **how: (learned.append(how["n"]), drawn)[1])

    def learn(model, dialogs, *_, **how):
        learned.append(list(dialogs))
        return History(steps=(), is_complete=True)

    monkeypatch.setattr(module.sft, "fit", learn)
    fit(cases.model(), [PROMPT, PROMPT], cases.tokenizer(), score=length, n=2)
    assert learned[0] == 2
    assert [dialog.messages[-1].content for dialog in learned[1]] == ["bbb", "cc"]


def test_rejection_sampling_makes_its_winners_more_likely():
    model, tokenizer = cases.model(seed=3), cases.tokenizer()
    end = tokenizer.special_ids["<|eot_id|>"]
    with torch.no_grad():  # a fresh model ends one answer in 500; this one does more often
        model.tok_embeddings.weight[end] *= 12
    told = prompts(6)
    how = dict(n=4, format=cases.FORMAT, max_tokens=12)
    best = winners(draw(model, told, tokenizer, **how), length)
    assert best.candidates
    config = TrainConfig(n_steps=6, batch_size=4, seq_len=128, peak_lr=2e-3, n_warmup=1)
    history = fit(model, told, tokenizer, score=length, **how, config=config)
    assert history.losses[-1] < history.losses[0]

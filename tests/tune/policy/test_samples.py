import dataclasses

import pytest
import tiny_rewards
import torch
from tiny_rewards import PROMPTS, STOPS, answer

from llama_from_scratch import family
from llama_from_scratch.generate import sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tune.policy import samples

FAMILY = (*family.TEXT_GENERATIONS, family.EXPERT_GENERATION)


@pytest.fixture(scope="module")
def model():
    return tiny_rewards.make()


def drawn(model, prompts=PROMPTS, **options):
    return samples.groups(model, prompts, **dict(n=4, max_tokens=6, stop_ids=STOPS) | options)


def ids_of(groups):
    return [[each.ids for each in group] for group in groups]


def one_by_one(model, prompt, uniforms, *, max_tokens, temperature=1.0, stop_ids=STOPS):
    """An answer drawn without a cache and alone, with these numbers between 0 and 1."""
    text, log_probs = list(prompt), []
    for uniform in uniforms[:max_tokens]:
        with torch.inference_mode():
            logits_V = model(torch.tensor([text]))[0, -1].double() / temperature
        probs_V = logits_V.softmax(-1)
        token = int((probs_V.cumsum(-1) <= uniform).sum())
        text.append(token)
        log_probs.append(float(probs_V[token].log()))
        if token in stop_ids:
            break
    return tuple(text[len(prompt) :]), log_probs


@pytest.mark.parametrize("generation", FAMILY)
def test_groups_equal_answers_drawn_alone_without_a_cache(generation):
    torch.manual_seed(0)
    config = dataclasses.replace(family.tiny(generation), vocab_size=64)
    model, stops = Llama(config), frozenset(range(56, 64))
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]]
    found = samples.groups(model, prompts, n=3, max_tokens=9, stop_ids=stops, temperature=1.5,
                           seed=7, first=2)
    lengths = set()
    for i, (prompt, group) in enumerate(zip(prompts, found, strict=True)):
        for j, each in enumerate(group):
            generator = samples._generator(7, 2 + i, j)
            uniforms = [float(torch.rand((), generator=generator, dtype=torch.float64))
                        for _ in range(9)]
            ids, log_probs = one_by_one(model, prompt, uniforms, max_tokens=9, temperature=1.5,
                                        stop_ids=stops)
            assert each.ids == ids
            torch.testing.assert_close(torch.tensor(each.log_probs), torch.tensor(log_probs),
                                       atol=1e-5, rtol=0)
            assert each.is_finished == (ids[-1] in stops)
            lengths.add(len(ids))
    assert len(lengths) > 2, "answers of several lengths, so that rows leave the batch"


def test_the_id_that_ends_an_answer_belongs_to_it_and_a_cut_answer_has_none(model):
    every = [each for group in drawn(model, n=8) for each in group]
    finished = [each for each in every if each.is_finished]
    cut = [each for each in every if not each.is_finished]
    assert finished and cut
    for each in finished:
        assert each.ids[-1] in STOPS and not STOPS & {*each.ids[:-1]}
        assert each.text_ids == each.ids[:-1]
    for each in cut:
        assert len(each.ids) == 6 and not STOPS & {*each.ids} and each.text_ids == each.ids


def test_an_answer_depends_neither_on_its_group_nor_on_the_other_prompts_nor_on_the_batch(model):
    whole = ids_of(drawn(model, n=6))
    assert [group[:2] for group in whole] == ids_of(drawn(model, n=2))
    assert whole[:3] == ids_of(drawn(model, PROMPTS[:3], n=6))
    assert whole[3:] == ids_of(drawn(model, PROMPTS[3:], n=6, first=3))
    assert whole == ids_of(drawn(model, n=6, rows_at_once=13))
    assert whole == ids_of(drawn(model, n=6, rows_at_once=1)), "a group is never divided"


def test_seeds_and_members_of_a_group_draw_different_numbers(model):
    first, second = ids_of(drawn(model, n=8, seed=0)), ids_of(drawn(model, n=8, seed=1))
    assert first != second and first == ids_of(drawn(model, n=8, seed=0))
    assert all(len(set(group)) > 4 for group in first)
    same = ids_of(drawn(model, [PROMPTS[0]] * 2, n=8))
    assert same[0] != same[1], "the same prompt at another place draws other numbers"


def test_frequencies_of_the_first_token_are_the_softmax_at_the_temperature(model):
    n = 4000
    [group] = drawn(model, PROMPTS[:1], n=n, max_tokens=1, temperature=0.1)
    with torch.inference_mode():
        probs_V = (model(torch.tensor(PROMPTS[:1]))[0, -1] / 0.1).softmax(-1)
    counts_V = torch.bincount(torch.tensor([each.ids[0] for each in group]), minlength=258)
    assert 0.02 < probs_V.max() < 0.9
    error_V = (probs_V * (1 - probs_V) / n).sqrt() + 1 / n
    assert ((counts_V / n - probs_V).abs() / error_V).max() < 4.5
    for each in group[:50]:
        assert each.log_probs[0] == pytest.approx(float(probs_V[each.ids[0]].log()), abs=1e-5)


def test_each_prompt_is_read_once_whatever_the_size_of_its_group(model, monkeypatch):
    shapes, plain = [], Llama.hidden

    def noted(self, ids, **kwargs):
        shapes.append(tuple(ids.shape))
        return plain(self, ids, **kwargs)

    monkeypatch.setattr(Llama, "hidden", noted)
    drawn(model, PROMPTS[:3], n=5, stop_ids={0})
    assert shapes[0] == (3, max(map(len, PROMPTS[:3]))) and set(shapes[1:]) == {(15, 1)}


def test_rows_with_a_complete_answer_leave_the_batch(model, monkeypatch):
    sizes, plain = [], Llama.hidden

    def noted(self, ids, **kwargs):
        sizes.append(len(ids))
        return plain(self, ids, **kwargs)

    monkeypatch.setattr(Llama, "hidden", noted)
    drawn(model, n=8, max_tokens=12)
    assert sizes[-1] < sizes[1] / 2


def test_the_draw_uses_the_library_s_distribution(model, monkeypatch):
    seen = []
    plain = sampling.distribution
    monkeypatch.setattr(samples, "distribution", lambda logits, how, **rest: (
        seen.append(how), plain(logits, how, **rest))[1])
    drawn(model, PROMPTS[:1], n=1, temperature=0.7)
    assert set(seen) == {sampling.Sampling(temperature=0.7)}


@pytest.mark.parametrize("options, message", [
    (dict(n=0), "a group has at least one answer"),
    (dict(rows_at_once=0), "at least one row goes through the model"),
    (dict(temperature=0.0), "above 0; got 0.0. For the likeliest answer, use generate"),
    (dict(temperature=-1.0), "above 0; got -1.0"),
    (dict(seed=-1), "seed and first are 0 or more"),
    (dict(max_tokens=0), "max_tokens must be at least 1"),
    (dict(max_tokens=40), "leaves room for"),
    (dict(stop_ids=frozenset({999})), "stop_ids holds 999"),
])
def test_what_cannot_be_drawn_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        drawn(model, **options)


def test_empty_prompts_are_refused(model):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        drawn(model, [[1], []])
    with pytest.raises(ValueError, match="at least one prompt; got none"):
        drawn(model, [])


def test_an_answer_must_have_as_many_numbers_as_ids_and_a_written_id():
    assert answer(1, 2).written == (True, True)
    assert answer(1, 2, is_written=(True, False)).written == (True, False)
    with pytest.raises(ValueError, match="got 2 ids, 1 log-probabilities and 2 marks"):
        answer(1, 2, log_probs=[-1.0])
    with pytest.raises(ValueError, match="at least one id that the model wrote"):
        answer(1, 2, is_written=(False, False))
    with pytest.raises(ValueError, match="at least one id that the model wrote; got 0 ids"):
        answer()

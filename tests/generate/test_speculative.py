import copy
import dataclasses
import itertools

import pytest
import torch
from hugging_face_twin import loud
from hypothesis import given, settings
from hypothesis import strategies as st
from llama4_twin import loud_llama4, toy
from seeing_twin import loud as looking_model

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import GREEDY, Sampling, distribution
from llama_from_scratch.generate.speculative import generate_speculatively, judge, rounds
from llama_from_scratch.vision.adapter import detach

TINY = dataclasses.replace(family.tiny("llama-3"), max_seq_len=48)
PENALIZED = Sampling(temperature=0.0, repetition_penalty=1.3)


def perturbed(model, size):
    """A draft that agrees with the model more often if `size` is smaller."""
    draft, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in draft.parameters():
            weight += size * weight.std() * torch.randn(
                weight.shape, generator=generator, dtype=weight.dtype)
    return draft


@pytest.fixture(scope="module")
def model():
    """In float64 a difference is a mistake: rounding is too small to turn a near-tie."""
    return loud(TINY).double()


@pytest.fixture(scope="module")
def drafts(model):
    other = loud(dataclasses.replace(
        TINY, dim=16, n_heads=2, n_kv_heads=1, layers=(LayerSpec(),))).double()
    return {
        "the model itself": model, "good": perturbed(model, 0.03), "fair": perturbed(model, 0.2),
        "bad": other,
        "with a short context": loud(dataclasses.replace(TINY, max_seq_len=12)).double(),
    }


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_greedy_output_is_that_of_the_big_model_alone(model, drafts, data):
    prompt = data.draw(st.lists(st.integers(0, 511), min_size=1, max_size=40))
    max_tokens = data.draw(st.none() | st.integers(1, 48 - len(prompt)))
    options = {
        "max_tokens": max_tokens, "sampling": data.draw(st.sampled_from([GREEDY, PENALIZED])),
        "stop_ids": data.draw(st.sets(st.integers(0, 511), max_size=40)),
    }
    draft = data.draw(st.sampled_from(sorted(drafts)))
    found = generate_speculatively(model, prompt, draft=drafts[draft],
                                   n_guesses=data.draw(st.integers(1, 9)), **options)
    assert found.ids == generate(model, [prompt], **options)[0]


@pytest.mark.parametrize("seed", range(4))
def test_random_models_in_float32_agree_too(seed):
    torch.manual_seed(seed)
    model = loud(TINY)
    for draft, n_guesses in itertools.product((model, perturbed(model, 0.1)), (1, 4)):
        for prompt in ([seed], list(range(seed, seed + 20))):
            found = generate_speculatively(model, prompt, draft=draft, n_guesses=n_guesses)
            assert found.ids == generate(model, [prompt])[0]


def test_a_perfect_draft_has_every_guess_accepted_and_saves_passes(model):
    found = generate_speculatively(model, [1, 2, 3], draft=model, n_guesses=4, max_tokens=23)
    assert found.acceptance == 1.0
    assert [len(r.ids) for r in found.rounds] == [5, 5, 5, 5, 3]
    assert found.tokens_per_pass == pytest.approx(23 / 5)


def test_figures_count_what_the_models_read(model, drafts):
    reads = {"model": [], "draft": []}
    draft = drafts["fair"]
    hooks = [m.tok_embeddings.register_forward_pre_hook(
                 lambda _, inputs, name=name: reads[name].append(inputs[0].shape[1]))
             for name, m in (("model", model), ("draft", draft))]
    found = generate_speculatively(model, [1, 2, 3], draft=draft, n_guesses=3, max_tokens=30)
    for hook in hooks:
        hook.remove()
    assert 0 < found.acceptance < 1
    assert (len(reads["model"]) == len(found.rounds)
            and len(reads["draft"]) == sum(r.n_guessed for r in found.rounds))
    assert reads["model"] == [len([1, 2, 3]) + 3] + [1 + r.n_guessed for r in found.rounds[1:]]
    assert max(reads["draft"][1:]) <= 2, (
        "the draft reads at most its own last guess and the model's token")
    assert all(len(r.ids) == r.n_accepted + 1 for r in found.rounds)


def test_rounds_arrive_as_they_are_made(model):
    stream = rounds(model, [1, 2, 3], draft=model, max_tokens=20)
    first = next(stream)
    assert list(first.ids) == generate(model, [[1, 2, 3]], max_tokens=5)[0]


def assert_drawn_from(counts, probs):
    """Asserts that Pearson's statistic is below that of 99.9 % of correct samples.

    The bound is Wilson and Hilferty's approximation.
    """
    expected = counts.sum() * probs
    assert not counts[probs == 0].any()
    counts, expected = counts[expected > 5], expected[expected > 5]
    k = len(counts) - 1
    assert ((counts - expected) ** 2 / expected).sum() < (
        k * (1 - 2 / (9 * k) + 3.09 * (2 / (9 * k)) ** 0.5) ** 3)


@pytest.mark.parametrize("q", [
    [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.0, 0.5, 0.5, 0.0],
], ids=str)
def test_a_judged_guess_is_distributed_as_the_big_model_says(q):
    p, q = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]]), torch.tensor(q)
    generator = torch.Generator().manual_seed(0)
    guesses = torch.multinomial(q, 8000, replacement=True, generator=generator)
    found = [judge(p, [q], guesses=[guess], generator=generator) for guess in guesses.tolist()]
    first = torch.tensor([new[0] for new in found])
    second = torch.tensor([new[1] for new in found if len(new) == 2])
    assert_drawn_from(first.bincount(minlength=4), p[0])
    assert_drawn_from(second.bincount(minlength=4), p[1])
    # The probability of acceptance is what p and q share: the sum of their minima (Leviathan et
    # al., theorem 3.5).
    assert len(second) / 8000 == pytest.approx(torch.minimum(p[0], q).sum().item(), abs=0.02)


def test_where_rounding_leaves_no_rest_the_big_model_decides():
    p, q = torch.tensor([[0.5, 0.0, 0.5, 0.0], [1.0, 0, 0, 0]]), torch.tensor([0.5, 1e-7, 0.5, 0.0])
    assert judge(p, [q], guesses=[1], generator=torch.Generator().manual_seed(0))[0] in (0, 2)


@pytest.mark.parametrize(("p", "q", "is_kept"), [
    (0.0, 0.0, False), (0.0, 0.5, False), (1e-30, 0.0, True), (0.5, 0.0, True), (0.5, 0.5, True),
    (1e-300, 1.0, False),
])
def test_a_guess_that_cannot_be_is_never_kept(p, q, is_kept):
    for dtype in (torch.float32, torch.float64):
        big, small = (torch.tensor([x, 1 - x, 0.0], dtype=dtype) for x in (p, q))
        for seed in range(20):
            new = judge(torch.stack([big, big]), [small], guesses=[0],
                        generator=torch.Generator().manual_seed(seed))
            assert (len(new) == 2) == is_kept and 2 not in new
            assert is_kept or new == [1]


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=0.8), Sampling(top_k=4, repetition_penalty=1.3),
], ids=str)
def test_sampled_pairs_come_as_often_as_the_big_model_alone_would_write_them(sampling):
    config = dataclasses.replace(TINY, dim=16, n_heads=2, n_kv_heads=1, ffn_dim=16, vocab_size=6,
                                 layers=(LayerSpec(),))
    model, draft, prompt, n = loud(config), perturbed(loud(config), 0.05), [1, 2], 1000
    pairs = torch.zeros(6, 6)
    n_accepted = 0
    for seed in range(n):
        found = generate_speculatively(model, prompt, draft=draft, n_guesses=2, max_tokens=3,
                                       sampling=sampling, seed=seed)
        pairs[found.ids[0], found.ids[1]] += 1
        n_accepted += found.rounds[0].n_accepted
    assert 0.3 < n_accepted / (2 * n) < 0.95, "a test of the rule needs guesses of both fates"

    def after(ids):
        seen = torch.zeros(1, 6, dtype=torch.bool)
        seen[0, ids] = True
        with torch.no_grad():
            return distribution(model(torch.tensor([ids]))[:, -1], sampling, seen=seen)[0]

    expected = after(prompt)[:, None] * torch.stack([after([*prompt, token]) for token in range(6)])
    assert_drawn_from(pairs, expected)


def test_a_seed_repeats_and_another_differs(model, drafts):
    options = {"draft": drafts["fair"], "max_tokens": 20, "sampling": Sampling(temperature=1.0)}
    first, again, other = (generate_speculatively(model, [1], seed=seed, **options).ids
                           for seed in (1, 1, 2))
    assert first == again != other


def test_a_draft_of_another_vocabulary_is_refused(model):
    with pytest.raises(
        ValueError, match="the same ids as the model; got vocabularies of 100 and 512"
    ):
        generate_speculatively(model, [1], draft=loud(dataclasses.replace(TINY, vocab_size=100)))


@pytest.mark.parametrize(("options", "message"), [
    ({"n_guesses": 0}, "n_guesses must be at least 1; got 0"),
    ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ({"max_tokens": 47}, "leaves room for 46, not 47"),
    ({"stop_ids": {512}}, "stop_ids holds 512"),
    ({"seed": 2**64}, "a seed has 64 bits"),
])
def test_settings_without_a_meaning_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate_speculatively(model, [1, 2], draft=model, **options)


@pytest.mark.parametrize("culprit", ["model", "draft"])
def test_a_model_or_draft_of_nans_is_refused(model, culprit):
    broken = copy.deepcopy(model)
    torch.nn.init.constant_(broken.norm.weight, float("nan"))
    big, small = (broken, model) if culprit == "model" else (model, broken)
    with pytest.raises(ValueError, match="logits hold a NaN"):
        generate_speculatively(big, [1], draft=small)


def test_models_that_see_are_refused_and_their_text_models_are_not():
    model = looking_model()
    text = detach(model)
    for which, big, small in (("model", model, text), ("draft", text, model)):
        with pytest.raises(ValueError, match=f"the {which} also sees.*vision.detach"):
            generate_speculatively(big, [5], draft=small, max_tokens=3)
    assert generate_speculatively(text, [5], draft=text, max_tokens=3).ids == generate(
        model, [5], max_tokens=3)[0]


def test_a_llama_4_guesses_ahead_for_another():
    model = loud_llama4(toy(n_active=2)).double()
    found = generate_speculatively(model, [5, 6, 7, 8, 9], draft=perturbed(model, 0.02),
                                   max_tokens=25)
    assert found.ids == generate(model, [[5, 6, 7, 8, 9]], max_tokens=25)[0]
    assert any(0 < each.n_accepted < each.n_guessed or each.n_accepted for each in found.rounds)

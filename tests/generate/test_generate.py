
import pytest
import torch
from hugging_face_twin import twin_of
from hypothesis import given, settings
from hypothesis import strategies as st
from loud_models import PROMPTS, WARM, loud_model

from llama_from_scratch.generate.generate import generate, stream, stream_text, until
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer


@pytest.fixture(scope="module")
def exact_model():
    """In float64 a difference is a mistake: rounding is too small to turn a near-tie."""
    return loud_model().double()


def without_cache(model, prompt, n):
    """The definition: the whole text goes through the model for every new token."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt):]


def test_greedy_equals_feeding_the_whole_text_for_every_token(model):
    for prompt in PROMPTS:
        assert generate(model, [prompt], max_tokens=20) == [without_cache(model, prompt, 20)]


def test_greedy_equals_transformers_generate(model):
    ids = generate(model, [PROMPTS[1]], max_tokens=30)[0]
    theirs = twin_of(model).generate(
        torch.tensor([PROMPTS[1]]), max_new_tokens=30, do_sample=False, eos_token_id=None,
        pad_token_id=0)
    assert ids == theirs[0, len(PROMPTS[1]):].tolist()


def test_a_seed_repeats_and_another_differs(model):
    first, again, other = (generate(model, [[5]], max_tokens=20, sampling=WARM, seed=seed)
                           for seed in (1, 1, 2))
    assert first == again != other


def test_the_global_generator_is_left_alone(model):
    before = torch.get_rng_state()
    generate(model, [[5]], max_tokens=5, sampling=WARM)
    assert torch.equal(before, torch.get_rng_state())


def test_a_stop_token_ends_its_row_and_is_not_returned(model):
    free = generate(model, PROMPTS, max_tokens=12)
    stop = free[1][4]
    stopped = generate(model, PROMPTS, max_tokens=12, stop_ids={stop})
    for row, whole in zip(stopped, free, strict=True):
        assert row == (whole[: whole.index(stop)] if stop in whole else whole)
    assert len(stopped[1]) <= 4


def test_stream_yields_what_generate_returns(model):
    options = {"max_tokens": 10, "sampling": WARM}
    assert list(stream(model, [5], **options)) == generate(model, [[5]], **options)[0]


def test_a_repetition_penalty_forgets_padding_and_remembers_the_prompt(model):
    hard = Sampling(temperature=0.0, repetition_penalty=1e6)
    answer = generate(model, [PROMPTS[1]], max_tokens=40, sampling=hard)[0]
    assert len(set(answer)) == len(answer) and not set(answer) & set(PROMPTS[1])


def test_without_max_tokens_the_context_is_filled():
    assert len(generate(loud_model(max_seq_len=16), [[1, 2, 3]])[0]) == 13


@settings(max_examples=30, deadline=None)
@given(data=st.data(), sampling=st.sampled_from([Sampling(temperature=0.0), WARM]),
       has_mask=st.booleans())
def test_rows_that_end_at_their_own_time_write_what_they_would_alone(
    exact_model, data, sampling, has_mask
):
    prompt = st.lists(st.integers(0, 511), min_size=1, max_size=12)
    prompts = data.draw(st.lists(prompt, min_size=1, max_size=7))

    def one_each(strategy):
        return data.draw(st.lists(strategy, min_size=len(prompts), max_size=len(prompts)))

    limits = one_each(st.integers(1, 20))
    stops = one_each(st.sets(st.integers(0, 511), max_size=40))
    mask = even_after_odd if has_mask else None
    batch = generate(exact_model, prompts, max_tokens=limits, sampling=sampling, seed=5,
                     stop_ids=stops, mask=mask)
    for b, (prompt, limit, stop) in enumerate(zip(prompts, limits, stops, strict=True)):
        own_mask = None if mask is None else lambda _, ids, b=b: mask(b, ids)
        alone = generate(exact_model, [prompt], max_tokens=limit, sampling=sampling, seed=5 + b,
                         stop_ids=stop, mask=own_mask)
        assert batch[b] == alone[0]


def even_after_odd(row, ids):
    """An example of a mask: the row's number and all its ids decide the next id's last bit."""
    return torch.arange(512) % 2 == (row + sum(ids)) % 2


def test_without_max_tokens_each_row_of_a_batch_fills_its_own_context():
    model = loud_model(max_seq_len=16).double()
    prompts = [[1] * 9, [2], [3, 4, 5]]
    batch = generate(model, prompts)
    assert [len(answer) for answer in batch] == [7, 15, 13]
    assert batch == [generate(model, [prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=0.0), Sampling(temperature=0.0, repetition_penalty=1.5), WARM,
    Sampling(top_p=0.5, min_p=0.1),
], ids=str)
def test_only_ids_that_the_mask_allows_are_written(model, sampling):
    told = []

    def mask(row, ids):
        told.append((row, tuple(ids)))
        return even_after_odd(row, ids)

    answers = generate(model, PROMPTS, max_tokens=6, sampling=sampling, mask=mask)
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, answers, strict=True)]
    assert sorted(told) == sorted((b, tuple(text[:n])) for b, text in enumerate(texts)
                                  for n in range(len(text) - 6, len(text)))
    for row, text in enumerate(texts):
        assert all(text[n] % 2 == (row + sum(text[:n])) % 2
                   for n in range(len(PROMPTS[row]), len(text)))


def test_a_greedy_mask_takes_the_likeliest_of_those_allowed(model):
    allowed = torch.zeros(512, dtype=torch.bool)
    allowed[[3, 77, 200]] = True
    logits = model(torch.tensor([PROMPTS[1]]))[0, -1]
    answer = generate(model, [PROMPTS[1]], max_tokens=1, mask=lambda row, ids: allowed)[0]
    assert answer == [max((3, 77, 200), key=lambda token: logits[token].item())]


def test_a_mask_that_allows_everything_changes_nothing(model):
    everything = torch.ones(512, dtype=torch.bool)
    options = {"max_tokens": 9, "sampling": WARM}
    free = generate(model, PROMPTS, **options)
    assert generate(model, PROMPTS, mask=lambda *_: everything, **options) == free


def test_a_mask_is_not_asked_for_a_row_that_has_stopped(model):
    def mask(row, ids):
        assert row != 0 or len(ids) < len(PROMPTS[0]) + 2, "row 0 has its two tokens"
        return torch.ones(512, dtype=torch.bool)

    generate(model, PROMPTS, max_tokens=[2, 6, 6], mask=mask)


@pytest.mark.parametrize(("mask", "message"), [
    (lambda row, ids: torch.full((512,), row != 1 or len(ids) < 7),
     "for prompt 1 it allows none after 7 ids"),
    (lambda row, ids: torch.ones(511, dtype=torch.bool),
     r"one bool for each of the 512 ids; got torch.bool of shape \(511,\)"),
    (lambda row, ids: torch.ones(512), "got torch.float32 of shape"),
    (lambda row, ids: [True] * 512, "as a tensor; got a list for prompt 0"),
])
def test_masks_that_leave_no_choice_or_have_another_form_are_refused(model, mask, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, max_tokens=5, mask=mask)


def test_a_model_of_nans_is_refused(model):
    broken = loud_model()
    torch.nn.init.constant_(broken.norm.weight, float("nan"))
    for sampling in (WARM, Sampling(temperature=0.0)):
        with pytest.raises(ValueError, match="logits hold a NaN"):
            generate(broken, [[1]], max_tokens=3, sampling=sampling)


@pytest.mark.parametrize(("logit", "message"), [
    (float("inf"), r"logits hold \+inf"), (float("-inf"), "has the logit -inf"),
])
def test_infinite_logits_are_refused(logit, message, monkeypatch):
    model = loud_model()
    monkeypatch.setattr(model.output, "forward",
                        lambda x: torch.full((*x.shape[:-1], 512), logit))
    for sampling in (WARM, Sampling(temperature=0.0)):
        with pytest.raises(ValueError, match=message):
            generate(model, [[1]], max_tokens=3, sampling=sampling)


def test_streamed_text_holds_a_character_back_until_it_is_whole():
    tokenizer = Tokenizer.train("héé " * 20, 260, special_tokens=BEGIN_AND_END)
    model = loud_model(vocab_size=tokenizer.vocab_size)
    pieces = list(stream_text(model, tokenizer, prompt="hé", max_tokens=60, sampling=WARM))
    (ids,) = generate(model, [tokenizer.encode("hé", bos=True)], max_tokens=60, sampling=WARM,
                      stop_ids={tokenizer.eos_id})
    special = set(tokenizer.special_ids.values())
    whole = b"".join(tokenizer.decode_bytes([i]) for i in ids if i not in special)
    whole = whole.decode("utf-8", errors="replace")
    assert "".join(pieces) == whole


@pytest.mark.parametrize(("pieces", "before"), [
    (["one", " two"], "one two"), (["one\n", "## B"], "one"), (["one\n#", "# B", "three"], "one"),
    (["one\n#", " two"], "one\n# two"), (["\n##"], "\n##"), (["\n\n## B"], "\n"), ([], ""),
    (["a\n## ", "C"], "a\n## C")])
def test_a_text_ends_before_the_words_that_end_it(pieces, before):
    assert "".join(until("\n## B", pieces)) == before
    assert "".join(until(None, pieces)) == "".join(pieces)


def test_pieces_that_cannot_end_a_text_are_not_held_back():
    assert list(until("END", ["one", "E", "x", "EN", "D", "late"])) == ["one", "Ex"]

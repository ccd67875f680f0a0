
import fusion_looking
import numpy as np
import pytest
import torch
from hugging_face_twin import twin_of
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import HOT, POOL, Looks, shown
from loud_models import PROMPTS, WARM, loud_model
from PIL import Image
from seeing_twin import IMAGE, theirs
from seeing_twin import loud as looking_model
from seeing_twin import twin_of as twin_of_seeing

from llama_from_scratch.generate.generate import decode, generate, stream, stream_text, until
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.vision.adapter import detach
from llama_from_scratch.vision.tiles import split


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


# --- images ---------------------------------------------------------------------------------------

SHOWN = [[2, 0], [], [1], [3], []]
LOOKING = [[7, IMAGE, 8, IMAGE, 9], [5, 6, 7, 8, 9, 10, 11], [IMAGE, 3], [4, 4, 4, IMAGE], [5]]
"""A batch of unequal prompts, and which images each of them shows."""


@pytest.fixture(scope="module")
def seeing():
    return looking_model().double()


def feeding_everything(model, prompt, images, n):
    """The definition: text and images go through the model for every new token."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(model(torch.tensor([ids]), images=images)[0, -1].argmax().item())
    return ids[len(prompt):]


@pytest.mark.parametrize("row", range(4))
def test_with_images_greedy_equals_feeding_all_of_it_for_every_token(seeing, row):
    prompt, images = LOOKING[row], shown(SHOWN[row])
    (answer,) = generate(seeing, [prompt], images=images, max_tokens=12)
    assert answer == feeding_everything(seeing, prompt, images, 12)
    blind = generate(detach(seeing), [[token % IMAGE for token in prompt]], max_tokens=12)[0]
    assert images is None or answer != blind, "the images matter here"


@pytest.mark.parametrize("rule", ["meta", "transformers"])
def test_with_images_greedy_equals_transformers(rule):
    model = looking_model()
    twin, ids, images = twin_of_seeing(model), list(LOOKING[0]), shown(SHOWN[0])
    for _ in range(8):
        logits = theirs(twin, torch.tensor([ids]), images, rule=rule)
        ids.append(logits[0, -1].argmax().item())
    model.sees_before_images = rule == "transformers"
    assert generate(model, [LOOKING[0]], images=images, max_tokens=8) == [ids[len(LOOKING[0]):]]


@pytest.mark.parametrize("sampling", [GREEDY, WARM, HOT], ids=["greedy", "warm", "hot"])
def test_a_row_with_or_without_images_writes_in_a_batch_what_it_would_alone(seeing, sampling):
    limits = [3, 2, 14, 12, 2]  # so that rows leave the batch, the first ones too
    batch = generate(seeing, LOOKING, images=shown(*SHOWN), max_tokens=limits, seed=3,
                     sampling=sampling)
    alone = [generate(seeing, [prompt], images=shown(row), max_tokens=limit, seed=3 + b,
                      sampling=sampling)[0]
             for b, (prompt, row, limit) in enumerate(zip(LOOKING, SHOWN, limits, strict=True))]
    assert batch == alone


def test_permuted_rows_get_permuted_answers_and_equal_rows_equal_ones(seeing):
    order = [3, 0, 4, 2, 1, 0, 2]
    options = {"max_tokens": 3, "sampling": GREEDY, "seed": 0, "stop_ids": frozenset()}
    straight = decode(seeing, LOOKING, images=shown(*SHOWN), **options)
    turned = decode(seeing, [LOOKING[b] for b in order], images=shown(*(SHOWN[b] for b in order)),
                    **options)
    for step, same in zip(straight, turned, strict=True):
        torch.testing.assert_close(same.logits, step.logits[order])
        assert torch.equal(same.logits[1], same.logits[5])
        assert torch.equal(same.logits[3], same.logits[6])


def test_a_text_row_beside_images_has_the_logits_of_the_text_model_to_the_last_bit():
    model = looking_model()
    texts = [[token % IMAGE for token in prompt] for prompt in LOOKING]
    options = dict(max_tokens=6, sampling=GREEDY, seed=0, stop_ids=frozenset())
    ours = decode(model, LOOKING, images=shown(*SHOWN), **options)
    plain = decode(detach(model), texts, **options)
    for step, same in zip(ours, plain, strict=True):
        for row in (1, 4):
            assert torch.equal(step.logits[row], same.logits[row])
        assert not torch.equal(step.logits[0], same.logits[0])


def test_images_are_encoded_and_projected_once_in_a_whole_generation():
    model = looking_model()
    with Looks(model) as looks:
        generate(model, LOOKING, images=shown(*SHOWN), max_tokens=[1, 9, 2, 12, 1])
    n_tokens = 2 * POOL.pixels.shape[2] * model.config.vision.n_tokens
    assert looks.n_encoded == 4 and looks.projected == [n_tokens] * len(model.config.cross_layers)


def test_encoded_images_are_not_encoded_again(seeing):
    images = shown(*SHOWN)
    options = {"max_tokens": 9, "sampling": HOT}
    expected, encoded = generate(seeing, LOOKING, images=images, **options), seeing.encode(images)
    with Looks(seeing) as looks:
        assert generate(seeing, LOOKING, images=encoded, **options) == expected
    assert looks.n_encoded == 0


def test_no_id_of_an_image_is_ever_written(seeing):
    hot = Sampling(temperature=50.0, repetition_penalty=2.0)
    answers = generate(seeing, LOOKING, images=shown(*SHOWN), max_tokens=40, sampling=hot)
    assert max(map(max, answers)) < IMAGE


def test_stream_sees_what_generate_sees(seeing):
    options = {"images": shown([2, 0]), "max_tokens": 10, "sampling": HOT}
    assert list(stream(seeing, LOOKING[0], **options)) == generate(seeing, LOOKING[0], **options)[0]


def test_images_as_files_and_arrays_are_cut_as_the_model_needs_them(seeing, tmp_path):
    red, noise = np.zeros((9, 30, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (40, 25))
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    rows = [[str(tmp_path / "red.png"), noise.astype(np.uint8)], [], [red], [red], []]
    answers = generate(seeing, LOOKING, images=rows, max_tokens=9, sampling=HOT)
    assert answers == generate(seeing, LOOKING, images=split(rows, seeing.tiling), max_tokens=9,
                               sampling=HOT)
    texts = [[5], [6, 7]]
    assert generate(seeing, texts, images=[[], []], max_tokens=4) == generate(
        seeing, texts, max_tokens=4)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_a_prompt_that_was_read_in_pieces_continues_as_one_read_at_once(seeing, size):
    prompt, numbers = [3, IMAGE, 4, 5, IMAGE, IMAGE, 6, 7, 8], [3, 1, 0]
    images, cache, n_shown = shown(numbers), seeing.new_cache(batch_size=1, max_seq_len=40), 0
    for first in range(0, len(prompt) - 1, size):
        piece = prompt[first : min(first + size, len(prompt) - 1)]
        n_new = piece.count(IMAGE)
        with torch.inference_mode():
            seeing(torch.tensor([piece]), cache=cache,
                   images=shown(numbers[n_shown : n_shown + n_new]))
        n_shown += n_new
    options = {"max_tokens": 12, "sampling": HOT, "seed": 0, "stop_ids": frozenset()}
    (expected,) = generate(seeing, [prompt], images=images, max_tokens=12, sampling=HOT)
    assert [step.tokens[0] for step in decode(seeing, [prompt], cache=cache, **options)] == expected


def test_a_model_in_bfloat16_sees():
    model = looking_model().bfloat16()
    options = {"max_tokens": 9, "sampling": HOT}
    one, other = (generate(model, [LOOKING[2]], images=shown([n]), **options) for n in (0, 3))
    assert one != other and len(one[0]) == 9


# --- images as tokens of the text -----------------------------------------------------------------

HERE = fusion_looking.IMAGE
READ = [[7, HERE, 8, HERE, 9], [5, 6, 7, 8, 9, 10, 11], [HERE, 3], [4, 4, 4, HERE], [5]]


@pytest.fixture(scope="module")
def reading():
    return fusion_looking.reader()


@pytest.mark.parametrize("row", range(4))
def test_with_image_tokens_greedy_equals_feeding_all_of_it_for_every_token(reading, row):
    prompt, images = READ[row], fusion_looking.shown(SHOWN[row])
    (answer,) = generate(reading, [prompt], images=images, max_tokens=6)
    [long] = [prompt] if images is None else reading.written_out([prompt], images)
    assert answer == feeding_everything(reading, long, images, 6)
    if images is not None:
        others = fusion_looking.shown([3 - n for n in SHOWN[row]])
        found, other = (generate(reading, [prompt], images=each, max_tokens=6, sampling=HOT)
                        for each in (images, others))
        assert found != other, "the images matter here"


@pytest.mark.parametrize("sampling", [GREEDY, WARM, HOT], ids=["greedy", "warm", "hot"])
def test_text_and_images_of_any_tiling_share_a_batch(reading, sampling):  # V7, V27
    limits = [3, 2, 9, 8, 2]
    batch = generate(reading, READ, images=fusion_looking.shown(*SHOWN), max_tokens=limits, seed=3,
                     sampling=sampling)
    alone = [generate(reading, [prompt], images=fusion_looking.shown(row), max_tokens=limit,
                      seed=3 + b, sampling=sampling)[0]
             for b, (prompt, row, limit) in enumerate(zip(READ, SHOWN, limits, strict=True))]
    assert batch == alone


def test_prompts_that_are_written_out_get_the_same_answers(reading):
    images = fusion_looking.shown(*SHOWN)
    options = {"max_tokens": 5, "sampling": HOT}
    expected = generate(reading, READ, images=images, **options)
    long = reading.written_out(READ, images)
    assert generate(reading, long, images=images, **options) == expected
    assert generate(reading, long, images=reading.encode(images), **options) == expected


def test_image_tokens_are_encoded_once_in_a_whole_generation(reading):  # V3
    with fusion_looking.Reads(reading) as reads:
        generate(reading, READ, images=fusion_looking.shown(*SHOWN), max_tokens=[1, 9, 2, 7, 1])
    assert reads.n_calls == 1
    assert reads.n_tiles == fusion_looking.tiles_of([2, 0, 1, 3])


def test_image_tokens_may_come_from_files_and_arrays(reading, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (100, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    options = {"max_tokens": 5, "sampling": HOT}
    prompts = [[5, HERE], [6, 7]]
    expected = generate(reading, prompts, images=reading.cut([[noise], []]), **options)
    for source in (str(tmp_path / "noise.png"), noise, Image.fromarray(noise)):
        assert generate(reading, prompts, images=[[source], []], **options) == expected


def test_a_model_that_writes_a_patch_goes_on(reading):
    def only_patches(row, ids):
        return torch.arange(reading.config.vocab_size) == reading.config.image_ids.patch

    images = fusion_looking.shown([2])
    (answer,) = generate(reading, [[5, HERE, 6]], images=images, max_tokens=3,
                         mask=only_patches)
    assert answer == [reading.config.image_ids.patch] * 3


@pytest.mark.parametrize(("prompts", "images", "message"), [
    ([[5, HERE]], None, "prompt 0 has 1 of these ids and 0 images"),
    ([[5]], fusion_looking.shown([2]), "prompt 0 has 0 of these ids and 1 images"),
    ([[5, HERE]], [["no such.png"]], "no such.png"),
    ([[5, 80, 80]], None, "prompt 0 has 2 of these ids, and its images have 0 tokens"),
    ([[5, HERE, 80, 80]], fusion_looking.shown([2]),
     "prompt 0 has 2 of these ids, and its images have 4 tokens"),
    ([[HERE] * 30], fusion_looking.shown([0] * 30), "context holds 512 tokens"),
    ([[5, HERE]], shown([0]), r"so they are cut by model\.cut\(rows\)"),
])
def test_images_that_do_not_fit_the_text_are_refused(reading, prompts, images, message):
    with pytest.raises(ValueError, match=message):
        generate(reading, prompts, images=images, max_tokens=3)
    if len(prompts[0]) < 30 or images is not None:
        with pytest.raises(ValueError, match=message):
            list(stream(reading, prompts[0], images=images, max_tokens=3))

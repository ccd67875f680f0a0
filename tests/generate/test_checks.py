
import dataclasses

import numpy as np
import pytest
import torch
from looking import Looks, shown
from loud_models import PROMPTS, loud_model
from seeing_twin import IMAGE, VISION
from seeing_twin import loud as looking_model

from llama_from_scratch.generate import checks
from llama_from_scratch.generate.checks import as_prompts, check_ids, check_numbers
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.vision.tiles import TiledImages


@pytest.mark.parametrize(("prompts", "expected"), [
    ([[1, 2], [3]], [[1, 2], [3]]),
    (((1, 2), (3,)), [[1, 2], [3]]),
    ([1, 2, 3], [[1, 2, 3]]),
    ((1,), [[1]]),
    (range(3), [[0, 1, 2]]),
    ([range(3), [7]], [[0, 1, 2], [7]]),
    (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (torch.tensor([1, 2]), [[1, 2]]),
    (torch.tensor([[1], [2]], dtype=torch.int32), [[1], [2]]),
    ([[]], [[]]),
    ([], []),
], ids=repr)
def test_one_prompt_or_several_become_lists_of_ids(prompts, expected):
    assert as_prompts(prompts) == expected


def test_ids_may_be_of_any_integer_type():
    ids = checks._as_prompt([np.int64(1), 2, np.uint8(3)], 0)
    assert ids == [1, 2, 3] and all(type(token) is int for token in ids)
    assert checks._as_prompt(torch.tensor([1, 2]), 0) == [1, 2]


def test_the_lists_that_are_returned_are_not_the_callers():
    prompts = [[1, 2], [3]]
    as_prompts(prompts)[0].append(9)
    assert prompts == [[1, 2], [3]]


def test_one_prompt_writes_what_a_list_with_it_does(model):
    expected = generate(model, [PROMPTS[1]], max_tokens=5)
    assert generate(model, PROMPTS[1], max_tokens=5) == expected
    assert generate(model, torch.tensor(PROMPTS[1]), max_tokens=5) == expected


@pytest.mark.parametrize(("prompt", "shown"), [
    ("Once", "prompt 3 is 'Once'"), (b"Once", "prompt 3 is b'Once'"), ([1, 2.0], "prompt 3 is"),
    ([True, 1], "which are ints"), ([1, None], "prompt 3 is"), (5, "prompt 3 is 5"),
    (["Once"], "Encode a text first"),
], ids=repr)
def test_a_prompt_that_is_not_ids_is_refused_with_its_number(prompt, shown):
    with pytest.raises(ValueError, match=shown):
        checks._as_prompt(prompt, 3)


def test_a_long_prompt_that_is_refused_is_not_shown_whole():
    with pytest.raises(ValueError) as refusal:
        checks._as_prompt("Once upon a time " * 100, 0)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize(("options", "message"), [
    ({"max_tokens": [3]}, "one number for all prompts or one for each; got 1 for 3 prompts"),
    ({"max_tokens": [3, 0, 3]}, "max_tokens must be at least 1; got 0"),
    ({"stop_ids": [{1}]}, "one set for all prompts or one for each; got 1 for 3 prompts"),
    ({"stop_ids": [1, 2, 3]},
     r"a set of ids for all prompts or a list .* got \[1, 2, 3\]. A set is written \{2, 3\}"),
    ({"stop_ids": {512}}, "ids run from 0 to 511; stop_ids holds 512"),
])
def test_limits_and_stop_ids_that_fit_no_prompt_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, **options)


@pytest.mark.parametrize(("prompts", "max_tokens", "message"), [
    ([], 5, "at least one prompt"),
    ([[1], []], 5, "prompt 1 is empty. To begin without a text, encode it with bos=True"),
    ([[512]], 5, "ids run from 0 to 511; prompt 0 holds 512"),
    ([[1] * 10], 7, "context holds 16 tokens; a prompt of 10 leaves room for 6, not 7"),
    ([[1] * 17], None, "a prompt of 17 leaves room for 0, not 1"),
    ([[1]], 0, "max_tokens must be at least 1; got 0"),
])
def test_prompts_that_cannot_be_continued_are_refused(prompts, max_tokens, message):
    with pytest.raises(ValueError, match=message):
        generate(loud_model(max_seq_len=16), prompts, max_tokens=max_tokens)


def test_ids_are_those_of_the_vocabulary(model):
    check_ids(model, [0, 511], name="x")
    for wrong in (-1, 512):
        with pytest.raises(ValueError, match=f"from 0 to 511; x holds {wrong}. Is this the token"):
            check_ids(model, [3, wrong], name="x")


def test_the_largest_logit_is_a_finite_number():
    check_numbers(torch.tensor([1.0, -3.0]))
    for largest, message in ((torch.nan, "logits hold a NaN"), (torch.inf, r"logits hold \+inf"),
                             (-torch.inf, "has the logit -inf, so none can be chosen")):
        with pytest.raises(ValueError, match=message):
            check_numbers(torch.tensor([1.0, largest]))


@pytest.mark.parametrize(("seed", "message"), [
    (2**64, "a seed has 64 bits, .* got 18446744073709551616"),
    (2**64 - 2, "from -2..63 to 2..64 - 3"),
    (-2**63 - 1, "a seed has 64 bits"),
    (10**400, "got one of 1,329 bits"),
])
def test_seeds_that_pytorch_cannot_take_are_refused(model, seed, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, max_tokens=2, seed=seed)


def test_the_smallest_and_the_largest_seed_work(model):
    warm = Sampling()
    for seed in (-2**63, -1, 2**63, 2**64 - len(PROMPTS)):
        first = generate(model, PROMPTS, max_tokens=3, seed=seed, sampling=warm)
        assert first == generate(model, PROMPTS, max_tokens=3, seed=seed, sampling=warm)


@pytest.mark.parametrize(("max_tokens", "message"), [
    (-1, "at least 1; got -1"), (True, "a whole number; got True"), (10**30, f"not {10**30}"),
    (10**400, "not one of 1,329 bits"),
])
def test_a_number_of_tokens_is_a_whole_number_that_fits(model, max_tokens, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, max_tokens=max_tokens)


# --- images ---------------------------------------------------------------------------------------

SEEING = looking_model()
TWO = [[IMAGE, 4], [5, IMAGE]]
LARGER = dataclasses.replace(VISION, tile_px=16)


def blank(*shape):
    return TiledImages(pixels=torch.zeros(shape), aspect_ids=torch.ones(shape[:2]).long())


@pytest.mark.parametrize(("prompts", "images", "message"), [
    (TWO, None, "prompt 0 has 1 of these ids and 0 images"),
    (TWO, shown([0], []), "prompt 1 has 1 of these ids and 0 images. Give as many images as ids"),
    (TWO, shown([0], [1, 2]),
     "one id 50 in place of each of its images; prompt 1 has 1 .* and 2 images"),
    ([[IMAGE, 4], [5]], shown([0], [1]), "prompt 1 has 0 of these ids and 1 images"),
    ([[5, 5], [IMAGE, IMAGE]], shown([], [1]), "prompt 1 has 2 of these ids and 1 images"),
    (TWO, shown([0]), r"got 2 rows of ids and 1 rows of images.*\[\[image\], \[\]\]"),
    (TWO, blank(2, 1, 4, 3, 16, 16), r"the last four \(4, 3, 12, 12\) .*model.tiling"),
    (TWO, blank(2, 1, 3, 3, 12, 12), r"the last four \(4, 3, 12, 12\)"),
    (TWO, looking_model(vision=LARGER).encode(blank(2, 1, 4, 3, 16, 16)),
     r"the last three \(4, 10, 32\).*Encode them with this model"),
    (TWO, [["cat.png"], []], "prompt 1 has 1 of these ids and 0 images"),
    (TWO, [["cat.png"]], "got 2 rows of ids and 1 rows of images"),
    (TWO, ["cat.png", "dog.png"], r"each row as a list .*For one image: \[\[image\]\]"),
    (TWO, [["no such cat.png"], ["dog.png"]], "an image needs an image file at no such cat.png"),
], ids=range(13))
def test_images_that_do_not_fit_the_prompts_are_refused_before_any_work(prompts, images, message):
    with Looks(SEEING) as looks, pytest.raises(ValueError, match=message):
        generate(SEEING, prompts, images=images, max_tokens=3)
    assert looks.n_encoded == 0 and not looks.projected


def test_a_model_that_reads_only_text_refuses_images(model):
    with pytest.raises(ValueError, match="only a model that sees can be shown images, and this "
                                         "one reads text. Load one that sees, such as meta-llama"):
        generate(model, [[5]], images=shown([0]), max_tokens=3)

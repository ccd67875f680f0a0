import dataclasses

import pytest
from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling

WARM = Sampling(temperature=1.0, top_k=40, repetition_penalty=1.1)
PROMPTS = [[5], [7, 8, 9, 10, 11], [300, 2, 2]]


def loud_model(**changes):
    return loud(dataclasses.replace(family.tiny("llama-3"), **changes))


@pytest.fixture(scope="module")
def model():
    return loud_model()


@pytest.mark.parametrize(("options", "message"), [
    ({"max_tokens": [3]}, "one number for all prompts or one for each; got 1 for 3 prompts"),
    ({"max_tokens": [3, 0, 3]}, "max_tokens must be at least 1; got 0"),
    ({"stop_ids": [{1}]}, "one set for all prompts or one for each; got 1 for 3 prompts"),
    ({"stop_ids": [1, 2, 3]},
     r"a set of ids for all prompts or a list .* got \[1, 2, 3\]. A set is written"),
    ({"stop_ids": {512}}, "ids run from 0 to 511; stop_ids holds 512"),
])
def test_limits_and_stop_ids_that_fit_no_prompt_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, **options)


@pytest.mark.parametrize(("prompts", "max_tokens", "message"), [
    ([], 5, "at least one prompt"),
    ([[1], []], 5, "prompt 1 is empty. Encode it with bos=True"),
    ([[512]], 5, "ids run from 0 to 511; prompt 0 holds 512"),
    ([[1] * 10], 7, "context holds 16 tokens; a prompt of 10 leaves room for 6, not 7"),
    ([[1] * 17], None, "a prompt of 17 leaves room for 0, not 1"),
    ([[1]], 0, "max_tokens must be at least 1; got 0"),
])
def test_prompts_that_cannot_be_continued_are_refused(prompts, max_tokens, message):
    with pytest.raises(ValueError, match=message):
        generate(loud_model(max_seq_len=16), prompts, max_tokens=max_tokens)

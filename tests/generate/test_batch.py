import dataclasses

import pytest
from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.kv_cache import KVCache

WARM = Sampling(temperature=1.0, top_k=40, repetition_penalty=1.1)
PROMPTS = [[5], [7, 8, 9, 10, 11], [300, 2, 2]]


def loud_model(**changes):
    return loud(dataclasses.replace(family.tiny("llama-3"), **changes))


@pytest.fixture(scope="module")
def model():
    return loud_model()


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), WARM], ids=["greedy", "sampled"])
def test_a_batch_of_unequal_prompts_writes_what_each_would_alone(model, sampling):
    batch = generate(model, PROMPTS, max_tokens=20, sampling=sampling, seed=3)
    alone = [generate(model, [prompt], max_tokens=20, sampling=sampling, seed=3 + b)[0]
             for b, prompt in enumerate(PROMPTS)]
    assert batch == alone


def rows_fed(model):
    """A list that grows by the batch size of each pass, and the hook that feeds it."""
    sizes = []
    return sizes, model.tok_embeddings.register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0])))


def test_rows_that_have_stopped_leave_the_batch():
    model = loud_model()
    sizes, hook = rows_fed(model)
    generate(model, [[1]] * 8, max_tokens=[1, 1, 1, 2, 2, 3, 5, 6])
    hook.remove()
    assert sizes == [8, 8, 3, 3, 3, 1], "a row may stay until half of the batch have stopped"


def test_a_row_that_leaves_takes_its_padding_with_it():
    model, caches, original = loud_model(), [], KVCache.extend

    def extend(cache, new, *, batch_size):
        tokens = original(cache, new, batch_size=batch_size)
        caches.append((cache.length, tokens.is_plain))
        return tokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KVCache, "extend", extend)
        generate(model, [[1] * 30, [2]], max_tokens=[1, 4])
    assert caches == [(30, False), (1, True), (2, True), (3, True), (4, True)]


def test_rows_fill_their_context_also_after_others_have_left():
    model = loud_model(max_seq_len=16).double()
    prompts, limits = [[5], [6], [7], [1] * 9, [2], [3]], [1, 1, 1, 7, 15, 15]
    batch = generate(model, prompts, max_tokens=limits)
    assert batch == [generate(model, [prompt], max_tokens=limit)[0]
                     for prompt, limit in zip(prompts, limits, strict=True)]

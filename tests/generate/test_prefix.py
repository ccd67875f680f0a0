import copy
import dataclasses

import pytest
import torch
from hugging_face_twin import loud
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate.generate import generate, stream
from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import Sampling

WARM = Sampling(temperature=1.0, top_k=40, repetition_penalty=1.1)
SMALL = dataclasses.replace(family.tiny("llama-3"), max_seq_len=64)
CHUNKED = dataclasses.replace(SMALL, layers=(LayerSpec(chunk_size=5), LayerSpec(has_rope=False)))


@pytest.fixture(scope="module", params=[SMALL, CHUNKED], ids=["plain", "chunked"])
def model(request):
    # In float64, an answer differs only if something is wrong, never because rounding broke a
    # near-tie.
    return loud(request.param).double()


class Fed:
    """The ids that go through a model while it is watched."""

    def __init__(self, model):
        self.ids = []
        self._hook = model.tok_embeddings.register_forward_pre_hook(
            lambda _, inputs: self.ids.extend(inputs[0][0].tolist()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._hook.remove()


def common(left, right):
    n = 0
    while n < min(len(left), len(right)) and left[n] == right[n]:
        n += 1
    return n


# Few different ids, so that prompts share beginnings. A turn keeps a part of the text so far and
# continues differently.
TURNS = st.lists(
    st.tuples(st.integers(0, 40), st.lists(st.integers(0, 2), min_size=1, max_size=9),
              st.integers(1, 9), st.integers(0, 9)),
    min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(turns=TURNS, is_warm=st.booleans())
def test_growing_shrinking_and_diverging_prompts_get_the_answers_they_get_without_it(
    model, turns, is_warm
):
    prefix, text = PrefixCache(model), []
    sampling = WARM if is_warm else Sampling(temperature=0.0)
    for seed, (n_kept, new, max_tokens, n_taken) in enumerate(turns):
        prompt = (text[:n_kept] + new)[-50:]
        expected = generate(model, [prompt], max_tokens=max_tokens, sampling=sampling, seed=seed)[0]
        n_known = common(prefix.ids, prompt[:-1])
        with Fed(model) as fed:
            tokens = stream(model, prompt, max_tokens=max_tokens, sampling=sampling, seed=seed,
                            prefix=prefix)
            # The stream may be longer or shorter than n_taken. What is left of it is abandoned.
            answer = [token for token, _ in zip(tokens, range(n_taken), strict=False)]
            tokens.close()
        assert answer == expected[:n_taken]
        if answer:
            text = prompt + answer
            n_written = min(n_taken, max_tokens)
            assert fed.ids[: len(prompt) - n_known] == prompt[n_known:]
            # zip asks the stream for one more token before it finds its range used up.
            assert len(fed.ids) in (len(prompt) - n_known + n_written - 1,
                                    len(prompt) - n_known + n_written)
            assert prefix.ids[: len(text) - 1] == text[:-1]


def test_in_a_chat_the_model_reads_each_token_once(model):
    prefix, text = PrefixCache(model), []
    with Fed(model) as fed:
        for question in ([1, 2, 3], [4, 5], [6], [7, 8, 9]):
            text += question
            text += stream(model, text, max_tokens=6, prefix=prefix)
    assert fed.ids == text[:-1]


def test_a_stop_token_leaves_everything_read_in_the_cache(model):
    free = generate(model, [[1, 2, 3]], max_tokens=8)[0]
    n = free.index(free[5])
    prefix = PrefixCache(model)
    answer = list(stream(model, [1, 2, 3], max_tokens=8, stop_ids={free[5]}, prefix=prefix))
    assert answer == free[:n] and prefix.ids == [1, 2, 3, *answer]


def test_the_same_prompt_again_is_read_only_from_its_last_token(model):
    prefix = PrefixCache(model)
    first = list(stream(model, [1, 2, 3, 4], max_tokens=5, prefix=prefix))
    with Fed(model) as fed:
        assert list(stream(model, [1, 2, 3, 4], max_tokens=5, prefix=prefix)) == first
    assert fed.ids == [4, *first[:-1]]


@pytest.mark.parametrize("layer", [0, 1])
def test_an_exception_in_the_middle_of_a_pass_does_no_harm(model, layer):
    prefix, prompt = PrefixCache(model), [1, 2, 3]
    expected = generate(model, [prompt], max_tokens=10)[0]
    calls = iter(range(100))

    def interrupt(*_):
        if next(calls) == 4:
            raise KeyboardInterrupt

    hook = model.layers[layer].feed_forward.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(stream(model, prompt, max_tokens=10, prefix=prefix))
    hook.remove()
    assert prefix.ids == prompt + expected[:3]
    assert list(stream(model, prompt + expected[:5], max_tokens=5, prefix=prefix)) == expected[5:]


def test_a_stream_that_was_overtaken_cannot_go_on_and_the_later_one_is_right(model):
    prefix = PrefixCache(model)
    first, second = (stream(model, prompt, max_tokens=9, prefix=prefix)
                     for prompt in ([1, 2, 3], [1, 2, 4]))
    next(first)
    answer = [next(second)]
    with pytest.raises(ValueError, match="a later stream took over this PrefixCache"):
        next(first)
    assert answer + list(second) == generate(model, [[1, 2, 4]], max_tokens=9)[0]


def test_changed_weights_are_noticed():
    model = loud(SMALL)
    prefix, prompt = PrefixCache(model), [1, 2, 3, 4, 5]
    list(stream(model, prompt, max_tokens=5, prefix=prefix))
    with torch.no_grad():
        model.layers[0].attention.wv.weight.mul_(-1)
    assert (list(stream(model, prompt, max_tokens=5, prefix=prefix))
            == generate(model, [prompt], max_tokens=5)[0])
    model.double()
    assert (list(stream(model, prompt, max_tokens=5, prefix=prefix))
            == generate(model, [prompt], max_tokens=5)[0])


def test_another_model_is_refused(model):
    twin = copy.deepcopy(model)
    with pytest.raises(
        ValueError, match="another model than it was made for. Make one for each model"
    ):
        next(stream(twin, [1, 2], max_tokens=3, prefix=PrefixCache(model)))


def test_a_text_beyond_the_context_is_refused_and_the_cache_stays_useful(model):
    prefix = PrefixCache(model)
    text = [1, 2, *stream(model, [1, 2], max_tokens=50, prefix=prefix)]
    with pytest.raises(
        ValueError, match="context holds 64 tokens; a prompt of 52 leaves room for 12, not 13"
    ):
        next(stream(model, text, max_tokens=13, prefix=prefix))
    with Fed(model) as fed:
        answer = list(stream(model, text, prefix=prefix))
    assert fed.ids == text[-1:] + answer[:-1] and answer == generate(model, [text])[0]

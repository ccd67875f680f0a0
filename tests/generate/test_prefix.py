import copy
import dataclasses

import fusion_looking
import pytest
import torch
from hugging_face_twin import loud
from hypothesis import given, settings
from hypothesis import strategies as st
from llama4_twin import loud_llama4, toy
from looking import HOT, Looks, shown
from seeing_twin import IMAGE
from seeing_twin import loud as looking_model

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


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeing():
    return looking_model().double()


def asked(prefix, model, prompt, numbers, **settings):
    """The answer with the prefix cache, and without; and how many images were encoded for it."""
    settings["sampling"] = HOT
    images = shown(numbers)
    with Looks(model) as looks:
        answer = list(stream(model, prompt, images=images, prefix=prefix, **settings))
    assert len(looks.projected) == (2 if looks.n_encoded else 0)
    return answer, generate(model, [prompt], images=images, **settings)[0], looks.n_encoded


# 0 to 2 are ids of text, 3 to 5 are the three images.
LOOKING_TURNS = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 5), min_size=1, max_size=7),
              st.integers(1, 9)),
    min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(turns=LOOKING_TURNS, is_like_transformers=st.booleans())
def test_prompts_with_images_get_the_answers_they_get_without_it(
    seeing, turns, is_like_transformers
):
    prefix, text, last = PrefixCache(seeing), [], []
    seeing.sees_before_images = is_like_transformers
    for n_kept, new, max_tokens in turns:
        text = (text[:n_kept] + new)[-40:]
        prompt = [IMAGE if token > 2 else token for token in text]
        answer, expected, n_encoded = asked(
            prefix, seeing, prompt, [token - 3 for token in text if token > 2],
            max_tokens=max_tokens)
        assert answer == expected
        if not is_like_transformers:
            n_known = common(last, text[:-1])
            assert n_encoded == sum(token > 2 for token in text[n_known:])
        text = last = text + [token % 3 for token in answer]
        if [IMAGE if token > 2 else token for token in last] != prompt + answer:
            last = last[: len(prompt)]
    seeing.sees_before_images = False


def test_only_the_images_that_are_new_are_encoded_and_projected(seeing):
    prefix, text, counts = PrefixCache(seeing), [1, 2], []
    for new, numbers in (([IMAGE, 3], [0]), ([4], [0]), ([IMAGE, IMAGE], [0, 2, 2]),
                         ([5], [0, 2, 2])):
        text = text + new
        answer, expected, n = asked(prefix, seeing, text, numbers, max_tokens=4)
        assert answer == expected
        counts.append(n)
        text = text + answer
    assert counts == [1, 0, 2, 0]


def test_another_image_in_the_same_text_is_seen(seeing):
    prefix, prompt = PrefixCache(seeing), [1, IMAGE, 2, IMAGE, 3]
    first = [asked(prefix, seeing, prompt, numbers, max_tokens=12)
             for numbers in ([0, 1], [0, 1], [0, 2], [3, 2])]
    assert [answer for answer, _, _ in first] == [expected for _, expected, _ in first]
    assert [n for _, _, n in first] == [2, 0, 1, 2]
    assert first[1][0] != first[2][0] != first[3][0], "the images matter here"


def test_an_image_that_is_written_over_is_seen_anew(seeing):
    prefix, images = PrefixCache(seeing), shown([0])
    options = {"images": images, "max_tokens": 20, "sampling": HOT}
    first = list(stream(seeing, [IMAGE, 3], prefix=prefix, **options))
    images.pixels[0, 0, 0] *= -1
    answer = list(stream(seeing, [IMAGE, 3], prefix=prefix, **options))
    assert answer == generate(seeing, [[IMAGE, 3]], **options)[0] != first


def test_an_earlier_turn_may_lose_its_image(seeing):
    prefix = PrefixCache(seeing)
    for prompt, numbers in (([1, IMAGE, 2, IMAGE, 3], [0, 1]), ([1, 2, IMAGE, 3], [1]),
                            ([1, 2], []), ([1, IMAGE, 2, IMAGE, 3], [1, 0])):
        answer, expected, _ = asked(prefix, seeing, prompt, numbers, max_tokens=12)
        assert answer == expected


def test_encoded_images_are_kept_as_well(seeing):
    prefix, images = PrefixCache(seeing), seeing.encode(shown([0, 1]))
    for prompt in ([IMAGE, 2, IMAGE, 3], [IMAGE, 2, IMAGE, 3, 4]):
        options = {"images": images, "max_tokens": 12, "sampling": HOT}
        answer = list(stream(seeing, prompt, prefix=prefix, **options))
        assert answer == generate(seeing, [prompt], **options)[0]


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_an_exception_while_images_are_read_does_no_harm(seeing, layer):
    prefix, prompt = PrefixCache(seeing), [1, IMAGE, 2]
    answer, _, _ = asked(prefix, seeing, prompt, [0], max_tokens=3)

    def interrupt(*_):
        raise KeyboardInterrupt

    longer = [*prompt, *answer, IMAGE, 4]
    hook = seeing.layers[layer].feed_forward.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        asked(prefix, seeing, longer, [0, 3], max_tokens=4)
    hook.remove()
    again, expected, n_encoded = asked(prefix, seeing, [*longer, 5], [0, 1], max_tokens=15)
    assert again == expected and n_encoded == 1


def test_another_rule_for_text_before_the_first_image_is_noticed(seeing):
    prefix, prompt = PrefixCache(seeing), [1, 2, 3, IMAGE, 4]
    first = asked(prefix, seeing, prompt, [0], max_tokens=15)
    seeing.sees_before_images = True
    try:
        other = asked(prefix, seeing, prompt, [0], max_tokens=15)
    finally:
        seeing.sees_before_images = False
    assert first[0] == first[1] != other[0] == other[1]


def test_the_turns_of_a_llama_4_read_only_what_is_new():
    model = loud_llama4(toy(n_active=2)).double()
    prefix, text = PrefixCache(model), [5, 6, 7]
    for turn in range(3):
        expected = generate(model, [text], max_tokens=6)[0]
        with Fed(model) as fed:
            answer = list(stream(model, text, max_tokens=6, prefix=prefix))
        assert answer == expected
        assert len(fed.ids) < (11 if turn else 10)
        text = [*text, *answer, 20 + turn, 21]


# --- images as tokens of the text -----------------------------------------------------------------


@pytest.fixture(scope="module")
def reading():
    return fusion_looking.reader()


def read(prefix, model, prompt, numbers, **settings):
    """The answer with the prefix cache, and without; how many tiles and ids were read for it."""
    settings["sampling"] = HOT
    images = fusion_looking.shown(numbers)
    with fusion_looking.Reads(model) as reads:
        answer = list(stream(model, prompt, images=images, prefix=prefix, **settings))
    expected = generate(model, [prompt], images=images, **settings)[0]
    return answer, expected, reads.n_tiles, reads.n_ids


@settings(max_examples=20, deadline=None)
@given(turns=LOOKING_TURNS)
def test_prompts_with_image_tokens_get_the_answers_they_get_without_it(reading, turns):
    prefix, text = PrefixCache(reading), []
    for n_kept, new, max_tokens in turns:
        text = (text[:n_kept] + new)[-12:]
        prompt = [fusion_looking.IMAGE if token > 2 else token for token in text]
        answer, expected, _, _ = read(prefix, reading, prompt,
                                      [token - 3 for token in text if token > 2],
                                      max_tokens=max_tokens)
        assert answer == expected
        text = text + [token % 3 for token in answer]


def test_a_later_turn_reads_only_new_ids_and_encodes_only_new_tiles(reading):
    image, prefix, text, counts = fusion_looking.IMAGE, PrefixCache(reading), [1, 2], []
    n_before = 0
    for new, numbers in (([image, 3], [0]), ([4], [0]), ([image, image, 5], [0, 2, 1]),
                         ([5], [0, 2, 1])):
        text = text + new
        answer, expected, n_tiles, n_ids = read(prefix, reading, text, numbers, max_tokens=4)
        assert answer == expected
        counts.append(n_tiles)
        [long] = reading.written_out([text], fusion_looking.shown(numbers))
        # Of the 4 ids that it wrote, the last one was not read.
        assert n_ids == len(long) - n_before + 3
        text = text + [token % 3 for token in answer]
        n_before = common(prefix.ids, reading.written_out(
            [text], fusion_looking.shown(numbers))[0])
    assert counts == [5, 0, 1 + 3, 0]


def test_another_image_in_the_same_text_is_read(reading):
    image = fusion_looking.IMAGE
    prefix, prompt = PrefixCache(reading), [1, image, 2, image, 3]
    found = [read(prefix, reading, prompt, numbers, max_tokens=8)
             for numbers in ([0, 1], [0, 1], [0, 2], [3, 2])]
    assert [answer for answer, *_ in found] == [expected for _, expected, *_ in found]
    assert [n_tiles for *_, n_tiles, _ in found] == [5 + 3, 0, 1, 5 + 1]
    assert found[1][0] != found[2][0] != found[3][0], "the images matter here"


def test_an_image_is_read_again_whole_if_only_its_beginning_is_shared(reading):
    """Two images with unequal grids begin with the same ids, and the cache has the other's."""
    prefix, image = PrefixCache(reading), fusion_looking.IMAGE
    for numbers in ([1], [0], [2], [0, 1]):
        answer, expected, n_tiles, _ = read(prefix, reading, [5, *[image] * len(numbers), 3],
                                            numbers, max_tokens=5)
        assert answer == expected and n_tiles == fusion_looking.tiles_of(numbers)

import dataclasses

import fusion_looking
import pytest
import torch
from hugging_face_twin import loud
from looking import shown
from seeing_twin import IMAGE
from seeing_twin import loud as looking_model

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.generate.score import _N_TOKENS_AT_ONCE, generate_scored, score

PROMPTS = [[5], [7, 8, 9, 10, 11], [300, 2, 2]]
WARM = Sampling(temperature=0.7, top_k=40, repetition_penalty=1.3)
# Logits are fp32 for every dtype of the model: a few units in their last place, at a size of up to
# 30.
FP32 = 1e-5


@pytest.fixture(scope="module")
def model():
    return loud(dataclasses.replace(family.tiny("llama-3"), max_seq_len=600)).double()


def log_probs_of(model, ids):
    """The definition, all in float64: log-softmax of the uncached logits at every position."""
    with torch.no_grad():
        return model.output(model.hidden(torch.tensor([ids])))[0].log_softmax(-1)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("has_mask", [False, True], ids=["free", "masked"])
def test_log_probs_are_those_of_the_uncached_model_whatever_chose_the_token(
    model, sampling, has_mask
):
    options = {
        "max_tokens": [3, 12, 7], "sampling": sampling, "stop_ids": {1, 2, 3, 4},
        "mask": (lambda row, ids: torch.arange(512) % 2 == len(ids) % 2) if has_mask else None,
    }
    scored = generate_scored(model, PROMPTS, n_likeliest=5, **options)
    assert [[s.id for s in answer] for answer in scored] == generate(model, PROMPTS, **options)
    for prompt, answer in zip(PROMPTS, scored, strict=True):
        log_probs_TV = log_probs_of(model, prompt + [s.id for s in answer])[len(prompt) - 1 : -1]
        for s, log_probs_V in zip(answer, log_probs_TV, strict=True):
            assert s.log_prob == pytest.approx(log_probs_V[s.id].item(), abs=FP32)
            best = log_probs_V.topk(5)
            assert [token for token, _ in s.likeliest] == best.indices.tolist()
            assert [value for _, value in s.likeliest] == pytest.approx(
                best.values.tolist(), abs=FP32)


def test_score_gives_each_id_its_log_prob_across_the_pieces_it_works_in(model):
    ids = torch.randint(0, 512, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    assert len(ids) > 2 * _N_TOKENS_AT_ONCE
    expected = log_probs_of(model, ids)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(score(model, ids).double(), expected, rtol=0, atol=FP32)


def test_score_agrees_with_what_generation_reported(model):
    [answer] = generate_scored(model, [PROMPTS[1]], max_tokens=20, sampling=WARM)
    scores = score(model, PROMPTS[1] + [s.id for s in answer])[len(PROMPTS[1]) - 1 :]
    assert [s.log_prob for s in answer] == pytest.approx(scores.tolist(), abs=FP32)


@pytest.mark.parametrize(("ids", "message"), [
    ([1], "scored after at least one other id; got 1"),
    ([1, 512], "ids run from 0 to 511; the text holds 512"),
    ([1] * 602, "made for at most 600 tokens; got 601"),
])
def test_texts_that_cannot_be_scored_are_refused(model, ids, message):
    with pytest.raises(ValueError, match=message):
        score(model, ids)


def test_more_of_the_likeliest_than_there_are_is_refused(model):
    with pytest.raises(ValueError, match="from 0 to the vocabulary's 512; got 513"):
        generate_scored(model, PROMPTS, n_likeliest=513, max_tokens=1)


# --- images ---------------------------------------------------------------------------------------


def test_the_score_of_a_text_with_images_is_the_models_and_an_image_has_none():
    model, ids, images = looking_model(), [4, IMAGE, 5, 6, IMAGE], shown([2, 0])
    with torch.no_grad():
        log_probs = model(torch.tensor([ids]), images=images)[0].log_softmax(-1)
    expected = [torch.nan, log_probs[1, 5], log_probs[2, 6], torch.nan]
    torch.testing.assert_close(score(model, ids, images=images), torch.tensor(expected),
                               equal_nan=True)
    other = score(model, ids, images=shown([2, 1]))
    assert torch.equal(score(model, ids, images=images)[1:3], other[1:3]), "it comes later"
    assert not torch.equal(score(model, ids, images=shown([3, 0]))[1:3], other[1:3])
    with pytest.raises(ValueError, match="prompt 0 has 2 of these ids and 0 images"):
        score(model, ids)


def test_the_scores_while_writing_with_images_are_those_of_the_finished_text():
    model, prompt, images = looking_model(), [4, IMAGE, 5], shown([3])
    (answer,) = generate_scored(model, [prompt], images=images, max_tokens=6)
    whole = score(model, [*prompt, *(each.id for each in answer)], images=images)
    torch.testing.assert_close(torch.tensor([each.log_prob for each in answer]), whole[2:])


def test_images_that_are_tokens_must_be_written_out_in_a_text_that_is_scored():
    model, images = fusion_looking.reader(), fusion_looking.shown([1])
    ids = [4, fusion_looking.IMAGE, 5, 6]
    with pytest.raises(ValueError, match="got 4 ids for what it reads as 20. Write the images out"):
        score(model, ids, images=images)
    [long] = model.written_out([ids], images)
    with torch.inference_mode():
        log_probs = model(torch.tensor([long]), images=images)[0].log_softmax(-1)
    expected = [log_probs[t, token].item() for t, token in enumerate(long[1:])]
    torch.testing.assert_close(score(model, long, images=images),
                               torch.tensor(expected, dtype=torch.float32))

import dataclasses

import pytest
import torch
from hugging_face_twin import loud, twin_of

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate, stream, stream_text
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

WARM = Sampling(temperature=1.0, top_k=40, repetition_penalty=1.1)
PROMPTS = [[5], [7, 8, 9, 10, 11], [300, 2, 2]]


def loud_model(**changes):
    return loud(dataclasses.replace(family.tiny("llama-3"), **changes))


@pytest.fixture(scope="module")
def model():
    return loud_model()


def without_cache(model, prompt, n):
    """The definition: the whole text goes through the model for every new token."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt):]


def test_greedy_equals_feeding_the_whole_text_for_every_token(model):
    for prompt in PROMPTS:
        assert generate(model, [prompt], max_tokens=20) == [without_cache(model, prompt, 20)]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), WARM], ids=["greedy", "sampled"])
def test_a_batch_of_unequal_prompts_writes_what_each_would_alone(model, sampling):
    batch = generate(model, PROMPTS, max_tokens=20, sampling=sampling, seed=3)
    alone = [generate(model, [prompt], max_tokens=20, sampling=sampling, seed=3 + b)[0] for b, prompt in enumerate(PROMPTS)]
    assert batch == alone


def test_greedy_equals_transformers_generate(model):
    ids = generate(model, [PROMPTS[1]], max_tokens=30)[0]
    theirs = twin_of(model).generate(
        torch.tensor([PROMPTS[1]]), max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert ids == theirs[0, len(PROMPTS[1]):].tolist()


def test_a_seed_repeats_and_another_differs(model):
    first, again, other = (generate(model, [[5]], max_tokens=20, sampling=WARM, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_the_global_generator_is_left_alone(model):
    before = torch.get_rng_state()
    generate(model, [[5]], max_tokens=5, sampling=WARM)
    assert torch.equal(before, torch.get_rng_state())


def test_a_stop_token_ends_its_row_and_is_not_returned(model):
    free = generate(model, PROMPTS, max_tokens=12)
    stop = free[1][4]
    stopped = generate(model, PROMPTS, max_tokens=12, stop_ids={stop})
    for row, whole in zip(stopped, free):
        assert row == (whole[: whole.index(stop)] if stop in whole else whole)
    assert len(stopped[1]) <= 4


def test_stream_yields_what_generate_returns(model):
    assert list(stream(model, [5], max_tokens=10, sampling=WARM)) == generate(model, [[5]], max_tokens=10, sampling=WARM)[0]


def test_a_repetition_penalty_forgets_padding_and_remembers_the_prompt(model):
    hard = Sampling(temperature=0.0, repetition_penalty=1e6)
    answer = generate(model, [PROMPTS[1]], max_tokens=40, sampling=hard)[0]
    assert len(set(answer)) == len(answer) and not set(answer) & set(PROMPTS[1])


def test_without_max_tokens_the_context_is_filled():
    assert len(generate(loud_model(max_seq_len=16), [[1, 2, 3]])[0]) == 13


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


def test_a_model_of_nans_is_refused(model):
    broken = loud_model()
    torch.nn.init.constant_(broken.norm.weight, float("nan"))
    for sampling in (WARM, Sampling(temperature=0.0)):
        with pytest.raises(ValueError, match="logits hold a NaN"):
            generate(broken, [[1]], max_tokens=3, sampling=sampling)


def test_streamed_text_holds_a_character_back_until_it_is_whole():
    tokenizer = Tokenizer.train("héé " * 20, 260, special_tokens=("<|begin_of_text|>", "<|end_of_text|>"))
    model = loud_model(vocab_size=tokenizer.vocab_size)
    pieces = list(stream_text(model, tokenizer, prompt="hé", max_tokens=60, sampling=WARM))
    ids = generate(model, [tokenizer.encode("hé", bos=True)], max_tokens=60, sampling=WARM, stop_ids={tokenizer.eos_id})[0]
    special = set(tokenizer.special_ids.values())
    whole = b"".join(tokenizer.decode_bytes([i]) for i in ids if i not in special).decode("utf-8", errors="replace")
    assert "".join(pieces) == whole

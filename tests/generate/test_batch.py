
import pytest
import torch
from llama4_twin import loud_llama4, toy
from looking import HOT, Looks, shown
from loud_models import PROMPTS, WARM, loud_model
from seeing_twin import IMAGE
from seeing_twin import loud as looking_model

from llama_from_scratch.generate.batch import batch_of
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.vision.image_cache import VisionKVCache


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), WARM], ids=["greedy", "sampled"])
def test_a_batch_of_unequal_prompts_writes_what_each_would_alone(model, sampling):
    batch = generate(model, PROMPTS, max_tokens=20, sampling=sampling, seed=3)
    alone = [generate(model, [prompt], max_tokens=20, sampling=sampling, seed=3 + b)[0]
             for b, prompt in enumerate(PROMPTS)]
    assert batch == alone


def rows_fed(model):
    """A list that grows by the batch size of each pass, and the hook that feeds it."""
    sizes = []
    def note(module, inputs):
        sizes.append(len(inputs[0]))

    return sizes, model.tok_embeddings.register_forward_pre_hook(note)


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
    alone = [generate(model, [prompt], max_tokens=limit)[0]
             for prompt, limit in zip(prompts, limits, strict=True)]
    assert batch == alone


# --- the batch itself -----------------------------------------------------------------------------


def test_prompts_are_padded_on_the_left_and_the_padding_is_a_document_of_its_own(model):
    batch = batch_of(model, PROMPTS, max_tokens=4, has_seen=True, cache=None)
    assert batch.ids.tolist() == [[0, 0, 0, 0, 5], [7, 8, 9, 10, 11], [0, 0, 300, 2, 2]]
    assert batch.positions.tolist() == [[0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    for documents, prompt in zip(batch.documents.tolist(), PROMPTS, strict=True):
        assert len(set(documents[-len(prompt) :])) == 1
        assert not set(documents[: -len(prompt)]) & set(documents[-len(prompt) :])
    occurring = [row.nonzero()[:, 0].tolist() for row in batch.seen]
    assert occurring == [[5], [7, 8, 9, 10, 11], [2, 300]], "the padding's 0 was not written"
    assert batch.cache.max_seq_len == 5 + 4


def test_equal_lengths_need_no_mask_and_no_room_beyond_the_context():
    model = loud_model(max_seq_len=16)
    batch = batch_of(model, [[1, 2], [3, 4]], max_tokens=50, has_seen=False, cache=None)
    assert batch.positions is batch.documents is batch.seen is None
    assert batch.cache.max_seq_len == 16


def test_a_row_continues_at_the_position_after_its_last(model):
    batch = batch_of(model, PROMPTS, max_tokens=4, has_seen=True, cache=None)
    batch.append(torch.tensor([21, 22, 23]))
    assert batch.ids.tolist() == [[21], [22], [23]]
    assert batch.positions.tolist() == [[1], [5], [3]]
    assert batch.seen.gather(1, batch.ids).all()


def test_what_a_cache_holds_is_not_fed_again(model):
    cache = model.new_cache(batch_size=1, max_seq_len=9)
    with torch.no_grad():
        model.hidden(torch.tensor([[7, 8, 9]]), cache=cache)
    batch = batch_of(model, [PROMPTS[1]], max_tokens=4, has_seen=False, cache=cache)
    assert batch.ids.tolist() == [[10, 11]] and batch.cache is cache


# --- images ---------------------------------------------------------------------------------------


def test_images_leave_the_batch_with_their_rows(monkeypatch):
    model, n_slots, original = looking_model().double(), [], VisionKVCache.copy

    def copy(cache, rows, **room):
        new = original(cache, rows, **room)
        n_slots.append((new.slots.numbers.shape[1], new.n_bytes < cache.n_bytes))
        return new

    monkeypatch.setattr(VisionKVCache, "copy", copy)
    prompts = [[IMAGE, IMAGE, 5], [IMAGE, 6], [7], [8]]
    rows, limits = [[0, 3], [1], [], []], [2, 8, 2, 12]
    with Looks(model) as looks:
        batch = generate(model, prompts, images=shown(*rows), max_tokens=limits, sampling=HOT)
    assert n_slots == [(1, True), (0, True)], "two images, then one, then none"
    assert len(looks.projected) == 2
    assert batch == [
        generate(model, [prompt], images=shown(row), max_tokens=limit, sampling=HOT, seed=b)[0]
        for b, (prompt, row, limit) in enumerate(zip(prompts, rows, limits, strict=True))]


def test_the_ids_of_images_are_no_ids_that_occurred():
    batch = batch_of(looking_model(), [[1, IMAGE], [3]], max_tokens=5, has_seen=True, cache=None,
                     images=shown([0], []))
    assert [row.nonzero()[:, 0].tolist() for row in batch.seen] == [[1], [3]]


def test_a_llama_4_answers_in_a_batch_as_alone_and_answers_that_end_leave_it():
    model = loud_llama4(toy(n_active=2)).double()
    prompts = [[5], [7, 8, 9, 10, 11, 12, 13], [30, 4, 4], [6, 5]]
    limits = [20, 3, 9, 14]
    alone = [generate(model, [prompt], max_tokens=n)[0]
             for prompt, n in zip(prompts, limits, strict=True)]
    assert generate(model, prompts, max_tokens=limits) == alone
    assert len({tuple(answer[:3]) for answer in alone}) == 4

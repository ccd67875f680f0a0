"""A cache that forgets, against the plain one: the same logits, less memory, clear refusals."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llama4_twin import CHUNK, assert_near, in_pieces, loud_llama4, padded, random_ids, toy

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate.generate import decode, generate
from llama_from_scratch.generate.sampling import GREEDY
from llama_from_scratch.model.chunk_cache import SPARE, ChunkCache, forgetful_cache
from llama_from_scratch.model.transformer import Llama

MODEL = loud_llama4(toy(n_layers=4, max_seq_len=512)).double()


def forgetful(model=MODEL, *, batch_size=1, max_seq_len=64, **more):
    return forgetful_cache(model, batch_size=batch_size, max_seq_len=max_seq_len, **more)


def plain(model=MODEL, *, batch_size=1, max_seq_len=64):
    return model.new_cache(batch_size=batch_size, max_seq_len=max_seq_len)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
       lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_any_pieces_of_any_padded_batch_give_the_logits_of_the_plain_cache(sizes, lengths):
    rows = [random_ids(n, seed=n) for n in lengths]
    ids, positions, documents = padded(rows)
    given = dict(sizes=sizes, positions=positions, documents=documents)
    found, expected = (in_pieces(MODEL, ids, cache=make(batch_size=len(rows)), **given)
                       for make in (forgetful, plain))
    for b, row in enumerate(rows):
        assert_near(found[b, -len(row):], expected[b, -len(row):], f"row {b}")


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 8, 9, 40])
def test_every_size_of_chunk_forgets_rightly(chunk_size):
    layers = tuple(dataclasses.replace(spec, chunk_size=spec.chunk_size and chunk_size)
                   for spec in MODEL.config.layers)
    model = loud_llama4(dataclasses.replace(MODEL.config, layers=layers)).double()
    ids = random_ids(2, 50)
    expected = model(ids)
    for sizes in ([1], [7, 1], [50], [13]):
        cache = forgetful(model, batch_size=2, max_seq_len=50)
        assert_near(in_pieces(model, ids, cache=cache, sizes=sizes), expected, f"sizes {sizes}")


def test_layers_with_chunks_take_a_chunk_of_memory_and_the_others_the_whole_text():
    """At 512 tokens and chunks of 4: the spare slots are one, and one slot more than a chunk."""
    n_slots = 512
    cache, other = forgetful(max_seq_len=n_slots), plain(max_seq_len=n_slots)
    for mine, its, spec in zip(cache.layers, other.layers, MODEL.config.layers, strict=True):
        if spec.chunk_size is None:
            assert mine.n_bytes == its.n_bytes
        else:
            share = (CHUNK + CHUNK // SPARE + 1) / n_slots
            assert mine.n_bytes == share * its.n_bytes
    assert cache.n_bytes < 0.26 * other.n_bytes


def test_the_memory_of_a_large_chunk_has_an_eighth_more():
    one = torch.zeros(1, 1, 2, 8)
    cache = ChunkCache.like(like_plain(one), chunk_size=8192, max_seq_len=10**6)
    assert cache.memory[0].shape[1] == 8192 + 1024 + 1


def like_plain(memory):
    cache = MODEL.layers[0].new_cache(batch_size=1, max_seq_len=1, dtype=memory.dtype,
                                      device="cpu")
    return type(cache)(memory, memory)


@torch.inference_mode()
def test_a_decoding_step_reads_less_than_with_the_plain_cache():
    """What attention receives: at most the slots of the cache, however long the text is."""
    cache, seen = forgetful(max_seq_len=400), []
    hook = MODEL.layers[0].attention.attend.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[1].shape[1]))
    in_pieces(MODEL, random_ids(1, 400), cache=cache, sizes=[3, 1])
    hook.remove()
    assert max(seen) <= CHUNK + CHUNK // SPARE + 1 and len(seen) == 398


@torch.inference_mode()
def test_kept_tokens_are_moved_only_when_the_spare_slots_are_used_up():
    layer = ChunkCache.like(like_plain(torch.zeros(1, 1, 2, 8)), chunk_size=64, max_seq_len=10**6)
    moves, last = 0, 0
    for _ in range(1000):
        layer.make_room(1)
        layer.append(torch.ones(1, 1, 2, 8), torch.ones(1, 1, 2, 8))
        moves, last = moves + (layer.first != last), layer.first
    assert layer.length == 1000 and moves <= 1000 // (64 // SPARE)


@torch.inference_mode()
def test_generation_goes_on_from_it():
    prompt = random_ids(21).tolist()
    cache = forgetful()
    MODEL(torch.tensor([prompt[:-1]]), cache=cache)
    steps = decode(MODEL, [prompt], max_tokens=30, sampling=GREEDY, seed=0, stop_ids=set(),
                   cache=cache)
    assert [step.tokens[0] for step in steps] == generate(MODEL, [prompt], max_tokens=30)[0]


@torch.inference_mode()
def test_a_cut_back_within_the_chunk_can_be_continued_and_further_back_is_refused():
    ids, other = random_ids(1, 21), random_ids(1, 4, seed=9)
    cache = forgetful()
    in_pieces(MODEL, ids, cache=cache, sizes=[18, 1])
    for length in (20, 19):
        oldest = max(layer.first for layer in cache.layers)
        if oldest > length - (CHUNK - 1):
            break
        cache.truncate(length)
        expected = MODEL(torch.cat([ids[:, :length], other], 1))[:, -4:]
        copied = cache.copy([0], max_seq_len=64)
        assert_near(MODEL(other, cache=copied), expected, f"after {length} tokens")
    before = cache.length, [layer.length for layer in cache.layers]
    with pytest.raises(ValueError, match=r"only be cut back to where it still has the 3 tokens "
                                         r"before, which is from token \d+ on; got 5\. Read the"):
        cache.truncate(5)
    assert (cache.length, [layer.length for layer in cache.layers]) == before, "nothing has changed"
    expected = MODEL(torch.cat([ids[:, : cache.length], other], 1))[:, -4:]
    assert_near(MODEL(other, cache=cache), expected, "after a refused cut")


@torch.inference_mode()
def test_a_short_text_can_be_cut_back_to_nothing():
    cache = forgetful()
    MODEL(random_ids(1, 5), cache=cache)
    cache.truncate(0)
    ids = random_ids(1, 9, seed=4)
    assert_near(MODEL(ids, cache=cache), MODEL(ids), "the second text")


@torch.inference_mode()
@pytest.mark.parametrize("max_seq_len", [12, 30, 200])
def test_a_copy_of_some_rows_continues_like_them_and_leaves_the_original(max_seq_len):
    rows = [random_ids(n, seed=n) for n in (9, 11, 5)]
    ids, positions, documents = padded(rows)
    cache = forgetful(batch_size=3, max_seq_len=12)
    MODEL(ids, positions=positions, documents=documents, cache=cache)
    copied = cache.copy([2, 0], max_seq_len=max_seq_len, start=2)  # two columns of padding are left
    n_more = min(max_seq_len - 9, 20)
    more = random_ids(2, n_more, seed=8)
    at = torch.tensor([[5], [9]]) + torch.arange(n_more)
    found = in_pieces(MODEL, more, cache=copied, sizes=[1, 5, 1], positions=at,
                      documents=torch.zeros_like(at))
    for row, new, logits in zip((rows[2], rows[0]), more, found, strict=True):
        assert_near(logits, MODEL(torch.cat([row, new])[None])[0, -n_more:], "a copied row")
    one = random_ids(3, 1, seed=7)
    logits = MODEL(one, positions=torch.tensor([[9], [11], [5]]), cache=cache,
                   documents=torch.zeros(3, 1, dtype=torch.int64))
    for row, new, its in zip(rows, one, logits, strict=True):
        assert_near(its[0], MODEL(torch.cat([row, new])[None])[0, -1], "a row of the original")


@torch.inference_mode()
def test_a_copy_has_room_for_a_chunk_though_the_original_was_shorter_than_one():
    cache, ids = forgetful(max_seq_len=3), random_ids(1, 30)
    MODEL(ids[:, :3], cache=cache)
    found = in_pieces(MODEL, ids[:, 3:], cache=cache.copy([0], max_seq_len=30), sizes=[2, 3, 1])
    assert_near(found, MODEL(ids)[:, 3:], "the text in the copy")


@torch.inference_mode()
def test_rows_of_several_texts_are_refused_before_anything_is_read():
    cache = forgetful()
    MODEL(random_ids(1, 6), cache=cache)
    positions, texts = torch.arange(6, 9)[None], torch.zeros(1, 3, dtype=torch.int64)
    for wrong in (dict(positions=positions + 1), dict(documents=texts + 1),
                  dict(positions=positions.flip(1)), dict(documents=texts - 1)):
        with pytest.raises(ValueError, match="a cache that forgets needs rows of one text each"):
            MODEL(random_ids(1, 3), cache=cache, **dict(positions=positions, documents=texts)
                  | wrong)
        assert cache.length == 6 and all(layer.length == 6 for layer in cache.layers)
    ids = torch.cat([random_ids(1, 6), random_ids(1, 3)], 1)
    found = MODEL(ids[:, 6:], positions=positions, documents=texts, cache=cache)
    assert_near(found, MODEL(ids)[:, 6:], "after a refused text")


def test_a_model_without_chunks_has_nothing_to_forget():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="only layers with chunks can forget; this model has none"):
        forgetful(Llama(family.tiny("llama-3")))


def test_training_through_it_and_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="a KV cache is for inference"):
        MODEL(random_ids(1, 3), cache=forgetful())
    with pytest.raises(ValueError, match="has room for 8 tokens and holds 0; 9 more do not fit"):
        MODEL(random_ids(1, 9), cache=forgetful(max_seq_len=8))


def test_dtype_and_room_are_those_that_are_asked_for():
    cache = forgetful(max_seq_len=30, dtype=torch.bfloat16, batch_size=3)
    assert {x.dtype for layer in cache.layers for x in layer.memory} == {torch.bfloat16}
    assert cache.forgets and not plain().forgets
    assert [layer.forgets for layer in cache.layers] == [True, True, True, False]
    assert all(layer.memory[0].shape[0] == 3 for layer in cache.layers)


@torch.inference_mode()
def test_layers_with_chunks_of_two_sizes_forget_each_by_its_own():
    layers = (LayerSpec(chunk_size=3), LayerSpec(chunk_size=7), LayerSpec(has_rope=False))
    model = loud_llama4(dataclasses.replace(MODEL.config, layers=layers)).double()
    ids = random_ids(2, 40)
    for sizes in ([1], [11, 2, 1]):
        cache = forgetful(model, batch_size=2, max_seq_len=40)
        assert_near(in_pieces(model, ids, cache=cache, sizes=sizes), model(ids), f"{sizes}")

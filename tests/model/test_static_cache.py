"""Steps whose length only the device counts, against steps with the plain cache."""

import dataclasses

import pytest
import torch
from llama4_twin import loud_llama4, toy

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate.batch import batch_of
from llama_from_scratch.model.chunk_cache import forgetful_cache
from llama_from_scratch.model.mask import CachedRows
from llama_from_scratch.model.static_cache import StaticCache
from llama_from_scratch.model.transformer import Llama

PROMPTS = ([[5, 6, 7, 8]], [[5, 6, 7, 8], [9, 1, 2, 3]], [[5, 6, 7, 8], [9], [3, 4]])


def model_of(*, chunk_size=None):
    torch.manual_seed(0)
    config = family.tiny("llama-3.1")
    layers = tuple(LayerSpec(chunk_size=chunk_size if i % 2 else None)
                   for i in range(config.n_layers))
    return Llama(dataclasses.replace(config, layers=layers)).double()


def read(model, prompts, *, max_tokens=8):
    """The batch with all prompts in its cache."""
    batch = batch_of(model, prompts, max_tokens=max_tokens, has_seen=False, cache=None)
    batch.logits(model)
    return batch


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("prompts", PROMPTS, ids=len)
@torch.inference_mode()
def test_static_steps_equal_plain_steps(prompts, chunk_size):
    model = model_of(chunk_size=chunk_size)
    plain, other = read(model, prompts), read(model, prompts)
    static = StaticCache(other.cache)
    for step in range(6):
        ids = torch.arange(len(prompts)) + 10 * step
        plain.append(ids)
        expected = plain.logits(model)
        found = model.static_step(ids[:, None], cache=static)
        other.cache.count(1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert other.cache.length == plain.cache.length == len(prompts[0]) + 6
    for mine, right in zip(other.cache.layers, plain.cache.layers, strict=True):
        assert mine.length == right.length
        for a, b in zip(mine.memory, right.memory, strict=True):
            torch.testing.assert_close(a, b)
    # the plain cache goes on from there, in pieces of any size, and copies know the positions
    for name in ("positions", "documents"):
        mine, right = (getattr(each.cache.tokens, name) for each in (other, plain))
        assert mine is right is None or torch.equal(mine, right)


@torch.inference_mode()
def test_a_static_cache_starts_where_it_is_told():
    """After the plain cache forgot some tokens."""
    model = model_of()
    batch = read(model, [[5, 6, 7, 8]])
    static = StaticCache(batch.cache)
    first = model.static_step(torch.tensor([[9]]), cache=static)
    model.static_step(torch.tensor([[3]]), cache=static)
    static.slot.fill_(4)
    assert torch.equal(model.static_step(torch.tensor([[9]]), cache=static), first)


@torch.inference_mode()
def test_a_static_step_asks_the_device_for_nothing():
    """A step that is recorded cannot wait for a number."""
    model = model_of(chunk_size=3)
    static = StaticCache(read(model, PROMPTS[2]).cache)
    with torch.profiler.profile() as profile:
        model.static_step(torch.tensor([[1], [2], [3]]), cache=static)
    names = {event.name for event in profile.events()}
    assert "aten::index_copy_" in names
    assert not names & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"}


def test_rows_of_several_texts_are_refused():
    model = model_of()
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    with torch.no_grad():
        model.hidden(torch.tensor([[1, 2, 3, 4]]), documents=torch.tensor([[0, 0, 1, 1]]),
                     cache=cache)
    with pytest.raises(ValueError, match="rows of one text each.*other documents or positions"):
        StaticCache(cache)


def test_keys_that_need_a_gradient_are_refused():
    model = model_of()
    static = StaticCache(model.new_cache(batch_size=1, max_seq_len=8))
    with pytest.raises(ValueError, match="a KV cache is for inference and keeps no graph"):
        model.static_step(torch.tensor([[1]]), cache=static)


def test_the_mask_of_cached_rows_has_each_rows_own_slots():
    starts, lengths = torch.tensor([0, 2, 4]).int(), torch.tensor([5, 5, 5]).int()
    whole = CachedRows(starts=starts, lengths=lengths, n_slots=7)
    assert whole.shape == (1, 7) and whole.mask.shape == (3, 1, 1, 7)
    assert [row.nonzero()[:, -1].tolist() for row in whole.mask] == [
        [0, 1, 2, 3, 4], [2, 3, 4], [4]]
    chunked = dataclasses.replace(whole, chunk_size=2)
    assert [row.nonzero()[:, -1].tolist() for row in chunked.mask] == [[4], [4], [4]]
    later = dataclasses.replace(chunked, lengths=lengths + 1)
    assert [row.nonzero()[:, -1].tolist() for row in later.mask] == [[4, 5], [4, 5], [4, 5]]


@torch.inference_mode()
def test_the_temperature_of_a_static_step_follows_the_position_of_each_row():
    """Experts, norms of heads and chunks go through as well."""
    model = loud_llama4(toy(n_active=2)).double()
    plain, other = read(model, PROMPTS[2], max_tokens=14), read(model, PROMPTS[2], max_tokens=14)
    static = StaticCache(other.cache)
    for step in range(12):
        ids = torch.arange(3) + 5 * step
        plain.append(ids)
        found = model.static_step(ids[:, None], cache=static)
        other.cache.count(1)
        torch.testing.assert_close(found, plain.logits(model), rtol=1e-5, atol=1e-6)


def test_a_cache_that_forgets_is_refused():
    model = loud_llama4(toy())
    with pytest.raises(ValueError, match=r"got a cache that forgets \(model\.chunk_cache\)"):
        StaticCache(forgetful_cache(model, batch_size=1, max_seq_len=9))

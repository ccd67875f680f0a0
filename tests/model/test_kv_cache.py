import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.model.kv_cache import KVCache, LayerCache, Uncached
from llama_from_scratch.model.mask import padding_documents
from llama_from_scratch.model.transformer import Llama

GROUPED = family.tiny("llama-3.1")
CHUNKED = dataclasses.replace(
    GROUPED, layers=(LayerSpec(chunk_size=5), LayerSpec(has_rope=False)) * 2)


@pytest.fixture(scope="module", params=[GROUPED, CHUNKED], ids=["grouped", "chunked"])
def model(request):
    torch.manual_seed(0)
    return Llama(request.param)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 23), max_size=6))
def test_a_prompt_in_pieces_of_any_size_gives_the_logits_of_one_pass(model, cuts):
    torch.manual_seed(1)
    ids = torch.randint(0, 512, (2, 24))
    cache = KVCache(model.config, batch_size=2, max_seq_len=24)
    edges = [0, *sorted(set(cuts)), 24]
    with torch.inference_mode():
        pieces = [model(ids[:, start:stop], cache=cache)
                  for start, stop in itertools.pairwise(edges)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(ids), rtol=1e-5, atol=1e-5)


def test_left_padding_changes_no_real_token(model):
    torch.manual_seed(1)
    ids, lengths = torch.randint(0, 512, (2, 12)), torch.tensor([7, 12])
    documents = padding_documents(lengths, width=12)
    positions = (torch.arange(12) - (12 - lengths)[:, None]).clamp(min=0)
    cache = KVCache(model.config, batch_size=2, max_seq_len=12)
    with torch.inference_mode():
        pieces = [model(ids[:, span], positions=positions[:, span], documents=documents[:, span],
                        cache=cache)
                  for span in (slice(0, 9), slice(9, 10), slice(10, 12))]
        alone = model(ids[:1, 5:])
    torch.testing.assert_close(torch.cat(pieces, 1)[:1, 5:], alone, rtol=1e-5, atol=1e-5)


def keys_and_values(n_tokens, n_rows=3):
    torch.manual_seed(0)
    return torch.randn(2, n_rows, n_tokens, GROUPED.n_kv_heads, GROUPED.head_dim)


def layer_cache(n_rows=3, max_seq_len=8):
    return LayerCache.with_room(
        n_kv_heads=GROUPED.n_kv_heads, head_dim=GROUPED.head_dim, batch_size=n_rows,
        max_seq_len=max_seq_len, dtype=torch.float32, device="cpu")


def test_append_returns_all_tokens_so_far_as_views_of_the_cache():
    (k, v), cache = keys_and_values(6), layer_cache()
    first_keys, _ = cache.append(k[:, :4], v[:, :4])
    keys, values = cache.append(k[:, 4:], v[:, 4:])
    assert torch.equal(keys, k) and torch.equal(values, v) and cache.length == 6
    assert keys.data_ptr() == first_keys.data_ptr()


def test_truncated_tokens_are_overwritten_by_the_next():
    (k, v), cache = keys_and_values(6), layer_cache()
    cache.append(k, v)
    cache.truncate(2)
    keys, values = cache.append(k[:, 5:], v[:, 5:])
    expected = [0, 1, 5]
    assert torch.equal(keys, k[:, expected]) and torch.equal(values, v[:, expected])


def test_rows_are_a_new_cache_of_a_span_with_room_of_its_own():
    (k, v), cache = keys_and_values(6), layer_cache()
    cache.append(k, v)
    some = cache.rows([2, 0, 2], span=slice(1, 5), max_seq_len=5)
    assert some.length == 4 and some.n_bytes == 2 * 3 * 5 * 2 * 16 * 4
    keys, values = some.append(k[:, 5:], v[:, 5:])
    assert torch.equal(keys[:, :4], k[[2, 0, 2], 1:5]) and torch.equal(keys[:, 4:], k[:, 5:])
    assert torch.equal(values[:, :4], v[[2, 0, 2], 1:5]) and torch.equal(values[:, 4:], v[:, 5:])
    old_keys, _ = cache.append(k[:, :1], v[:, :1])
    assert torch.equal(old_keys[:, :6], k), "the old cache is left as it was"


def test_the_absent_cache_returns_the_new_tokens_alone():
    k, v = keys_and_values(4)
    keys, values = Uncached().append(k, v)
    assert keys is k and values is v


def test_after_truncating_another_continuation_gives_its_own_logits(model):
    torch.manual_seed(1)
    ids, others = torch.randint(0, 512, (2, 2, 12))
    cache = model.new_cache(batch_size=2, max_seq_len=12)
    with torch.inference_mode():
        model(ids, cache=cache)
        cache.truncate(7)
        assert cache.length == 7 and all(layer.length == 7 for layer in cache.layers)
        got = model(others[:, 7:], cache=cache)
        whole = model(torch.cat([ids[:, :7], others[:, 7:]], 1))
    torch.testing.assert_close(got, whole[:, 7:], rtol=1e-5, atol=1e-5)


def test_a_copy_of_some_rows_continues_like_them_and_leaves_the_original(model):
    torch.manual_seed(1)
    ids, rows = torch.randint(0, 512, (3, 12)), [2, 0]
    cache = model.new_cache(batch_size=3, max_seq_len=12)
    with torch.inference_mode():
        model(ids[:, :9], cache=cache)
        copy = cache.copy(rows, max_seq_len=20)
        assert (copy.batch_size, copy.max_seq_len, copy.length) == (2, 20, 9)
        model(ids[:, 9:].flip(0), cache=cache)
        got, whole = model(ids[rows, 9:], cache=copy), model(ids)
    torch.testing.assert_close(got, whole[rows, 9:], rtol=1e-5, atol=1e-5)


def test_a_copy_without_the_padding_is_plain_again(model):
    documents, positions = torch.tensor([[-1, -1, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1, 2]])
    ids, cache = torch.tensor([[0, 0, 5, 6, 7]]), model.new_cache(batch_size=1, max_seq_len=6)
    with torch.inference_mode():
        model(ids, positions=positions, documents=documents, cache=cache)
        copy = cache.copy([0], max_seq_len=4, start=2)
        assert cache._is_plain is False and copy._is_plain is True
        got, whole = model(torch.tensor([[8]]), cache=copy), model(torch.tensor([[5, 6, 7, 8]]))
    torch.testing.assert_close(got, whole[:, 3:], rtol=1e-5, atol=1e-5)


def test_the_cache_takes_the_bytes_that_the_config_announces():
    cache = KVCache(GROUPED, batch_size=3, max_seq_len=10, dtype=torch.bfloat16)
    assert cache.n_bytes == 3 * 10 * GROUPED.kv_bytes_per_token(2)


def test_tokens_that_do_not_fit_are_refused_and_nothing_is_lost(model):
    cache = KVCache(model.config, batch_size=1, max_seq_len=4)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.inference_mode():
        model(ids[:, :3], cache=cache)
        with pytest.raises(ValueError, match="room for 4 tokens and holds 3; 2 more do not fit"):
            model(ids[:, 3:], cache=cache)
        got, whole = model(ids[:, 3:4], cache=cache), model(ids[:, :4])
    torch.testing.assert_close(got, whole[:, 3:], rtol=1e-5, atol=1e-5)


def test_another_batch_size_is_refused(model):
    cache = KVCache(model.config, batch_size=2, max_seq_len=4)
    with pytest.raises(ValueError, match="made for a batch of 2; got a batch of 1"):
        model(torch.tensor([[1]]), cache=cache)


def test_a_cache_of_another_model_is_refused_by_what_differs(model):
    cache = KVCache(model.config, batch_size=1, max_seq_len=4)
    cache.refuse_other(dataclasses.replace(model.config))  # an equal config is the same model
    other = dataclasses.replace(model.config, n_kv_heads=4, rope_theta=1e4)
    with pytest.raises(ValueError, match=r"for a model with n_kv_heads=2, rope_theta=500000\.0\. "
                                         r"Make one with model\.new_cache"):
        cache.refuse_other(other)
    with torch.inference_mode(), pytest.raises(ValueError, match="must be made for this model"):
        Llama(other)(torch.tensor([[1]]), cache=cache)


def test_training_through_a_cache_is_refused(model):
    with pytest.raises(ValueError, match="a KV cache is for inference"):
        model(torch.tensor([[1]]), cache=KVCache(model.config, batch_size=1, max_seq_len=4))


def test_a_cache_without_room_is_refused():
    with pytest.raises(ValueError, match="at least one token; got batch_size=1, max_seq_len=0"):
        KVCache(GROUPED, batch_size=1, max_seq_len=0)


def test_a_layer_that_refuses_a_cut_leaves_all_layers_as_they_were(model):
    class Refusing(LayerCache):
        def refuse_cut(self, length):
            raise ValueError("not here")

    cache = model.new_cache(batch_size=1, max_seq_len=9)
    *first, last = cache.layers
    cache.layers = (*first, Refusing(*last.memory))
    with torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]), cache=cache)
    with pytest.raises(ValueError, match="not here"):
        cache.truncate(1)
    assert cache.length == 3 and all(layer.length == 3 for layer in cache.layers)

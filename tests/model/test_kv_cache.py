import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama

GROUPED = family.tiny("llama-3.1")
CHUNKED = dataclasses.replace(GROUPED, layers=(LayerSpec(chunk_size=5), LayerSpec(has_rope=False)) * 2)


@pytest.fixture(scope="module", params=[GROUPED, CHUNKED], ids=["grouped", "chunked"])
def model(request):
    torch.manual_seed(0)
    return Llama(request.param)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 23), max_size=6))
def test_a_prompt_in_pieces_of_any_size_gives_the_logits_of_the_whole(model, cuts):
    torch.manual_seed(1)
    ids = torch.randint(0, 512, (2, 24))
    cache = KVCache(model.config, batch_size=2, max_seq_len=24)
    edges = [0, *sorted(set(cuts)), 24]
    with torch.inference_mode():
        pieces = [model(ids[:, start:stop], cache=cache) for start, stop in zip(edges, edges[1:])]
        torch.testing.assert_close(torch.cat(pieces, 1), model(ids), rtol=1e-5, atol=1e-5)


def test_left_padding_changes_no_real_token(model):
    from llama_from_scratch.model.mask import padding_documents

    torch.manual_seed(1)
    ids, lengths = torch.randint(0, 512, (2, 12)), torch.tensor([7, 12])
    documents = padding_documents(lengths, width=12)
    positions = (torch.arange(12) - (12 - lengths)[:, None]).clamp(min=0)
    cache = KVCache(model.config, batch_size=2, max_seq_len=12)
    with torch.inference_mode():
        pieces = [model(ids[:, span], positions=positions[:, span], documents=documents[:, span], cache=cache)
                  for span in (slice(0, 9), slice(9, 10), slice(10, 12))]
        alone = model(ids[:1, 5:])
    torch.testing.assert_close(torch.cat(pieces, 1)[:1, 5:], alone, rtol=1e-5, atol=1e-5)


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
        torch.testing.assert_close(model(ids[:, 3:4], cache=cache), model(ids[:, :4])[:, 3:], rtol=1e-5, atol=1e-5)


def test_another_batch_size_is_refused(model):
    cache = KVCache(model.config, batch_size=2, max_seq_len=4)
    with pytest.raises(ValueError, match="made for a batch of 2; got a batch of 1"):
        model(torch.tensor([[1]]), cache=cache)


def test_training_through_a_cache_is_refused(model):
    with pytest.raises(ValueError, match="a KV cache is for inference"):
        model(torch.tensor([[1]]), cache=KVCache(model.config, batch_size=1, max_seq_len=4))


def test_a_cache_without_room_is_refused():
    with pytest.raises(ValueError, match="room for at least one token; got batch_size=1, max_seq_len=0"):
        KVCache(GROUPED, batch_size=1, max_seq_len=0)

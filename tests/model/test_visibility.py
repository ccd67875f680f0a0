"""Which tokens the new ones may see: one rule per chunk size, made by a part that is exchanged."""

import dataclasses

import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.model.mask import Tokens, Visible, VisibleRule, plain_tokens
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.visibility import Visibility

CHUNKED = dataclasses.replace(
    family.tiny("llama-3"), layers=(LayerSpec(chunk_size=4), LayerSpec(has_rope=False)) * 2)
IDS = torch.arange(9)[None]


def test_the_new_tokens_are_the_queries():
    found = Visibility()(plain_tokens(7), batch_size=2, chunk_sizes={None, 4}, cache=None)
    assert {size: rule.chunk_size for size, rule in found.items()} == {None: None, 4: 4}
    assert all(rule.shape == (7, 7) and isinstance(rule, VisibleRule) for rule in found.values())


def test_with_a_cache_its_tokens_are_keys_and_the_new_ones_are_counted():
    model = Llama(CHUNKED)
    cache = model.new_cache(batch_size=1, max_seq_len=9)
    with torch.no_grad():
        model(IDS[:, :6], cache=cache)
    new = Tokens(positions=torch.tensor([[6, 7]]), documents=None, is_plain=True)
    found = model.visibility(new, batch_size=1, chunk_sizes={None}, cache=cache)
    assert found[None].shape == (2, 8) and cache.length == 8


class SeesItself(nn.Module):
    """Another part: every token sees its own document, and each is a document."""

    def forward(self, new, *, batch_size, chunk_sizes, cache):
        tokens = Tokens(positions=new.positions, documents=new.positions, is_plain=False)
        return {size: Visible(tokens=tokens, n_queries=tokens.positions.shape[1],
                              chunk_size=size) for size in chunk_sizes}


def test_the_model_asks_the_part_that_is_there():
    torch.manual_seed(0)
    model = Llama(CHUNKED)
    expected = model(IDS, documents=IDS)
    assert not torch.allclose(model(IDS), expected)
    model.visibility = SeesItself()
    assert torch.allclose(model(IDS), expected)

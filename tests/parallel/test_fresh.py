"""Fresh weights come one by one, and equal the weights of a model that is made as a whole."""

import gc

import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.fresh import fresh_weights


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_they_are_the_weights_of_a_seeded_model_to_the_last_bit(generation):
    config = family.tiny(generation)
    torch.manual_seed(5)
    whole = dict(Llama(config).named_parameters())
    found = dict(fresh_weights(config, seed=5))
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    other = dict(fresh_weights(config, seed=6))
    assert not torch.equal(found["tok_embeddings.weight"], other["tok_embeddings.weight"])


def test_what_the_caller_draws_meanwhile_changes_nothing():
    config = family.tiny("llama-3.2")
    expected = dict(fresh_weights(config, seed=1))
    torch.manual_seed(8)
    alone = torch.rand(3)
    torch.manual_seed(8)
    drawn = []
    for name, weight in fresh_weights(config, seed=1):
        assert torch.equal(weight, expected[name])
        if len(drawn) < 3:
            drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), alone)


def test_never_more_than_one_unit_is_in_memory():
    def n_elements():
        return sum(p.numel() for p in gc.get_objects()
                   if type(p) is nn.Parameter and not p.is_meta)

    config = family.tiny("llama-3")
    gc.collect()
    before, whole = n_elements(), config.n_params
    most = max(n_elements() - before for _ in fresh_weights(config, seed=0))
    largest = max(config.vocab_size * config.dim,
                  sum(p.numel() for p in unwritten(config).layers[0].parameters()))
    assert most == largest < whole


def test_a_rounded_weight_is_the_fp32_one_rounded():
    config = family.tiny("llama-3")
    for (_, wide), (_, narrow) in zip(fresh_weights(config, seed=0),
                                      fresh_weights(config, seed=0, dtype=torch.bfloat16),
                                      strict=True):
        assert torch.equal(wide.bfloat16(), narrow)


def test_a_model_that_sees_is_refused():
    with pytest.raises(ValueError, match=r"got the config of a VisionLlamaConfig.*vision\.attach"):
        next(fresh_weights(family.tiny("llama-3.2-vision"), seed=0))

"""One record for all blocks: made once per pass, the same for each of them."""

import dataclasses

import torch
from hugging_face_twin import loud

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec

CHUNKED = dataclasses.replace(
    family.tiny("llama-3"), layers=(LayerSpec(chunk_size=4), LayerSpec(has_rope=False)) * 2)


def test_there_is_one_rule_for_each_chunk_size_and_no_other():
    model = loud(CHUNKED)
    inputs = model.prepare(model.embed(torch.ones(1, 9, dtype=torch.int64)))
    assert set(inputs.visible) == {None, 4}
    assert inputs.visible[None].is_causal and inputs.visible[None].mask is None
    assert inputs.visible[4].mask.shape == (1, 1, 9, 9)
    assert inputs.rotation.shape == (1, 9, 8)


def test_a_dense_mask_is_computed_when_it_is_first_asked_for_and_once():
    model = loud(CHUNKED)
    inputs = model.prepare(model.embed(torch.ones(1, 9, dtype=torch.int64)))
    assert inputs.visible[4]._kept == []
    assert inputs.visible[4].mask is inputs.visible[4].mask


def test_every_block_gets_the_same_record():
    model, seen = loud(CHUNKED), []
    for block in model.layers:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(torch.ones(2, 5, dtype=torch.int64))
    assert len(seen) == 4 and all(inputs is seen[0] for inputs in seen)


def test_positions_that_all_sequences_share_are_turned_once():
    model = loud(CHUNKED)
    x = model.embed(torch.ones(3, 5, dtype=torch.int64))
    assert model.prepare(x).rotation.shape == (1, 5, 8)
    assert model.prepare(x, positions=torch.zeros(3, 5).long()).rotation.shape == (3, 5, 8)

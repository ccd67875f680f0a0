"""The sizes of the released encoders, and what a config costs by the arithmetic by hand."""

import dataclasses

import pytest
import torch
from vision_twin import LLAMA_3_2_11B, SMALL

from llama_from_scratch.vision.costs import PLACES, param_counts, unwritten_vision
from llama_from_scratch.vision.encoder import VisionModel


@pytest.mark.parametrize(("changes", "encoder", "projector"), [
    (dict(tile_px=560), 863_567_379, 31_461_376),
    (dict(tile_px=448), 836_288_019, 31_461_376),
    (dict(output_dim=8192), 863_567_379, 62_922_752)], ids=["11B", "base 11B", "90B"])
def test_the_released_encoders_have_exactly_their_published_sizes(changes, encoder, projector):
    config = dataclasses.replace(LLAMA_3_2_11B, **changes)
    counts = config.param_counts
    assert counts.pop("projector") == projector
    assert sum(counts.values()) == encoder
    assert config.n_params == encoder + projector


def test_counts_equal_the_arithmetic_by_hand():
    W, F, n, J, ids = SMALL.dim, SMALL.ffn_dim, 1 + 9, 4, 9
    block = 4 * W * W + (2 * W * F + F + W) + 4 * W
    assert param_counts(SMALL) == {
        "embeddings": 3 * 16 * W + W + 2 * (ids * J * W + 1) + n * W + ids * J * n * W + 1,
        "local layers": 5 * block, "global layers": 2 * (block + 2), "norms": 4 * W,
        "projector": (4 * W + 1) * 20}
    assert tuple(param_counts(SMALL)) == PLACES


def test_the_model_without_memory_is_the_one_that_is_built():
    state = torch.get_rng_state()
    found = unwritten_vision(SMALL)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    assert all(parameter.is_meta for parameter in found.parameters())
    built = VisionModel(SMALL)
    assert ({name: p.shape for name, p in found.named_parameters()}
            == {name: p.shape for name, p in built.named_parameters()})
    assert torch.equal(found.encoder.n_tiles, built.encoder.n_tiles), "counts of tiles are there"


def test_changing_the_counts_that_were_returned_changes_no_later_ones():
    counts = SMALL.param_counts
    counts["embeddings"] = 0
    assert SMALL.param_counts["embeddings"] > 0
    with pytest.raises(TypeError, match="does not support item assignment"):
        param_counts(SMALL)["embeddings"] = 0

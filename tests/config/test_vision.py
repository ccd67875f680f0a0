import dataclasses
import json
import math

import pytest

from llama_from_scratch.config import VisionConfig

VISION = dict(dim=64, n_heads=4, ffn_dim=96, n_local_layers=4, n_global_layers=2,
              intermediate_layers=(1, 3), tile_px=28, patch_px=14, max_tiles=2,
              aspect_ratios=((1, 1), (1, 2), (2, 1)), norm_eps=1e-5, output_dim=48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_head=4), r"VisionConfig has no field 'n_head'; did you mean 'n_heads'\?"),
        (dict(n_heads=5), "n_heads must divide it; got dim=64, n_heads=5"),
        (dict(dim=0), "VisionConfig.dim must be an int above 0; got 0"),
        (dict(dim=64.0), r"VisionConfig.dim must be an int above 0; got 64\.0"),
        (dict(ffn_dim=True), "VisionConfig.ffn_dim must be an int above 0; got True"),
        (dict(n_local_layers=0), "VisionConfig.n_local_layers must be an int above 0; got 0"),
        (dict(n_global_layers=-1), "VisionConfig.n_global_layers must be an int above 0; got -1"),
        (dict(output_dim="48"), "VisionConfig.output_dim must be an int above 0; got '48'"),
        (dict(norm_eps=math.nan), "VisionConfig.norm_eps must be a number above 0; got nan"),
        (dict(norm_eps=1.0), "VisionConfig.norm_eps must be below 1; got 1.0"),
        (dict(tile_px=30), "patch_px must divide tile_px; got tile_px=30, patch_px=14"),
        (dict(patch_px=2**63), "VisionConfig.patch_px must be at most"),
        (dict(intermediate_layers=()), r"from 0 to 3, with at least one; got \(\)"),
        (dict(intermediate_layers=(3, 1)), r"ascending numbers of local layers, .*got \(3, 1\)"),
        (dict(intermediate_layers=(1, 1)), r"ascending numbers of local layers, .*got \(1, 1\)"),
        (dict(intermediate_layers=(1, 4)), r"from 0 to 3, with at least one; got \(1, 4\)"),
        (dict(intermediate_layers=(-1, 2)), r"from 0 to 3, with at least one; got \(-1, 2\)"),
        (dict(intermediate_layers=(0, True)), r"numbers of local layers, .*got \(0, True\)"),
        (dict(intermediate_layers=3), "intermediate_layers must be a tuple of .*; got 3"),
        (dict(intermediate_layers=("1",)), r"intermediate_layers must be a tuple .*got \('1',\)"),
        (dict(max_tiles=1), r"more than max_tiles=1 tiles; got \(1, 2\)"),
        (dict(aspect_ratios=()), r"aspect_ratios must be a tuple .*; got \(\)"),
        (dict(aspect_ratios=((1, 2, 1),)), r"with \(rows, columns\) of each canvas"),
        (dict(aspect_ratios=((0, 1),)), r"with \(rows, columns\) of each canvas, .*\(\(0, 1\),\)"),
        (dict(aspect_ratios=((True, 1),)), r"with \(rows, columns\) of each canvas"),
        (dict(aspect_ratios=(1, 2)), r"with \(rows, columns\) of each canvas, .*got \(1, 2\)"),
        (dict(aspect_ratios=((1, 1), (1, 1))), "must be given once, because its place is its id"),
    ],
)
def test_a_vision_config_that_cannot_work_is_refused_with_the_rule_and_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**VISION | change)


def test_a_missing_field_of_a_vision_config_is_named():
    with pytest.raises(ValueError, match="VisionConfig needs patch_px; got only dim, n_heads"):
        VisionConfig(**{k: v for k, v in VISION.items() if k != "patch_px"})


def test_what_follows_from_a_vision_config():
    config = VisionConfig(**VISION)
    assert (config.head_dim, config.n_patches, config.n_tokens) == (16, 4, 5)
    assert config.n_features == 3 * 64 and config.n_tiles == (1, 1, 2, 2)
    assert config.n_params == sum(config.param_counts.values()) > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 128


def test_both_released_tile_sizes_have_their_numbers_of_tokens():
    for tile_px, n_tokens in ((448, 1025), (560, 1601)):
        assert VisionConfig(**VISION | dict(tile_px=tile_px)).n_tokens == n_tokens


def test_a_vision_config_survives_json():
    config = VisionConfig(**VISION)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["aspect_ratios"] == [[1, 1], [1, 2], [2, 1]]
    assert VisionConfig.from_dict(plain) == config


@pytest.mark.parametrize(("change", "message"), [
    (dict(aspect_ratios=[1, 2]), r"aspect_ratios must be a tuple .*got \(1, 2\)"),
    (dict(aspect_ratios=[[1, [2]]]), "aspect_ratios must be a tuple"),
    (dict(aspect_ratios={"1": 2}), "aspect_ratios must be a tuple"),
    (dict(intermediate_layers=[[1], 3]), "intermediate_layers must be a tuple"),
    (dict(intermediate_layers=[1.0]), "intermediate_layers must be a tuple"),
    (dict(dim=[64]), "VisionConfig.dim must be an int above 0"),
    (dict(tile=448), r"no field 'tile'; did you mean 'tile_px'\?"),
])
def test_a_json_value_of_another_type_is_refused_in_a_vision_config(change, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig.from_dict(VisionConfig(**VISION).to_dict() | change)

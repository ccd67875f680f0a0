import dataclasses
import json
import math

import pytest
from fusion_twin import IDS, TILE
from llama4_twin import toy
from vision_twin import SMALL

from llama_from_scratch.config import FusionLlamaConfig, ImageIds, TileEncoderConfig

PLAIN = dict(dim=16, n_heads=2, ffn_dim=64, n_layers=2, tile_px=56, patch_px=14, max_tiles=16,
             adapter_dim=20, output_dim=32, norm_eps=1e-5)


def fusing(**changes):
    return FusionLlamaConfig.seeing(toy(), **dict(vision=TILE, image_ids=IDS) | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_head=4), r"TileEncoderConfig has no field 'n_head'; did you mean 'n_heads'\?"),
        (dict(n_heads=5), "n_heads must divide it; got dim=16, n_heads=5"),
        (dict(n_heads=8), "must be a multiple of 4; got 16 / 8 = 2"),
        (dict(dim=0), "TileEncoderConfig.dim must be an int above 0; got 0"),
        (dict(ffn_dim=True), "TileEncoderConfig.ffn_dim must be an int above 0; got True"),
        (dict(adapter_dim="20"), "TileEncoderConfig.adapter_dim must be an int above 0; got '20'"),
        (dict(norm_eps=math.nan), "TileEncoderConfig.norm_eps must be a number above 0; got nan"),
        (dict(rope_theta=0), "TileEncoderConfig.rope_theta must be a number above 0; got 0"),
        (dict(tile_px=30), "patch_px must divide tile_px; got tile_px=30, patch_px=14"),
        (dict(shuffle=3), "shuffle must divide tile_px / patch_px; got shuffle=3, 56 / 14 = 4"),
        (dict(shuffle=0), "TileEncoderConfig.shuffle must be an int above 0; got 0"),
    ],
)
def test_an_encoder_that_cannot_work_is_refused_with_the_rule_and_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        TileEncoderConfig(**PLAIN | change)


def test_what_follows_from_an_encoders_config():
    config = TileEncoderConfig(**PLAIN)
    assert config == TILE and (config.shuffle, config.rope_theta) == (2, 1e4)
    assert (config.head_dim, config.grid, config.n_patches, config.n_tokens) == (8, 4, 16, 4)
    assert config.n_params == sum(config.param_counts.values()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(patch=0), "ImageIds.patch must be an int above 0, because id 0 fills up"),
        (dict(image=True), "ImageIds.image must be an int above 0.*got True"),
        (dict(image_end=IDS.image_start), "each of the ImageIds must be another id; got"),
        (dict(pad=3), "ImageIds has no field 'pad'"),
    ],
)
def test_ids_that_cannot_write_an_image_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ImageIds(**dataclasses.asdict(IDS) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vision=SMALL), "FusionLlamaConfig.vision must be a TileEncoderConfig; got VisionCon"),
        (dict(image_ids=(1, 2)), r"image_ids must be an ImageIds; got \(1, 2\)"),
        (dict(vision=dataclasses.replace(TILE, output_dim=16)),
         "vision.output_dim must be 32; got 16"),
        (dict(image_ids=dataclasses.replace(IDS, image=90)),
         "belong to the vocabulary, from 0 to 89; got 90"),
    ],
)
def test_a_model_that_cannot_work_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fusing(**change)


def test_a_config_survives_json():
    config = fusing()
    plain = json.loads(json.dumps(config.to_dict()))
    assert FusionLlamaConfig.from_dict(plain) == config
    assert TileEncoderConfig.from_dict(plain["vision"]) == TILE
    for part in ("vision", "image_ids"):
        with pytest.raises(ValueError, match=f"FusionLlamaConfig.{part} must be a JSON object"):
            FusionLlamaConfig.from_dict(plain | {part: 3})
        with pytest.raises(ValueError, match=f"FusionLlamaConfig needs {part}"):
            FusionLlamaConfig.from_dict({k: v for k, v in plain.items() if k != part})


def test_the_text_of_a_model_that_sees_is_its_text_model():
    config = fusing()
    assert config.text == toy() and FusionLlamaConfig.seeing(
        config.text, vision=config.vision, image_ids=config.image_ids) == config
    assert config.image_id == IDS.image and config.n_ids == config.vocab_size


def test_costs_of_text_are_those_of_the_text_model():
    config = fusing()
    assert config.n_active_params == toy().n_active_params
    assert config.flops_per_token(7) == toy().flops_per_token(7)
    assert config.kv_bytes_per_token(2) == toy().kv_bytes_per_token(2)
    assert config.kv_bytes_per_image(2) == config.image_tokens * config.kv_bytes_per_token(2)

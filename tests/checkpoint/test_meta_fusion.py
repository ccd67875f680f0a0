import dataclasses
import io
import json

import pytest
import torch
from fusion_twin import TILE
from llama4_files import (
    IDS,
    VISION_ARGS,
    as_released,
    ids_and_images,
    meta_small,
    same_weights,
    text_model,
    tokenizer,
    whole_model,
)
from llama4_twin import loud_llama4
from meta_release import edit_params, load

from llama_from_scratch import family
from llama_from_scratch.checkpoint import meta, meta_fusion, meta_llama4
from llama_from_scratch.vision.early_fusion import fuse_vision
from llama_from_scratch.vision.tiles import GridTiling


def whole(vision=TILE, ids=IDS):
    model = fuse_vision(loud_llama4(meta_small(step=2)), vision, image_ids=ids)
    with torch.no_grad():
        for weight in model.vision.parameters():
            weight.normal_()
    return model.eval()


@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_release_is_read_bit_for_bit(n_shards, tmp_path):
    model = whole()
    loaded = load(as_released(tmp_path / "m", model, n_shards=n_shards))
    assert loaded.config == model.config and same_weights(loaded, model)
    assert loaded.tiling == GridTiling(size_px=56, max_tiles=16)


@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_model_comes_back_and_sees_the_same(n_shards, tmp_path):
    model = whole_model()
    meta.write(tmp_path / "m", model, tokenizer=tokenizer(), n_shards=n_shards)
    loaded = load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)
    ids, images = ids_and_images()
    with torch.no_grad():
        assert torch.equal(loaded(ids, images=images), model(ids, images=images))


@pytest.mark.parametrize("n_shards", [1, 2])
def test_what_is_written_has_the_entries_of_a_release(n_shards, tmp_path):
    model = whole()
    as_released(tmp_path / "hand", model, n_shards=n_shards)
    meta.write(tmp_path / "m", model, tokenizer=tokenizer(), n_shards=n_shards)
    for i in range(n_shards):
        ours = torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True)
        with torch.serialization.safe_globals([io.BytesIO]):
            hand = torch.load(tmp_path / f"hand/consolidated.{i:02}.pth", weights_only=True)
        seen = {key for key in hand if key.startswith("vision_")}
        assert len(seen) == 42 and seen == {key for key in ours if key.startswith("vision_")}
        assert all(torch.equal(ours[key], hand[key]) for key in seen)
    said = json.loads((tmp_path / "m/params.json").read_text())
    assert said["vision_args"] == VISION_ARGS


@pytest.mark.parametrize("name", family.FUSION)
def test_a_published_config_comes_back_from_its_params(name):
    config = family.config(name)
    params = meta_llama4.params_of(config) | meta_fusion.params_of(config)
    assert params["vision_args"]["mlp_ratio"] == 4.0
    text = meta_llama4.config_from(params, vocab_size=202_048, is_tied=False)
    assert meta_fusion.config_from(params, text, where="params.json") == config


@pytest.mark.parametrize(("changes", "message"), [
    ({"depth": 2}, "'depth' is not a key of vision_args; "),
    ({"mlp_ratio": None}, "mlp_ratio of vision_args must be a number above 0; got None"),
    ({"pixel_shuffle_ratio": 0.3}, "must be 1 divided by a whole number; got 0.3"),
    ({"image_size": {"height": 56, "width": 70}}, "image_size of vision_args must have an equal"),
    ({"n_layers": 10**6}, r"n_layers of vision_args is 1000000, and a file holds \d+ tensors"),
    ({"n_heads": 3}, "n_heads must divide it"),
])
def test_another_encoder_is_refused_with_the_key(changes, message, tmp_path):
    folder = as_released(tmp_path / "m", whole())
    edit_params(folder, vision_args=VISION_ARGS | changes)
    with pytest.raises(ValueError, match=message):
        meta.open_checkpoint(folder)
    edit_params(folder, vision_args={key: VISION_ARGS[key] for key in list(VISION_ARGS)[1:]})
    with pytest.raises(ValueError, match="vision_args needs image_size"):
        meta.open_checkpoint(folder)


@pytest.mark.parametrize(("vision", "ids", "message"), [
    ({"max_tiles": 4}, {}, r"Meta's code fixes .*; got \{'max_tiles': 4\}"),
    ({"rope_theta": 2e4}, {}, r"Meta's code fixes .*; got \{'rope_theta': 20000.0\}"),
    ({}, {"image": 300}, "the ids of images are where the released tokenizer has them"),
])
def test_what_params_cannot_describe_is_refused(vision, ids, message):
    model = fuse_vision(text_model(), dataclasses.replace(TILE, **vision),
                        image_ids=dataclasses.replace(IDS, **ids))
    with pytest.raises(ValueError, match=message):
        meta_fusion.params_of(model.config)


def test_other_colors_are_not_written(tmp_path):
    model = whole_model()
    model.tiling = GridTiling(size_px=56, max_tiles=16, mean=(0.4, 0.5, 0.6))
    with pytest.raises(ValueError, match="fixes how images are cut and colors are normalized"):
        meta.write(tmp_path / "m", model, tokenizer=tokenizer())
    assert not list(tmp_path.iterdir())

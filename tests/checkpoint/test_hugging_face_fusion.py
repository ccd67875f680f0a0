import dataclasses
import json

import pytest
import torch
import transformers
from fusion_twin import TILE, fusion_twin_of, theirs
from llama4_files import (
    IDS,
    KINDS,
    ids_and_images,
    same_weights,
    text_model,
    tokenizer,
    whole_model,
)
from tiny_checkpoints import edit_json

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, hugging_face_fusion
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.vision.early_fusion import fuse_vision
from llama_from_scratch.vision.tiles import GridTiling

SAME_ARITHMETIC = 5e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits
reach 4, and the encoder comes first.
"""


@torch.no_grad()
def logits(model):
    ids, images = ids_and_images()
    return model(ids, images=images)


def write_processor(folder, **changes):
    """The file of the released models, with smaller tiles."""
    plain = {"image_processor_type": "Llama4ImageProcessorFast", "do_convert_rgb": True,
             "do_normalize": True, "do_rescale": True, "do_resize": True, "crop_size": None,
             "data_format": "channels_first", "default_to_square": True, "device": None,
             "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
             "input_data_format": None, "max_patches": 16, "processor_class": "Llama4Processor",
             "resample": 2, "rescale_factor": 0.00392156862745098, "resize_to_max_canvas": False,
             "return_tensors": None, "size": {"height": 56, "width": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain | changes))


@pytest.mark.parametrize("shard_size", ["5GB", "100KB"])
@pytest.mark.parametrize("kind", KINDS)
def test_we_compute_the_same_from_what_transformers_writes(kind, shard_size, tmp_path):
    model = whole_model(kind)
    twin = fusion_twin_of(model)
    twin.save_pretrained(tmp_path / "m", max_shard_size=shard_size)
    write_processor(tmp_path / "m")
    loaded = build(hugging_face.open_checkpoint(tmp_path / "m"))
    assert loaded.config == model.config and same_weights(loaded, model)
    assert loaded.tiling == model.tiling
    with torch.no_grad():
        wanted = theirs(twin, *ids_and_images())
    torch.testing.assert_close(logits(loaded), wanted, rtol=0, atol=SAME_ARITHMETIC)


@pytest.mark.parametrize("shard_bytes", [None, 100_000])
def test_transformers_computes_the_same_from_what_we_write(shard_bytes, tmp_path):
    model = whole_model()
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer(), shard_bytes=shard_bytes)
    twin = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "m", attn_implementation="eager").eval()
    assert type(twin).__name__ == "Llama4ForConditionalGeneration"
    twin.language_model.register_forward_hook(
        lambda _, args, out: setattr(out, "image_outputs", None))
    with torch.no_grad():
        wanted = theirs(twin, *ids_and_images())
    torch.testing.assert_close(wanted, logits(model), rtol=0, atol=SAME_ARITHMETIC)
    back, its_tokenizer = load(tmp_path / "m")
    assert back.config == model.config and same_weights(back, model)
    assert its_tokenizer.named_ids["<|patch|>"] == IDS.patch


def test_the_image_matters_to_the_logits():
    model, (ids, images) = whole_model(), ids_and_images()
    other = dataclasses.replace(images, pixels=images.pixels.flip(0))
    with torch.no_grad():
        assert (model(ids, images=other) - logits(model)).abs().max() > 1e-2


def test_how_images_are_cut_comes_back(tmp_path):
    model = whole_model()
    model.tiling = GridTiling(size_px=56, max_tiles=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4),
                              fills_canvas=True)
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer())
    assert load(tmp_path / "m")[0].tiling == model.tiling
    written = json.loads((tmp_path / "m/preprocessor_config.json").read_text())
    assert written["image_mean"] == [0.4, 0.5, 0.6] and written["resize_to_max_canvas"]
    assert written["max_patches"] == 16 and written["size"] == {"height": 56, "width": 56}


@pytest.mark.parametrize("name", family.FUSION)
def test_a_config_comes_back_from_its_config_json_and_from_that_of_transformers(name):
    config = family.config(name)
    about = json.loads(json.dumps(
        hugging_face_fusion.config_to(config, dtype=torch.bfloat16, text_ids={})))
    assert about["image_token_index"] == 200_092, "the patch, not <|image|>"
    assert about["vision_config"]["vision_output_dim"] == 4096
    assert hugging_face_fusion.config_from(about, max_tiles=16) == config
    theirs = transformers.Llama4Config(**about).to_dict()
    assert hugging_face_fusion.config_from(theirs, max_tiles=16) == config


ABOUT = hugging_face_fusion.config_to(family.config("llama-4-scout-17b-16e"), dtype=torch.bfloat16,
                                      text_ids={})


def changed(part, **said):
    return ABOUT | ({part: ABOUT[part] | said} if part else said)


def without(part, key):
    return ABOUT | {part: {k: v for k, v in ABOUT[part].items() if k != key}}


@pytest.mark.parametrize(("about", "message"), [
    (changed(None, model_type="llama4_text"), "must say \"model_type\": \"llama4\" for a whole"),
    (changed(None, architectures=["Llama4ForCausalLM"]), "must be for a Llama4ForConditionalGen"),
    (changed(None, text_config=[]), "text_config in config.json must be a JSON object"),
    (changed(None, tie_word_embeddings=True), "tie_word_embeddings cannot be read"),
    (changed(None, image_grid=3), "image_grid cannot be read"),
    (changed(None, image_token_index=200_090), "must follow each other as in the released"),
    (changed(None, image_token_index=200_092, image_token_id=7), "image_token_index must be one"),
    (changed(None, boi_token_index=None, eoi_token_index=None, image_token_index=400), "follow"),
    (changed("text_config", use_qk_norms=1), "use_qk_norms is not a key that is known"),
    (changed("vision_config", hidden_act="relu"), "hidden_act is 'relu'"),
    (changed("vision_config", norm_eps=1e-6), "norm_eps is 1e-06, and only 1e-05"),
    (changed("vision_config", grid=3), "vision_config of config.json .* grid is not a key"),
    (changed("vision_config", num_hidden_layers="34"), "num_hidden_layers is '34'"),
    (changed("vision_config", pixel_shuffle_ratio=0.4), "pixel_shuffle_ratio is 0.4, not 1 div"),
    (changed("vision_config", intermediate_size=5000), "must be hidden_size times 4"),
    (changed("vision_config", image_size=[336, 448]), "tile_px must be an int above 0; got"),
    (changed("vision_config", vision_feature_layer=-2), "vision_feature_layer is -2"),
    (changed("vision_config", rope_parameters={"rope_theta": 1e4, "rope_type": "linear"}),
     "rope_parameters is .*, and only rope_theta"),
    (changed("vision_config", rope_parameters={"rope_theta": 2e4}), "rope_theta is given twice"),
    # The default of transformers' class is not that of the released models.
    (without("vision_config", "vision_output_dim"), "vision_output_dim is 7680"),
])  # fmt: skip
def test_a_config_for_another_model_is_refused_with_the_key(about, message):
    with pytest.raises(ValueError, match=message):
        hugging_face_fusion.config_from(about, max_tiles=16)


@pytest.mark.parametrize(("changes", "message"), [
    ({"size": {"height": 70, "width": 70}}, r"tiles of 56 pixels, .* has 70. Use both files"),
    ({"size": {"height": 56, "width": 70}}, "not the height and width of a square tile"),
    ({"do_normalize": False}, "do_normalize is False, and only True can be computed"),
    ({"max_patches": 10**9}, "max_patches is 1000000000, not from 1 to 64"),
    ({"resample": 3}, "resample is 3, and only 2"), ({"zoom": 2}, "zoom is not a key that is kn"),
    ({"image_mean": [0.5]}, "mean must be three finite numbers"),
])
def test_a_processor_for_other_images_is_refused_with_the_key(changes, message, tmp_path):
    hugging_face.write(tmp_path / "m", whole_model(), tokenizer=tokenizer())
    write_processor(tmp_path / "m", **changes)
    with pytest.raises(ValueError, match=message):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_a_folder_without_the_processor_is_refused(tmp_path):
    hugging_face.write(tmp_path / "m", whole_model(), tokenizer=tokenizer())
    (tmp_path / "m/preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="needs a preprocessor_config.json, .* has none. Downl"):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_a_tokenizer_with_other_ids_of_images_is_refused(tmp_path):
    hugging_face.write(tmp_path / "m", whole_model(), tokenizer=tokenizer())
    edit_json(tmp_path / "m/config.json", boi_token_index=IDS.image_start - 1,
              eoi_token_index=IDS.image_end - 1, image_token_index=IDS.patch - 1)
    with pytest.raises(ValueError, match=r"has the id 343 in this model; .* tokenizer's is 344"):
        load(tmp_path / "m")


@pytest.mark.parametrize(("vision", "ids", "message"), [
    ({"norm_eps": 1e-6}, {}, "computes the norms of the encoder with 1e-05"),
    ({"ffn_dim": 48}, {}, r"ffn_dim must be 16 \* 2\*\*2; got 48. Write our own format"),
    ({}, {"image": 300}, "names only three ids of images, .*; got ImageIds.* Write our own"),
])
def test_what_the_files_cannot_describe_is_not_written(vision, ids, message, tmp_path):
    model = fuse_vision(text_model(), dataclasses.replace(TILE, **vision),
                        image_ids=dataclasses.replace(IDS, **ids))
    with pytest.raises(ValueError, match=message if not ids else "has the id 300 in this model"):
        hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer())
    with pytest.raises(ValueError, match=message):
        hugging_face_fusion.config_to(model.config, dtype=torch.float32, text_ids={})
    assert not list(tmp_path.iterdir())

"""Folders of models that see in Hugging Face's layout, compared with transformers' own classes."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from seeing_checkpoints import (
    CONFIG,
    IMAGE,
    gates,
    ids_and_pictures,
    logits,
    seeing,
    tokenizer,
)
from seeing_twin import theirs
from tiny_checkpoints import edit_json, edit_safetensors, same_weights

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, load, open_checkpoint
from llama_from_scratch.checkpoint.hugging_face_vision import (
    config_from,
    config_to_seeing,
    read_tiling,
    tiling_to,
)
from llama_from_scratch.checkpoint.names import HUGGING_FACE
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.vision import detach
from llama_from_scratch.vision.tiles import Tiling, split

try:
    from transformers.models.mllama.image_processing_pil_mllama import (
        MllamaImageProcessorPil as Released,
    )
except ImportError:  # before transformers 5
    from transformers.models.mllama.image_processing_mllama import MllamaImageProcessor as Released

SAME = 1e-5
"""The largest difference of two implementations in fp32, relative to the largest logit."""
PUBLISHED = {  # without the keys that no model of this kind has in another way
    "architectures": ["MllamaForConditionalGeneration"], "image_token_index": 128256,
    "model_type": "mllama", "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0",
    "text_config": {
        "_name_or_path": "", "add_cross_attention": False, "architectures": None,
        "bos_token_id": 128000, "cross_attention_hidden_size": None,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38], "dropout": 0,
        "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
        "model_type": "mllama_text_model", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "pad_token_id": 128004, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": False, "use_cache": True,
        "vocab_size": 128256},
    "vision_config": {
        "attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280, "image_size": 448,
        "intermediate_layers_indices": [3, 7, 15, 23, 30], "intermediate_size": 5120,
        "max_num_tiles": 4, "model_type": "mllama_vision_model", "norm_eps": 1e-05,
        "num_channels": 3, "num_global_layers": 8, "num_hidden_layers": 32, "patch_size": 14,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1],
                                    [4, 1]],
        "vision_output_dim": 7680}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A written checkpoint and its model."""
    folder, model = tmp_path_factory.mktemp("seeing") / "it", seeing(has_one_grid=False)
    hugging_face.write(folder, model, tokenizer=tokenizer())
    return folder, model


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


def transformers_model(folder):
    """transformers' model of a folder. It takes leaving states, so its numbers are one less."""
    config = transformers.AutoConfig.from_pretrained(folder)
    vision = config.vision_config
    vision.intermediate_layers_indices = [
        layer - 1 for layer in vision.intermediate_layers_indices]
    return transformers.AutoModelForImageTextToText.from_pretrained(
        folder, config=config, attn_implementation="eager").eval()


def difference(model, twin):
    """Our logits of one model against theirs of another, relative to the largest of theirs."""
    ids, images = ids_and_pictures()
    with torch.no_grad():
        expected = theirs(twin, ids, images, image_id=IMAGE)
    return ((logits(model) - expected).abs().max() / expected.abs().max()).item()


def edit_part(folder, part, **changes):
    about = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", **{part: about[part] | changes})


# --- there and back -------------------------------------------------------------------------------


def test_a_model_that_sees_is_the_same_after_a_round_trip(made):
    folder, model = made
    again, its_tokenizer = load(folder)
    assert again.config == model.config and same_weights(model, again)
    assert torch.equal(logits(again), logits(model))
    assert again.tiling == Tiling(size_px=28, max_tiles=4)
    assert its_tokenizer.encode("the cat") == tokenizer().encode("the cat")
    assert its_tokenizer.special_ids["<|image|>"] == IMAGE


def test_the_loaded_model_and_its_tiling_cut_and_read_an_image(made):
    model, _ = load(made[0])
    pixels = torch.randint(256, (40, 70, 3), dtype=torch.uint8).numpy()
    images = split([[pixels]], model.tiling)
    assert model(torch.tensor([[IMAGE, 1]]), images=images).shape == (1, 2, CONFIG.vocab_size)


def test_transformers_loads_what_we_wrote_and_answers_the_same(made):
    folder, model = made
    assert difference(model, transformers_model(folder)) < SAME


def test_we_load_what_transformers_wrote_and_answer_the_same(made, tmp_path):
    folder, model = made
    twin = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    twin.save_pretrained(tmp_path)
    for file in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / file, tmp_path)
    again, _ = load(tmp_path)
    assert again.config == model.config and same_weights(model, again)
    assert difference(again, transformers_model(tmp_path)) < SAME


def test_a_released_model_in_several_files_is_the_same(made, tmp_path):
    model = made[1]
    hugging_face.write(tmp_path / "it", model, tokenizer=tokenizer(), shard_bytes=200_000)
    assert len(list((tmp_path / "it").glob("*.safetensors"))) > 2
    assert same_weights(model, load(tmp_path / "it")[0])


def test_the_names_of_newer_releases_of_transformers_are_read_too(folder, made):
    newer = {"language_model.model.": "model.language_model.", "vision_model.":
             "model.vision_model.", "multi_modal_projector.": "model.multi_modal_projector.",
             "language_model.lm_head.": "lm_head."}
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        beginning = next(each for each in newer if name.startswith(each))
        tensors[newer[beginning] + name.removeprefix(beginning)] = tensor
    save_file(tensors, folder / "model.safetensors")
    assert same_weights(load(folder)[0], made[1])
    tensors["language_model.lm_head.weight"] = tensors["lm_head.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="holds language_model.lm_head.weight under this name and"):
        load(folder)


def test_transformers_opens_its_processor_in_our_folder_and_cuts_images_as_we_do(made):
    processor = Released.from_pretrained(made[0])
    pixels = torch.randint(256, (61, 40, 3), dtype=torch.uint8).numpy()
    found = processor(images=[[pixels]], return_tensors="pt")
    ours = split([[pixels]], load(made[0])[0].tiling)
    assert torch.equal(ours.aspect_ids, found["aspect_ratio_ids"])
    assert torch.equal(ours.pixels, found["pixel_values"])


# --- what a converter may get wrong ---------------------------------------------------------------


def _places_of_meta(tensors):
    """Tiles of a canvas by column instead of by row."""
    name = "vision_model.gated_positional_embedding.tile_embedding.weight"
    rows = tensors[name].clone().view(9, 4, -1)
    rows[6] = rows[6][[0, 2, 1, 3]]
    tensors[name] = rows.flatten(1)


def _aspect_ids_off_by_one(tensors):
    for name in tensors:
        if "tile_embedding" in name or name.endswith("tile_positional_embedding.embedding.weight"):
            tensors[name] = tensors[name].roll(1, 0)


def _permuted(part, heads):
    def change(tensors):
        for name in tensors:
            if part in name and name.endswith("q_proj.weight"):
                rows = tensors[name].unflatten(0, (heads, -1, 2))
                tensors[name] = rows.transpose(1, 2).flatten(0, 2).contiguous()
    return change


def _not_permuted(tensors):
    for name in tensors:
        if "language_model" in name and "self_attn.q_proj" in name:
            rows = tensors[name].unflatten(0, (4, 2, -1))
            tensors[name] = rows.transpose(1, 2).flatten(0, 2).contiguous()


def _image_rows_first(tensors):
    name = "language_model.model.embed_tokens.weight"
    tensors[name] = tensors[name].roll(8, 0)


def _gates_closed(tensors):
    for name in tensors:
        if name.endswith("gate"):
            tensors[name] = torch.zeros_like(tensors[name])


def _blocks_exchanged(tensors):
    for name in [name for name in tensors if "layers.1.cross_attn" in name]:
        other = name.replace("layers.1.", "layers.4.")
        tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()


MISTAKES = {
    "places by column": _places_of_meta, "aspect id off by one": _aspect_ids_off_by_one,
    "cross-attention permuted": _permuted("cross_attn", 4),
    "encoder permuted": _permuted("vision_model.transformer", 2),
    "text not permuted": _not_permuted, "image rows first": _image_rows_first,
    "gates closed": _gates_closed, "blocks exchanged": _blocks_exchanged}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_converter_changes_the_logits(mistake, folder, made):
    edit_safetensors(folder, MISTAKES[mistake])
    assert difference(made[1], transformers_model(folder)) > 100 * SAME


def test_the_states_that_leave_a_layer_are_others(made):
    folder, model = made
    twin = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, attn_implementation="eager").eval()
    assert difference(model, twin) > 100 * SAME


def test_all_gates_of_the_small_model_are_open():
    assert len(found := gates(seeing())) == 2 * 2 + 3 + 2 * 2
    assert all(abs(gate.weight.item()) > 0.3 for gate in found.values())


# --- config.json ----------------------------------------------------------------------------------


def test_the_published_config_of_11b_is_the_row_of_the_family():
    assert config_from(PUBLISHED) == family.config("llama-3.2-11b-vision")


def test_both_tile_sizes_and_both_sizes_of_model_are_read():
    larger = PUBLISHED | {"vision_config": PUBLISHED["vision_config"] | {"image_size": 560}}
    assert config_from(larger) == family.config("llama-3.2-11b-vision-instruct")
    text = PUBLISHED["text_config"] | {
        "hidden_size": 8192, "num_hidden_layers": 100, "num_attention_heads": 64,
        "intermediate_size": 28672, "cross_attention_layers": list(range(3, 100, 5))}
    assert config_from(larger | {"text_config": text}) == family.config("llama-3.2-90b-vision")


@pytest.mark.parametrize("name", family.VISION)
def test_what_is_written_is_read_as_the_same_and_has_the_published_numbers(name):
    config = family.config(name)
    about = config_to_seeing(config, dtype=torch.bfloat16, text_ids={"bos_token_id": 128000})
    assert config_from(about) == config
    assert about["vision_config"]["intermediate_layers_indices"] == [3, 7, 15, 23, 30]
    n_merged = config.n_layers * 5 // 4
    assert about["text_config"]["num_hidden_layers"] == n_merged
    assert about["text_config"]["cross_attention_layers"] == list(range(3, n_merged, 5))
    assert transformers.MllamaConfig.from_dict(about).text_config.num_hidden_layers == n_merged


def test_missing_keys_have_the_defaults_of_transformers():
    found = config_from({"model_type": "mllama", "text_config": {}, "vision_config": {}})
    defaults = transformers.MllamaConfig()
    assert found.n_layers + len(found.cross_layers) == defaults.text_config.num_hidden_layers
    assert found.vision.tile_px == defaults.vision_config.image_size == 448
    assert found.rope_scaling is None and found.rope_theta == 5e5
    assert found.norm_eps == defaults.text_config.rms_norm_eps
    assert found.image_id == defaults.image_token_index


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("vision_config", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu', and only 'gelu'"),
    ("vision_config", {"norm_eps": 1e-6}, "norm_eps is 1e-06, and only 1e-05"),
    ("vision_config", {"num_channels": 1}, "num_channels is 1"),
    ("vision_config", {"use_rope": True}, "use_rope is not a key that is known"),
    ("vision_config", {"vision_output_dim": 6400}, "vision_output_dim is 6400, not hidden_size"),
    ("vision_config", {"image_size": [448, 560]}, r"tile_px must be an int above 0; got \[448"),
    ("vision_config", {"supported_aspect_ratios": [[1, 1], [2, 1]]}, "number all canvases of at"),
    ("vision_config", {"max_num_tiles": 10**9}, "max_num_tiles is 1000000000, not from 1 to 64"),
    ("vision_config", {"num_hidden_layers": 10**9}, "the files hold 906 tensors"),
    ("vision_config", {"intermediate_layers_indices": [3, 3, 15, 23, 30]}, "ascending numbers"),
    ("text_config", {"cross_attention_layers": [3, 4]}, "text layer must follow each of"),
    ("text_config", {"cross_attention_layers": [39]}, "text layer must follow each of"),
    ("text_config", {"cross_attention_layers": [40]}, "numbers of layers below .*=40"),
    ("text_config", {"cross_attention_layers": []}, "at least one"),
    ("text_config", {"num_hidden_layers": 10**9}, "the files hold 906 tensors"),
    ("text_config", {"dropout": 0.1}, "dropout in text_config of config.json must be 0"),
    ("text_config", {"tie_word_embeddings": True}, "more rows in its embedding than in its head"),
    ("text_config", {"model_type": "llama"}, "must say \"model_type\": \"mllama_text_model\""),
    ("text_config", {"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu'"),
])
def test_a_config_of_another_model_is_refused(part, changes, message):
    with pytest.raises(ValueError, match=message):
        config_from(PUBLISHED | {part: PUBLISHED[part] | changes}, max_layers=906)


@pytest.mark.parametrize(("changes", "message"), [
    ({"architectures": ["MllamaForCausalLM"]}, "must be for a MllamaForConditionalGeneration"),
    ({"image_token_index": 7}, "image_id must be one of the ids after the vocabulary"),
    ({"image_token_id": 128257}, "two names of one number"),
    ({"projector_hidden_act": "gelu"}, "projector_hidden_act cannot be read"),
    ({"text_config": []}, "text_config in config.json must be a JSON object"),
])
def test_other_keys_of_the_whole_config_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config_from(PUBLISHED | changes)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(is_tied=True), "a head apart from the embedding"),
    (dict(n_image_ids=4), "8 rows after the vocabulary; got n_image_ids=4"),
    (dict(has_qkv_bias=True, has_wo_bias=True), "no biases in the text model"),
])
def test_what_a_config_json_cannot_describe_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config_to_seeing(dataclasses.replace(CONFIG, **changes), dtype=torch.float32, text_ids={})


# --- the tensors ----------------------------------------------------------------------------------


def test_the_tensors_of_the_released_layout_have_the_published_shapes():
    shapes = translation(HUGGING_FACE, family.config("llama-3.2-11b-vision-instruct")).theirs
    assert len(shapes) == 906
    assert shapes["language_model.model.embed_tokens.weight"] == (128_264, 4096)
    assert shapes["language_model.lm_head.weight"] == (128_256, 4096)
    assert shapes["vision_model.patch_embedding.weight"] == (1280, 3, 14, 14)
    assert shapes["vision_model.gated_positional_embedding.tile_embedding.weight"] == (
        9, 4 * 1601 * 1280)
    assert shapes["multi_modal_projector.weight"] == (4096, 7680)
    assert shapes["language_model.model.layers.38.cross_attn.q_norm.weight"] == (128,)
    assert shapes["language_model.model.layers.39.self_attn.q_proj.weight"] == (4096, 4096)


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("vision_model.class_embedding"), "vision_model.class_embedding is missing"),
    (lambda t: t.update(extra=torch.zeros(2)), "extra is not of this model"),
    (lambda t: t.update({"multi_modal_projector.bias": torch.zeros(3)}),
     r"multi_modal_projector.bias is \(3,\), not \(64,\)"),
    (lambda t: t.update({"language_model.model.embed_tokens.weight": torch.zeros(520, 64)}),
     r"embed_tokens.weight is \(520, 64\), not \(528, 64\)"),
    (lambda t: t.update({"vision_model.gated_positional_embedding.tile_embedding.weight":
                         torch.zeros(9, 4 * 10 * 32)}),
     r"tile_embedding.weight is \(9, 1280\), not \(9, 640\)"),
])
def test_tensors_that_are_not_the_models_are_named(change, message, folder):
    edit_safetensors(folder, change)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("text_config", {"hidden_size": 32}, r"embed_tokens.weight is \(528, 64\), not \(528, 32\)"),
    ("vision_config", {"image_size": 42}, r"gated_positional_embedding.embedding is \(5, 32\), "),
    ("text_config", {"cross_attention_layers": [1]}, "cross_attn.k_norm.weight is not of this"),
])
def test_an_adapter_for_another_width_depth_or_grid_is_refused(part, changes, message, folder):
    edit_part(folder, part, **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


# --- how images are cut ---------------------------------------------------------------------------


def test_other_colors_of_the_processor_reach_the_model(folder):
    edit_json(folder / "preprocessor_config.json", image_mean=[0.5] * 3, image_std=[0.25] * 3)
    tiling = load(folder)[0].tiling
    assert tiling.mean == (0.5,) * 3 and tiling.std == (0.25,) * 3


@pytest.mark.parametrize(("changes", "message"), [
    ({"size": {"height": 560, "width": 560}}, "the encoder has tiles of 28 x 28"),
    ({"max_image_tiles": 6}, "max_image_tiles is 6, and the encoder has 4"),
    ({"resample": 3}, "resample is 3, and only 2"),
    ({"do_pad": False}, "do_pad is False, and only True"),
    ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type is 'CLIPImageP"),
    ({"sharpen": 1}, "sharpen is not a key that is known"),
    ({"image_mean": None}, "image_mean is missing"),
    ({"image_std": [0, 1, 1]}, "must be above 0"),
    ({"image_mean": "red"}, "must be three finite numbers"),
])
def test_a_processor_that_would_make_other_pixels_is_refused(changes, message, folder):
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_model_that_sees_needs_a_processor_in_one_file_or_inside_another(folder):
    file = folder / "preprocessor_config.json"
    (folder / "processor_config.json").write_text(json.dumps(
        {"processor_class": "MllamaProcessor", "image_processor": json.loads(file.read_text())}))
    file.unlink()
    assert open_checkpoint(folder).tiling == Tiling(size_px=28)
    (folder / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="needs a preprocessor_config.json, which says how"):
        load(folder)


def test_a_written_tiling_is_read_as_the_same(tmp_path):
    tiling = Tiling(size_px=28, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(tiling_to(tiling)))
    assert read_tiling(tmp_path, CONFIG.vision) == tiling


# --- the tokenizer --------------------------------------------------------------------------------


def test_the_released_tokenizer_has_one_id_after_the_vocabulary(made):
    opened = open_checkpoint(made[0])
    assert opened.tokenizer().vocab_size == opened.config.vocab_size + 1 < opened.config.n_ids


def test_a_tokenizer_whose_image_has_another_id_is_refused(folder):
    edit_json(folder / "config.json", image_token_index=IMAGE + 1)
    with pytest.raises(ValueError, match=re.escape(
            "an image has the id 521 in this model; in ") + ".*<|image|> is 520"):
        load(folder)


def test_the_text_model_of_a_loaded_one_can_be_taken_out_and_written(made, tmp_path):
    text = detach(load(made[0])[0])
    with pytest.raises(ValueError, match="the tokenizer has 521 ids and the embedding 520 rows"):
        hugging_face.write(tmp_path / "text", text, tokenizer=tokenizer())

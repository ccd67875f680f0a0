"""The JSON files of a model that sees, in Hugging Face's layout <-> our config and tiling.

config.json has one object for the text model and one for the encoder. preprocessor_config.json
says how images are cut. Both are read strictly: a key that would change what the model computes is
refused. A missing key has the default of transformers' classes, which is the 11B model.

`intermediate_layers_indices` is read and written unchanged. In the released files it is
[3, 7, 15, 23, 30] and means the states that *enter* these layers, because Meta trained the weights
with these states. Meta's code takes them, as ours does, and so did transformers until 4.54.1.
transformers from 4.57.1 on (seen until 5.24.0) reads the same numbers as the states that *leave*
the layers, one layer later, and so computes something else from the same files. To compare logits
with such a release, give its config each number minus 1.

Notebook 22. Source: transformers, models/mllama/configuration_mllama.py and
image_processing_mllama.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.hugging_face_config import IGNORED, config_to
from llama_from_scratch.checkpoint.hugging_face_config import config_from as text_config_from
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.checkpoint.vision_names import merged_layers
from llama_from_scratch.config import LlamaConfig, VisionConfig, VisionLlamaConfig
from llama_from_scratch.foreign import is_there, shown
from llama_from_scratch.vision.tiles import Tiling, canvases

KIND, _TEXT_KIND, _VISION_KIND = "mllama", "mllama_text_model", "mllama_vision_model"
ARCHITECTURE = "MllamaForConditionalGeneration"
N_IMAGE_IDS = 8
"""How many rows transformers' embedding has after the vocabulary."""
_TEXT_DEFAULTS = {
    "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072}
_TEXT_THETA, _CROSS_LAYERS, _IMAGE_ID = 5e5, list(range(3, 40, 5)), 128256
_SIZES = {"hidden_size": "dim", "attention_heads": "n_heads", "intermediate_size": "ffn_dim",
          "num_hidden_layers": "n_local_layers", "num_global_layers": "n_global_layers",
          "image_size": "tile_px", "patch_size": "patch_px", "max_num_tiles": "max_tiles"}
_VISION_DEFAULTS = {
    "hidden_size": 1280, "attention_heads": 16, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_global_layers": 8, "image_size": 448, "patch_size": 14, "max_num_tiles": 4,
    "intermediate_layers_indices": [3, 7, 15, 23, 30], "vision_output_dim": 7680}
# What the encoder computes; another value means another model.
_VISION_MUST_BE = {"hidden_act": ("gelu",), "num_channels": (3,), "norm_eps": (1e-5,),
                   "model_type": (_VISION_KIND,), "tie_word_embeddings": (False, True)}
_READ = {"model_type", "architectures", "text_config", "vision_config", "image_token_index",
         "image_token_id"}

_PROCESSOR, _NESTED = "preprocessor_config.json", "processor_config.json"
_PROCESSOR_KINDS = ("MllamaImageProcessor", "MllamaImageProcessorFast", "MllamaImageProcessorPil")
_BILINEAR = 2
_PROCESSOR_MUST_BE = {
    "do_convert_rgb": (True,), "do_normalize": (True,), "do_pad": (True,), "do_rescale": (True,),
    "do_resize": (True,), "resample": (_BILINEAR,), "rescale_factor": (1 / 255,),
    "image_processor_type": _PROCESSOR_KINDS, "feature_extractor_type": _PROCESSOR_KINDS,
    "do_center_crop": (False,), "do_pan_and_scan": (False,)}
_PROCESSOR_NEEDED = ("image_mean", "image_std", "max_image_tiles", "size")
_PROCESSOR_IGNORED = {"processor_class", "return_tensors", "data_format", "input_data_format",
                      "device", "disable_grouping", "crop_size", "default_to_square", "auto_map",
                      "_processor_class", "_valid_processor_keys", "image_seq_length"}


def config_from(
    about: Any, *, where: str | Path = "config.json", max_layers: int | None = None
) -> VisionLlamaConfig:
    """Returns our config for the content of a config.json with the `model_type` "mllama".

    `max_layers`: as in `hugging_face_config.config_from`. Raises ValueError naming each key that is
    missing, unknown, or requires other arithmetic.
    """
    if not isinstance(about, Mapping) or about.get("model_type") != KIND:
        raise ValueError(f"{where} must say \"model_type\": \"{KIND}\" for a model that sees")
    about = {key: value for key, value in about.items() if value is not None}
    if (made_for := about.get("architectures", [ARCHITECTURE])) != [ARCHITECTURE]:
        raise ValueError(f"{where} must be for a {ARCHITECTURE}; got {shown(made_for)}. Load a "
                         "model of that class")
    parts = {key: about.get(key, {}) for key in ("text_config", "vision_config")}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise ValueError(f"{key} in {where} must be a JSON object; got {shown(part)}. Download "
                             "it again")
    unknown = [key for key in about if key not in _READ | IGNORED]
    if about.get("tie_word_embeddings", False) is not False:
        unknown.append("tie_word_embeddings")
    if unknown:
        raise ValueError(f"{where} describes no model of this version: {', '.join(unknown[:8])} "
                         "cannot be read. Remove a key only if you are sure that it does not "
                         "change what the model computes")
    text, cross_layers = _text(parts["text_config"], where=f"text_config of {where}",
                               max_layers=max_layers)
    vision = _vision(parts["vision_config"], text, where=f"vision_config of {where}",
                     max_layers=max_layers)
    ids = [about[key] for key in ("image_token_index", "image_token_id") if key in about]
    if len(set(map(str, ids))) > 1:
        raise ValueError("image_token_index and image_token_id are two names of one number; "
                         f"{where} has {ids[0]} and {ids[1]}. Correct one")
    try:
        return VisionLlamaConfig.seeing(text, vision=vision, cross_layers=cross_layers,
                                 image_id=ids[0] if ids else _IMAGE_ID, n_image_ids=N_IMAGE_IDS)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def _text(
    about: Mapping[str, Any], *, where: str, max_layers: int | None
) -> tuple[LlamaConfig, tuple[int, ...]]:
    """Returns the config of the text model, and the text layers with a block before them."""
    about = _TEXT_DEFAULTS | {key: value for key, value in about.items() if value is not None}
    if (kind := about.pop("model_type", _TEXT_KIND)) != _TEXT_KIND:
        raise ValueError(f"{where} must say \"model_type\": \"{_TEXT_KIND}\"; got {shown(kind)}")
    if (dropout := about.pop("dropout", 0)) != 0:
        raise ValueError(f"dropout in {where} must be 0; got {shown(dropout)}. Correct it")
    about.pop("architectures", None)
    rope = about.get("rope_parameters")
    if "rope_theta" not in about and not (isinstance(rope, Mapping) and "rope_theta" in rope):
        about["rope_theta"] = _TEXT_THETA
    n_merged, merged = about["num_hidden_layers"], about.pop("cross_attention_layers",
                                                             _CROSS_LAYERS)
    if type(n_merged) is not int or (max_layers is not None and n_merged > max_layers):
        raise ValueError(f"num_hidden_layers in {where} is {shown(n_merged)}, and the files hold "
                         f"{max_layers} tensors in all. Download it again")
    cross_layers = _cross_layers(merged, n_merged, where=where)
    about |= {"model_type": "llama", "num_hidden_layers": n_merged - len(cross_layers)}
    text = text_config_from(about, where=where, max_layers=max_layers)
    if text.is_tied:
        raise ValueError("a model that sees has more rows in its embedding than in its head, so "
                         f"they cannot be one; {where} has tie_word_embeddings. Set it to false")
    return text, cross_layers


def _cross_layers(merged: Any, n_merged: int, *, where: str) -> tuple[int, ...]:
    """Returns our numbers for cross_attention_layers, which count text layers and blocks together.

    Each block must have a text layer right after it, which is where our models have them.
    """
    if (not isinstance(merged, list) or not all(type(i) is int for i in merged) or not merged
            or merged != sorted(set(merged)) or not 0 <= merged[0] <= merged[-1] < n_merged):
        raise ValueError("cross_attention_layers must be ascending numbers of layers below "
                         f"num_hidden_layers={n_merged}, at least one; {where} has "
                         f"{shown(merged)}. Correct it")
    found = tuple(number - j for j, number in enumerate(merged))
    if len(set(found)) < len(found) or found[-1] >= n_merged - len(merged):
        raise ValueError("a text layer must follow each of cross_attention_layers; "
                         f"{where} has {shown(merged)} of {n_merged} layers, which is not built "
                         "here")
    return found


def _vision(
    about: Mapping[str, Any], text: LlamaConfig, *, where: str, max_layers: int | None
) -> VisionConfig:
    about = {key: value for key, value in about.items() if value is not None}
    if "num_attention_heads" in about:  # the same number's name in their other configs
        about.setdefault("attention_heads", about.pop("num_attention_heads"))
    about = _VISION_DEFAULTS | about
    for key in ("image_size", "patch_size"):
        value = about[key]
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            about[key] = value[0]
    problems = [f"{key} is {shown(about[key])}, and only {allowed[0]!r} can be computed"
                for key, allowed in _VISION_MUST_BE.items()
                if key in about and about[key] not in allowed]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_VISION_DEFAULTS, *_VISION_MUST_BE, "supported_aspect_ratios",
                                "architectures", *IGNORED}]
    layers, n_tiles = about["intermediate_layers_indices"], about["max_num_tiles"]
    if not isinstance(layers, list):
        problems.append(f"intermediate_layers_indices is {shown(layers)}, not a list")
    elif about["vision_output_dim"] != _product(about["hidden_size"], 1 + len(layers)):
        problems.append(f"vision_output_dim is {shown(about['vision_output_dim'])}, not "
                        f"hidden_size times {1 + len(layers)}, the last state and "
                        f"{len(layers)} intermediate ones")
    for key in ("num_hidden_layers", "num_global_layers"):
        if type(about[key]) is not int or (max_layers is not None and about[key] > max_layers):
            problems.append(f"{key} is {shown(about[key])}, and the files hold {max_layers} "
                            "tensors in all")
    if type(n_tiles) is not int or not 0 < n_tiles <= _MOST_TILES:
        problems.append(f"max_num_tiles is {shown(n_tiles)}, not from 1 to {_MOST_TILES}")
    elif (ratios := about.get("supported_aspect_ratios")) is not None and (
            ratios != [list(canvas) for canvas in canvases(n_tiles)]):
        problems.append(f"supported_aspect_ratios is {shown(ratios)}, and image processors number "
                        f"all canvases of at most {n_tiles} tiles in the order "
                        f"{canvases(n_tiles)[:3]} and so on")
    if problems:
        raise ValueError(f"{where} describes no encoder of this version: "
                         f"{'; '.join(problems[:8])}. Remove a key only if you are sure that it "
                         "does not change what the model computes")
    try:
        return VisionConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()}, norm_eps=1e-5,
            intermediate_layers=tuple(layers), aspect_ratios=tuple(canvases(n_tiles)),
            output_dim=text.dim)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no encoder of this version: {error}") from error


_MOST_TILES = 64
"""A forged number would make a long list of canvases; the released models have 4."""


def _product(width: Any, n: int) -> Any:
    return width * n if type(width) is int else None


def config_to_seeing(
    config: VisionLlamaConfig, *, dtype: torch.dtype, text_ids: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of a config.json, with keys that both transformers 4 and 5 read.

    `text_ids`: entries about tokens, which are the text model's. Raises ValueError for a config
    that it cannot describe.
    """
    vision = config.vision
    if config.is_tied:
        raise ValueError("Hugging Face's models that see have a head apart from the embedding, "
                         "which has more rows; got is_tied=True. Write our own format")
    if config.n_image_ids != N_IMAGE_IDS:
        raise ValueError(f"Hugging Face's embedding has {N_IMAGE_IDS} rows after the vocabulary; "
                         f"got n_image_ids={config.n_image_ids}. Write our own format")
    if vision.norm_eps != 1e-5:
        raise ValueError("transformers computes two of the encoder's norms with 1e-05, whatever "
                         f"the file says; got norm_eps={vision.norm_eps}. Write our own format")
    if vision.aspect_ratios != tuple(canvases(vision.max_tiles)):
        raise ValueError("image processors number all canvases of at most "
                         f"{vision.max_tiles} tiles; got aspect_ratios={vision.aspect_ratios}. "
                         "Write our own format")
    merged = merged_layers(config.n_layers, config.cross_layers)
    text = config_to(config.text, dtype=dtype)
    del text["architectures"], text["head_dim"], text["attention_bias"], text["mlp_bias"]
    if config.explicit_head_dim is not None or config.has_qkv_bias or config.has_wo_bias or (
            config.has_ffn_bias):
        raise ValueError("transformers' models that see have no biases in the text model, and "
                         "heads that share dim equally. Write our own format")
    text |= {"model_type": _TEXT_KIND, "cross_attention_layers": list(merged.cross),
             "num_hidden_layers": len(merged.text) + len(merged.cross), **text_ids}
    eyes = {theirs: getattr(vision, ours) for theirs, ours in _SIZES.items()}
    eyes |= {"model_type": _VISION_KIND, "hidden_act": "gelu", "num_channels": 3,
             "norm_eps": vision.norm_eps, "vision_output_dim": vision.n_features,
             "intermediate_layers_indices": list(vision.intermediate_layers),
             "supported_aspect_ratios": [list(canvas) for canvas in vision.aspect_ratios]}
    return {"architectures": [ARCHITECTURE], "model_type": KIND,
            "image_token_index": config.image_id, "text_config": text, "vision_config": eyes,
            "torch_dtype": str(dtype).removeprefix("torch.")}


def read_processor(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Returns the file that says how images are cut, and the JSON object that says it.

    Raises ValueError if there is neither a preprocessor_config.json nor a processor_config.json.
    """
    file = folder / _PROCESSOR
    if is_there(file):
        about = read_json(file)
    elif is_there(folder / _NESTED) and "image_processor" in (nested := read_json(
            folder / _NESTED)):
        file, about = folder / _NESTED, nested["image_processor"]
    else:
        raise ValueError(f"a model that sees needs a {_PROCESSOR}, which says how images are cut; "
                         f"{folder} has none. Download it to this folder")
    if not isinstance(about, Mapping):
        raise ValueError(f"{file} must hold a JSON object; got {type(about).__name__}. Download it "
                         "again")
    return file, about


def read_tiling(folder: Path, vision: VisionConfig) -> Tiling:
    """Returns how images are cut, from preprocessor_config.json or processor_config.json.

    Raises ValueError if neither is there, if a key would make other pixels than ours, or if the
    tiles are not the encoder's.
    """
    file, about = read_processor(folder)
    about = {key: value for key, value in about.items() if value is not None}
    problems = [f"{key} is missing" for key in _PROCESSOR_NEEDED if key not in about]
    problems += [f"{key} is {shown(about[key])}, and only {allowed[0]!r} can be computed"
                 for key, allowed in _PROCESSOR_MUST_BE.items()
                 if key in about and about[key] not in allowed]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_PROCESSOR_NEEDED, *_PROCESSOR_MUST_BE, *_PROCESSOR_IGNORED}]
    edge = {"height": vision.tile_px, "width": vision.tile_px}
    if about.get("size", edge) != edge:
        problems.append(f"size is {shown(about['size'])}, and the encoder has tiles of "
                        f"{vision.tile_px} x {vision.tile_px}")
    if about.get("max_image_tiles", vision.max_tiles) != vision.max_tiles:
        problems.append(f"max_image_tiles is {shown(about['max_image_tiles'])}, and the encoder "
                        f"has {vision.max_tiles}")
    if problems:
        raise ValueError(f"{file} does not describe the images of this model: "
                         f"{'; '.join(problems[:8])}. Use both files of the same checkpoint")
    mean, std = (tuple(value) if isinstance(value := about[key], list) else value
                 for key in ("image_mean", "image_std"))
    try:
        return Tiling(size_px=vision.tile_px, max_tiles=vision.max_tiles, mean=mean, std=std)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} does not describe the images of this model: {error}") from error


def tiling_to(tiling: Tiling) -> dict[str, Any]:
    """Returns the content of a preprocessor_config.json."""
    return {"do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
            "do_resize": True, "image_mean": list(tiling.mean), "image_std": list(tiling.std),
            "image_processor_type": _PROCESSOR_KINDS[0], "max_image_tiles": tiling.max_tiles,
            "resample": _BILINEAR, "rescale_factor": 1 / 255,
            "size": {"height": tiling.size_px, "width": tiling.size_px}}

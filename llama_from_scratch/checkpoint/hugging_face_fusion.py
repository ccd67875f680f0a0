"""The JSON files of a whole Llama 4 in Hugging Face's layout <-> our config and tiling.

config.json has one object for the text model (`hugging_face_llama4`) and one for the encoder.
preprocessor_config.json says how images are cut. Both are read strictly: a key that would change
what the model computes is refused. A missing key has the default of transformers' classes. If a
default does not fit the other sizes, such as the one for `vision_output_dim`, the file is refused.

Notebook 24. Source: transformers, models/llama4/configuration_llama4.py and
image_processing_llama4.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint import hugging_face_llama4, image_ids
from llama_from_scratch.checkpoint.hugging_face_config import IGNORED
from llama_from_scratch.checkpoint.hugging_face_vision import read_processor
from llama_from_scratch.config import FusionLlamaConfig, TileEncoderConfig
from llama_from_scratch.foreign import shown
from llama_from_scratch.vision.tiles import GridTiling

KIND, _VISION_KIND = "llama4", "llama4_vision_model"
ARCHITECTURE = "Llama4ForConditionalGeneration"
_IDS = {"boi_token_index": "image_start", "eoi_token_index": "image_end",
        "image_token_index": "patch"}
_OTHER_NAMES = {"boi_token_id": "boi_token_index", "eoi_token_id": "eoi_token_index",
                "image_token_id": "image_token_index"}
_DEFAULT_IDS = {"boi_token_index": 200_080, "eoi_token_index": 200_081,
                "image_token_index": 200_092}
_READ = {"model_type", "architectures", "text_config", "vision_config", *_IDS, *_OTHER_NAMES}
_SIZES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "intermediate_size": "ffn_dim",
          "num_hidden_layers": "n_layers", "image_size": "tile_px", "patch_size": "patch_px",
          "projector_output_dim": "adapter_dim"}
_DEFAULTS = {
    "hidden_size": 768, "num_attention_heads": 16, "intermediate_size": 5632,
    "num_hidden_layers": 34, "image_size": 448, "patch_size": 14, "projector_input_dim": 4096,
    "projector_output_dim": 4096, "vision_output_dim": 7680, "pixel_shuffle_ratio": 0.5}
# What the encoder computes; another value means another model.
_MUST_BE = {"hidden_act": ("gelu",), "num_channels": (3,), "norm_eps": (1e-5,),
            "model_type": (_VISION_KIND,), "attention_dropout": (0,), "projector_dropout": (0,),
            "multi_modal_projector_bias": (False,), "vision_feature_select_strategy": ("default",),
            "vision_feature_layer": (-1,)}
_TIED = "tie_word_embeddings"
_ROPE, _THETA, _NORM_EPS = ("rope_theta", "rope_parameters"), 1e4, 1e-5

_PROCESSOR = "preprocessor_config.json"
_PROCESSOR_KINDS = ("Llama4ImageProcessorFast", "Llama4ImageProcessor")
_BILINEAR, _MOST_TILES = 2, 64
_PROCESSOR_MUST_BE = {
    "do_convert_rgb": (True,), "do_normalize": (True,), "do_rescale": (True,),
    "do_resize": (True,), "resample": (_BILINEAR,), "rescale_factor": (1 / 255,),
    "image_processor_type": _PROCESSOR_KINDS, "do_center_crop": (False,), "do_pad": (False, True)}
_PROCESSOR_DEFAULTS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_patches": 16,
                       "resize_to_max_canvas": False}
_PROCESSOR_IGNORED = {"processor_class", "return_tensors", "data_format", "input_data_format",
                      "device", "disable_grouping", "crop_size", "default_to_square", "auto_map",
                      "pad_size", "_processor_class", "_valid_processor_keys", "image_seq_length"}


def config_from(
    about: Any, *, max_tiles: int, where: str | Path = "config.json", max_layers: int | None = None
) -> FusionLlamaConfig:
    """Returns our config for the content of a config.json with the `model_type` "llama4".

    `max_tiles`: of an image, which the file does not say (`read_tiling`). `max_layers`: as in
    `hugging_face_config.config_from`. Raises ValueError naming each key that is missing, unknown,
    or requires other arithmetic.
    """
    if not isinstance(about, Mapping) or about.get("model_type") != KIND:
        raise ValueError(f"{where} must say \"model_type\": \"{KIND}\" for a whole Llama 4. "
                         "Download it again")
    about = {key: value for key, value in about.items() if value is not None}
    if (made_for := about.get("architectures", [ARCHITECTURE])) != [ARCHITECTURE]:
        raise ValueError(f"{where} must be for a {ARCHITECTURE}; got {shown(made_for)}. Load a "
                         "model of that class")
    parts = {key: about.get(key, {}) for key in ("text_config", "vision_config")}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise ValueError(f"{key} in {where} must be a JSON object; got {shown(part)}. Download "
                             "it again")
    unknown = [key for key in about if key not in _READ | IGNORED | {_TIED}]
    unknown += [_TIED] * (about.get(_TIED, False) is not False)
    if unknown:
        raise ValueError(f"{where} describes no model of this version: {', '.join(unknown[:8])} "
                         "cannot be read. Remove a key only if you are sure that it does not "
                         "change what the model computes")
    text = hugging_face_llama4.config_from(
        {key: value for key, value in parts["text_config"].items() if key != "architectures"},
        where=f"text_config of {where}", max_layers=max_layers)
    vision = _vision(parts["vision_config"], output_dim=text.dim, max_tiles=max_tiles,
                     where=f"vision_config of {where}", max_layers=max_layers)
    try:
        return FusionLlamaConfig.seeing(text, vision=vision,
                                        image_ids=image_ids.ids_from(_image_start(about, where)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def _image_start(about: Mapping[str, Any], where: object) -> int:
    """Returns the id with which an image begins.

    Raises ValueError unless the three ids of the file are as far apart as the released ones.
    """
    given = dict(_DEFAULT_IDS)
    for key in (*_IDS, *_OTHER_NAMES):
        name = _OTHER_NAMES.get(key, key)
        if key not in about:
            continue
        if type(about[key]) is not int or about.get(name, about[key]) != about[key]:
            raise ValueError(f"{name} must be one id; {where} has {shown(about.get(name))} and "
                             f"{shown(about[key])}. Correct it")
        given[name] = about[key]
    start = given["boi_token_index"]
    wanted = {key: number - _DEFAULT_IDS["boi_token_index"] + start
              for key, number in _DEFAULT_IDS.items()}
    if given != wanted:
        raise ValueError("the ids of images must follow each other as in the released vocabulary: "
                         f"with boi_token_index {start} they are {wanted}; {where} has {given}. "
                         "Correct them")
    return start


def _vision(
    about: Mapping[str, Any], *, output_dim: int, max_tiles: int, where: str,
    max_layers: int | None,
) -> TileEncoderConfig:
    about = _DEFAULTS | {key: value for key, value in about.items() if value is not None}
    for key in ("image_size", "patch_size"):
        value = about[key]
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            about[key] = value[0]
    problems = [f"{key} is {shown(about[key])}, and only {allowed[0]!r} can be computed"
                for key, allowed in _MUST_BE.items()
                if key in about and about[key] not in allowed]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_DEFAULTS, *_MUST_BE, *_ROPE, "architectures", *IGNORED}]
    n_layers, ratio = about["num_hidden_layers"], about["pixel_shuffle_ratio"]
    if type(n_layers) is not int or (max_layers is not None and n_layers > max_layers):
        problems.append(f"num_hidden_layers is {shown(n_layers)}, and the files hold {max_layers} "
                        "tensors in all")
    shuffle = round(1 / ratio) if type(ratio) in (int, float) and 0 < ratio <= 1 else 0
    if not shuffle or shuffle * ratio != 1:
        problems.append(f"pixel_shuffle_ratio is {shown(ratio)}, not 1 divided by a whole number")
    widths = {key: about[key] for key in ("projector_input_dim", "projector_output_dim",
                                          "vision_output_dim")}
    if len(set(map(str, widths.values()))) > 1:
        problems.append("the adapter has one width, and " + ", ".join(
            f"{key} is {shown(value)}" for key, value in widths.items()))
    if (type(about["hidden_size"]) is int
            and about["intermediate_size"] != about["hidden_size"] * shuffle**2):
        problems.append(f"intermediate_size is {shown(about['intermediate_size'])}; it is also the "
                        "width of the adapter's input, so it must be hidden_size times "
                        f"{shuffle**2}")
    theta = _theta(about, problems)
    if problems:
        raise ValueError(f"{where} describes no encoder of this version: "
                         f"{'; '.join(problems[:8])}. Remove a key only if you are sure that it "
                         "does not change what the model computes")
    try:
        return TileEncoderConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()}, norm_eps=_NORM_EPS,
            max_tiles=max_tiles, output_dim=output_dim, shuffle=shuffle, rope_theta=theta)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no encoder of this version: {error}") from error


def _theta(about: Mapping[str, Any], problems: list[str]) -> Any:
    """Returns RoPE's theta of the encoder, and adds to `problems` if it is scaled."""
    rope = about.get("rope_parameters", {})
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default" or (
            rope.keys() - {"rope_type", "rope_theta"}):
        problems.append(f"rope_parameters is {shown(rope)}, and only rope_theta can be computed")
        return _THETA
    thetas = [part["rope_theta"] for part in (about, rope) if "rope_theta" in part]
    if any(theta != thetas[0] for theta in thetas):
        problems.append(f"rope_theta is given twice, as {shown(thetas[0])} and {shown(thetas[1])}")
    return thetas[0] if thetas else _THETA


def config_to(
    config: FusionLlamaConfig, *, dtype: torch.dtype, text_ids: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of a config.json, with keys that both transformers 4 and 5 read.

    `text_ids`: entries about tokens, which are the text model's. Raises ValueError for a config
    that it cannot describe.
    """
    vision, ids = config.vision, config.image_ids
    if config.is_tied:
        raise ValueError("a whole Llama 4 has a head apart from the embedding in Hugging Face's "
                         "layout; got is_tied=True. Write our own format")
    if vision.norm_eps != _NORM_EPS:
        raise ValueError("transformers computes the norms of the encoder with 1e-05, whatever the "
                         f"file says; got norm_eps={vision.norm_eps}. Write our own format")
    if vision.ffn_dim != vision.dim * vision.shuffle**2:
        raise ValueError("config.json has one key for the width of the encoder's feed-forward and "
                         f"of the adapter's input, so ffn_dim must be {vision.dim} * "
                         f"{vision.shuffle}**2; got {vision.ffn_dim}. Write our own format")
    if ids != image_ids.ids_from(ids.image_start):
        raise ValueError("config.json names only three ids of images, and the others follow as in "
                         f"the released vocabulary: {image_ids.ids_from(ids.image_start)}; got "
                         f"{ids}. Write our own format")
    text = hugging_face_llama4.config_to(config.text, dtype=dtype)
    del text["architectures"]
    eyes = {theirs: getattr(vision, ours) for theirs, ours in _SIZES.items()}
    eyes |= {"model_type": _VISION_KIND, "hidden_act": "gelu", "num_channels": 3,
             "norm_eps": vision.norm_eps, "projector_input_dim": vision.adapter_dim,
             "vision_output_dim": vision.adapter_dim, "pixel_shuffle_ratio": 1 / vision.shuffle,
             "rope_theta": vision.rope_theta, "vision_feature_select_strategy": "default",
             "multi_modal_projector_bias": False}
    return {"architectures": [ARCHITECTURE], "model_type": KIND,
            **{theirs: getattr(ids, ours) for theirs, ours in _IDS.items()},
            "text_config": text | dict(text_ids), "vision_config": eyes,
            "torch_dtype": str(dtype).removeprefix("torch.")}


def read_tiling(folder: Path) -> GridTiling:
    """Returns how images are cut, from preprocessor_config.json or processor_config.json.

    Raises ValueError if neither is there, or if a key would make other pixels than ours.
    """
    file, about = read_processor(folder)
    about = _PROCESSOR_DEFAULTS | {key: value for key, value in about.items() if value is not None}
    problems = [f"{key} is {shown(about[key])}, and only {allowed[0]!r} can be computed"
                for key, allowed in _PROCESSOR_MUST_BE.items()
                if key in about and about[key] not in allowed]
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {"size", *_PROCESSOR_DEFAULTS, *_PROCESSOR_MUST_BE,
                                *_PROCESSOR_IGNORED}]
    size = about.get("size")
    if not isinstance(size, Mapping) or size.keys() != {"height", "width"} or (
            size["height"] != size["width"]):
        problems.append(f"size is {shown(size)}, not the height and width of a square tile")
    if type(about["max_patches"]) is not int or not 0 < about["max_patches"] <= _MOST_TILES:
        problems.append(f"max_patches is {shown(about['max_patches'])}, not from 1 to "
                        f"{_MOST_TILES}")
    if problems:
        raise ValueError(f"{file} does not describe the images of a Llama 4: "
                         f"{'; '.join(problems[:8])}. Use both files of the same checkpoint")
    mean, std = (tuple(value) if isinstance(value := about[key], list) else value
                 for key in ("image_mean", "image_std"))
    try:
        return GridTiling(size_px=size["height"], max_tiles=about["max_patches"], mean=mean,
                          std=std, fills_canvas=about["resize_to_max_canvas"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} does not describe the images of a Llama 4: {error}") from error


def refuse_other_tiles(tiling: GridTiling, config: FusionLlamaConfig, *, where: object) -> None:
    """Raises ValueError if images would be cut into tiles of another size than the encoder's."""
    if tiling.size_px != config.vision.tile_px:
        raise ValueError(f"images must be cut into tiles of {config.vision.tile_px} pixels, the "
                         f"encoder's; in {where} {_PROCESSOR} has {tiling.size_px}. Use both files "
                         "of the same checkpoint")


def tiling_to(tiling: GridTiling) -> dict[str, Any]:
    """Returns the content of a preprocessor_config.json."""
    return {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": list(tiling.mean), "image_std": list(tiling.std),
            "image_processor_type": _PROCESSOR_KINDS[0], "max_patches": tiling.max_tiles,
            "resample": _BILINEAR, "rescale_factor": 1 / 255,
            "resize_to_max_canvas": tiling.fills_canvas,
            "size": {"height": tiling.size_px, "width": tiling.size_px}}

"""What is special about a whole Llama 4 in Meta's layout: the object "vision_args" of params.json.

It has the sizes of the encoder. The number of tiles, the colors, the ids that write an image and
the constants of norms and of RoPE are in Meta's code.

Notebook 24. Source: llama-models, models/llama4/args.py, preprocess.py and vision/encoder.py.
"""

from collections.abc import Mapping
from typing import Any

from llama_from_scratch import family
from llama_from_scratch.checkpoint import image_ids
from llama_from_scratch.config import (
    FusionLlamaConfig,
    LlamaConfig,
    TileEncoderConfig,
    nearest,
)
from llama_from_scratch.foreign import shown
from llama_from_scratch.vision.tiles import GridTiling

VISION = "vision_args"
_SIZES = {"dim": "dim", "n_layers": "n_layers", "n_heads": "n_heads", "output_dim": "adapter_dim"}
_EDGES = {"image_size": "tile_px", "patch_size": "patch_px"}
_KEYS = (*_SIZES, *_EDGES, "mlp_ratio", "pixel_shuffle_ratio")
_RELEASED = family.config("llama-4-scout-17b-16e").vision


def config_from(
    params: Mapping[str, Any], text: LlamaConfig, *, where: object, max_layers: int = 2**16
) -> FusionLlamaConfig:
    """Returns the config of a whole Llama 4; `text` is its text model's.

    `max_layers`: refuses more layers, because a forged number would allocate memory. Raises
    ValueError for a key that is missing, unknown or has an impossible value.
    """
    given = params[VISION]
    try:
        if not isinstance(given, Mapping):
            raise ValueError(f"{VISION} must be a JSON object; got {shown(given)}")
        if unknown := [key for key in given if key not in _KEYS]:
            raise ValueError(f"{shown(unknown[0])} is not a key of {VISION}; "
                             f"{nearest(unknown[0], _KEYS)}")
        if missing := [key for key in _KEYS if key not in given]:
            raise ValueError(f"{VISION} needs {', '.join(missing)}")
        sizes = {ours: given[theirs] for theirs, ours in _SIZES.items()}
        sizes |= {ours: _edge(given, theirs) for theirs, ours in _EDGES.items()}
        if type(sizes["n_layers"]) is not int or sizes["n_layers"] > max_layers:
            raise ValueError(f"n_layers of {VISION} is {shown(sizes['n_layers'])}, and a file "
                             f"holds {max_layers} tensors in all")
        for key in ("mlp_ratio", "pixel_shuffle_ratio"):
            if type(given[key]) not in (int, float) or not 0 < given[key] < 2**31:
                raise ValueError(f"{key} of {VISION} must be a number above 0; got "
                                 f"{shown(given[key])}")
        shuffle = round(1 / given["pixel_shuffle_ratio"])
        if not shuffle or shuffle * given["pixel_shuffle_ratio"] != 1:
            raise ValueError(f"pixel_shuffle_ratio of {VISION} must be 1 divided by a whole "
                             f"number; got {shown(given['pixel_shuffle_ratio'])}")
        vision = TileEncoderConfig(
            **sizes, ffn_dim=int(given["mlp_ratio"] * sizes["dim"]), shuffle=shuffle,
            max_tiles=_RELEASED.max_tiles, norm_eps=_RELEASED.norm_eps,
            rope_theta=_RELEASED.rope_theta, output_dim=text.dim)
        return FusionLlamaConfig.seeing(text, vision=vision,
                                        image_ids=image_ids.ids_in(text.vocab_size))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}. Correct it, or "
                         "download it again") from error


def _edge(given: Mapping[str, Any], key: str) -> Any:
    size = given[key]
    if not isinstance(size, Mapping) or size.keys() != {"height", "width"} or (
            size["height"] != size["width"]):
        raise ValueError(f"{key} of {VISION} must have an equal height and width; got "
                         f"{shown(size)}")
    return size["height"]


def params_of(config: FusionLlamaConfig) -> dict[str, Any]:
    """Returns the key of params.json about images. Raises ValueError if it cannot describe them."""
    vision = config.vision
    fixed = {key: getattr(_RELEASED, key) for key in ("max_tiles", "norm_eps", "rope_theta")}
    if other := {key: getattr(vision, key) for key, value in fixed.items()
                 if getattr(vision, key) != value}:
        raise ValueError(f"Meta's code fixes {fixed} of the encoder; got {other}. Write another "
                         "format")
    if config.is_tied:
        raise ValueError("a whole Llama 4 has a head apart from the embedding in Meta's layout; "
                         "got is_tied=True. Write our own format")
    if config.image_ids != image_ids.ids_in(config.vocab_size):
        raise ValueError("in Meta's layout the ids of images are where the released tokenizer has "
                         f"them, counted from the last: {image_ids.ids_in(config.vocab_size)}; "
                         f"got {config.image_ids}. Write our own format")
    ratio = vision.ffn_dim / vision.dim
    if int(ratio * vision.dim) != vision.ffn_dim:
        ratio = (vision.ffn_dim + 0.5) / vision.dim
    return {VISION: {
        **{theirs: getattr(vision, ours) for theirs, ours in _SIZES.items()},
        **{theirs: {"height": getattr(vision, ours), "width": getattr(vision, ours)}
           for theirs, ours in _EDGES.items()},
        "mlp_ratio": ratio, "pixel_shuffle_ratio": 1 / vision.shuffle}}


def tiling_of(config: FusionLlamaConfig) -> GridTiling:
    """Returns how images are cut, which is in Meta's code."""
    return GridTiling(size_px=config.vision.tile_px, max_tiles=config.vision.max_tiles)


def refuse_other_tiling(tiling: GridTiling) -> None:
    """Raises ValueError for a tiling that Meta's layout has no file for."""
    if tiling != GridTiling(size_px=tiling.size_px, max_tiles=tiling.max_tiles):
        raise ValueError("Meta's code fixes how images are cut and colors are normalized; got "
                         f"{tiling}. Write another format")

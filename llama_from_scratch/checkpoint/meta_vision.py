"""What is special about models that see in Meta's layout: params.json, gates, tables of places.

params.json names only the tile, the number of tiles and the number of cross-attention blocks. All
other sizes of the encoder are in Meta's code, the same for all releases. For an encoder of another
size, params.json gets the key `vision_encoder` in addition, which only we read.

The files hold each table of places as one grid (`vision.tables`). If the grid is for tiles of
another size than params.json names, it is fitted by interpolation, as Meta's code does when it
loads a model. A gate may be stored once, or once for each channel.

Notebook 22. Source: llama-models, models/llama3/args.py and models/llama3/multimodal/model.py.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llama_from_scratch.checkpoint.translation import Translation
from llama_from_scratch.config import (
    FusionLlamaConfig,
    LlamaConfig,
    VisionConfig,
    VisionLlamaConfig,
)
from llama_from_scratch.foreign import shown
from llama_from_scratch.vision.tables import can_be_resized, resized, resized_in_tile
from llama_from_scratch.vision.tiles import Tiling, canvases

TEXT = "text_model."
"""The beginning of the names of the text model's tensors."""
N_IMAGE_IDS = 8
"""The rows of the embedding for images, of which only the first is used."""
TILE, N_TILES, N_BLOCKS = (
    "vision_chunk_size", "vision_max_num_chunks", "vision_num_cross_attention_layers")
ENCODER = "vision_encoder"
"""Our key for the sizes that Meta's code fixes."""
_FIXED = {"dim": 1280, "n_heads": 16, "ffn_dim": 5120, "n_local_layers": 32, "n_global_layers": 8,
          "intermediate_layers": [3, 7, 15, 23, 30], "patch_px": 14}
"""The encoder of all releases."""
_NORM_EPS, _MOST_TILES = 1e-5, 64
_OFF = (None, False, 0, -1)
"""The values of a key that switch its part off."""


def is_seeing(params: Mapping[str, Any]) -> bool:
    """Returns whether params.json describes a model that sees."""
    return any(params.get(key) not in _OFF for key in (TILE, N_BLOCKS, ENCODER))


def blocks_of(n_layers: int, n_blocks: int) -> tuple[int, ...]:
    """Returns the text layers that have a cross-attention block before them, by Meta's rule.

    They are every k-th layer, counted back from the last, with k = n_layers / n_blocks rounded up.
    blocks_of(32, 8) == (3, 7, 11, 15, 19, 23, 27, 31)
    """
    step = -(-n_layers // n_blocks)
    return tuple(reversed(range(n_layers - 1, -1, -step)[:n_blocks]))


def config_from(
    params: Mapping[str, Any], text: LlamaConfig, *, where: object, max_layers: int = 2**16
) -> VisionLlamaConfig:
    """Returns the config of a model that sees; `text` is its text model's.

    `max_layers`: refuses more layers, because a forged number would allocate memory. Raises
    ValueError for a key that is missing or has an impossible value.
    """
    for key in (TILE, N_TILES, N_BLOCKS):
        value, most = params.get(key), {N_TILES: _MOST_TILES}.get(key, 2**31)
        if type(value) is not int or not 0 < value < most:
            raise ValueError(f"a model that sees needs {key}, an int above 0 and below {most}; "
                             f"{where} has {shown(value)}. Download it again")
    sizes = params.get(ENCODER, _FIXED)
    if not isinstance(sizes, Mapping) or sizes.keys() != _FIXED.keys() or not isinstance(
            sizes["intermediate_layers"], list):
        raise ValueError(f"{ENCODER} must be an object with {', '.join(_FIXED)}; {where} has "
                         f"{shown(sizes)}. Remove it for an encoder of the released size")
    for key in ("n_local_layers", "n_global_layers"):
        if type(sizes[key]) is not int or not 0 < sizes[key] <= max_layers:
            raise ValueError(f"{key} of {ENCODER} must be an int above 0, and the files hold "
                             f"{max_layers} tensors in all; {where} has {shown(sizes[key])}")
    layers = tuple(sizes["intermediate_layers"])
    try:
        vision = VisionConfig(
            **{**sizes, "intermediate_layers": layers}, tile_px=params[TILE],
            max_tiles=params[N_TILES], aspect_ratios=tuple(canvases(params[N_TILES])),
            norm_eps=_NORM_EPS, output_dim=text.dim)
        return VisionLlamaConfig.seeing(
            text, vision=vision, image_id=text.vocab_size, n_image_ids=N_IMAGE_IDS,
            cross_layers=blocks_of(text.n_layers, params[N_BLOCKS]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def params_of(config: VisionLlamaConfig) -> dict[str, Any]:
    """Returns the keys of params.json about images. Raises ValueError if it cannot say them."""
    vision = config.vision
    if config.is_tied:
        raise ValueError("models that see have a head apart from the embedding in Meta's layout; "
                         "got is_tied=True. Write our own format")
    if (config.image_id, config.n_image_ids) != (config.vocab_size, N_IMAGE_IDS):
        raise ValueError(f"in Meta's layout {N_IMAGE_IDS} ids for images follow the vocabulary, "
                         f"and the first is used; got image_id={config.image_id} and "
                         f"n_image_ids={config.n_image_ids}. Write another format")
    if config.cross_layers != (usual := blocks_of(config.n_layers, len(config.cross_layers))):
        raise ValueError(f"Meta's layout has {len(usual)} cross-attention blocks before the layers "
                         f"{usual} of {config.n_layers}; got cross_layers={config.cross_layers}. "
                         "Write another format")
    if vision.norm_eps != _NORM_EPS or vision.aspect_ratios != tuple(canvases(vision.max_tiles)):
        raise ValueError(f"Meta's encoder has norms with {_NORM_EPS} and all canvases of at most "
                         f"{vision.max_tiles} tiles; got norm_eps={vision.norm_eps} and "
                         f"{vision.aspect_ratios}. Write our own format")
    params = {TILE: vision.tile_px, N_TILES: vision.max_tiles, N_BLOCKS: len(config.cross_layers)}
    sizes = {key: getattr(vision, key) for key in _FIXED}
    sizes["intermediate_layers"] = list(vision.intermediate_layers)
    return params if sizes == _FIXED else params | {ENCODER: sizes}


def refuse_other_colors(tiling: Tiling) -> None:
    """Raises ValueError for a tiling that Meta's layout has no file for."""
    if tiling != Tiling(size_px=tiling.size_px, max_tiles=tiling.max_tiles):
        raise ValueError("Meta's code fixes how colors are normalized; got mean="
                         f"{tiling.mean} and std={tiling.std}. Write another format")


def refuse_unequal_heads(
    config: VisionLlamaConfig | FusionLlamaConfig, n_shards: int
) -> None:
    """Raises ValueError if shards would divide a head of the encoder."""
    if config.vision.n_heads % n_shards:
        raise ValueError("each shard must hold the same number of the encoder's heads, so n_shards "
                         f"must divide {config.vision.n_heads}; got {n_shards}. Choose another "
                         "number")


def fitted(name: str, tensor: Tensor, *, how: Translation) -> Tensor:
    """Returns a tensor of a file as `how` needs it: a gate as one number, a table in its grid.

    Any other tensor, and one that cannot be fitted, is returned unchanged.
    """
    if name not in how.by_theirs:
        return tensor
    piece, = how.by_theirs[name]
    needed = how.theirs[name]
    if tuple(tensor.shape) == needed or not tensor.is_floating_point():
        return tensor
    if piece.ours.endswith("gate.weight"):
        first = tensor.flatten()[:1]
        return first if tensor.numel() and bool((tensor == first).all()) else tensor
    if piece.grid is not None:
        can_be = can_be_resized(tensor.shape, piece.grid)
        return resized(tensor, piece.grid) if can_be else tensor
    if piece.ours == "vision.encoder.positions.in_tile":
        is_square = tensor.ndim == 2 and len(tensor) > 1 and (
            math.isqrt(len(tensor) - 1) ** 2 == len(tensor) - 1)
        return resized_in_tile(tensor, needed[0]) if is_square else tensor
    return tensor

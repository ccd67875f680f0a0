"""What an image costs in Llama 4: parameters by place, operations, and places in the text.

An image is read twice. The encoder computes its tiles, and then the text model reads its tokens as
it reads text. Everything is counted on a model without memory, as in `model.costs`: a multiply-add
is two operations; norms, biases, RoPE and activations are not counted.

Notebook 24.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from llama_from_scratch.config import FusionLlamaConfig, TileEncoderConfig
from llama_from_scratch.model import costs
from llama_from_scratch.model.costs import matmul_flops
from llama_from_scratch.model.unwritten import WithoutMemory, unwritten
from llama_from_scratch.vision.early_fusion import FusionLlama
from llama_from_scratch.vision.fusion_encoder import TileModel
from llama_from_scratch.vision.image_layout import layout, n_tiles


@functools.lru_cache(maxsize=8)
def unwritten_tiles(config: TileEncoderConfig) -> TileModel:
    """Returns the model of a config with its parameters on the meta device, without values."""
    with WithoutMemory():
        return TileModel(config)


@functools.lru_cache(maxsize=64)
def tile_param_counts(config: TileEncoderConfig) -> Mapping[str, int]:
    """Returns the number of parameters in each place of the encoder, the adapter and the projector.
    """
    model = unwritten_tiles(config)
    encoder = model.encoder
    parts = {
        "embeddings": [encoder.class_token, encoder.positions,
                       *encoder.patch_embedding.parameters()],
        "layers": list(encoder.layers.parameters()),
        "norms": [*encoder.norm_before.parameters(), *encoder.norm_after.parameters()],
        "adapter": list(model.adapter.parameters()),
        "projector": list(model.projector.parameters())}
    counts = {place: sum(p.numel() for p in found) for place, found in parts.items()}
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters()), "a part is missing"
    return MappingProxyType(counts)


@functools.lru_cache(maxsize=64)
def fusing_param_counts(config: FusionLlamaConfig) -> Mapping[str, int]:
    """Returns the number of parameters in each place of the text model, and in two more.

    "encoder", with its adapter, and "projector".
    """
    seeing = dict(tile_param_counts(config.vision))
    projector = seeing.pop("projector")
    return MappingProxyType({**costs.param_counts(config.text), "encoder": sum(seeing.values()),
                             "projector": projector})


def image_tokens(config: FusionLlamaConfig) -> int:
    """Returns how many ids of the text stand for an image with as many tiles as possible."""
    return len(layout((1, config.vision.max_tiles), ids=config.image_ids,
                      n_tokens=config.vision.n_tokens))


@functools.lru_cache(maxsize=64)
def image_flops(config: FusionLlamaConfig) -> Mapping[str, int]:
    """Returns the operations for an image with as many tiles as possible, by stage.

    The stages are "encoder", "adapter and projector", and "text": its tokens go through the layers
    of the text model, at the beginning of a text.
    """
    vision, model = config.vision, unwritten_tiles(config.vision)
    n, T = n_tiles((1, vision.max_tiles)), vision.n_patches + 1
    patches = matmul_flops(model.encoder.patch_embedding, 0) * vision.n_patches
    per_token = sum(matmul_flops(layer, 0) for layer in model.encoder.layers)
    attention = 4 * vision.dim * T**2 * vision.n_layers
    after = matmul_flops(model.adapter, 0) + matmul_flops(model.projector, 0)
    return MappingProxyType({
        "encoder": n * (patches + T * per_token + attention),
        "adapter and projector": n * vision.n_tokens * after,
        "text": reading_flops(config, n_ids=image_tokens(config))})


def reading_flops(config: FusionLlamaConfig, *, n_ids: int) -> int:
    """Returns the operations of all layers for the first `n_ids` ids of a text, without the head.
    """
    total = 0
    for layer in _asked(config).layers:
        chunk = layer.attention.chunk_size or n_ids
        alone, each = matmul_flops(layer, 0), matmul_flops(layer, 1) - matmul_flops(layer, 0)
        n_seen = sum(min(i + 1, chunk) for i in range(n_ids))
        total += n_ids * alone + n_seen * each
    return total


@functools.lru_cache(maxsize=8)
def _asked(config: FusionLlamaConfig) -> FusionLlama:
    return unwritten(config)

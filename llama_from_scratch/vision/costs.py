"""What seeing costs: parameters by place, operations and bytes per image, and per token of text.

Everything is counted on a model without memory, as in `model.costs`. A multiply-add counts as two
operations; norms, biases and activations are not counted.

Notebooks 21 and 22.
"""

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import nn

from llama_from_scratch.config import VisionConfig, VisionLlamaConfig
from llama_from_scratch.model import costs
from llama_from_scratch.model.costs import matmul_flops
from llama_from_scratch.model.unwritten import WithoutMemory, unwritten
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.cross_attention import CrossAttention, CrossBlock
from llama_from_scratch.vision.encoder import TOKEN_MULTIPLE, VisionModel

PLACES = ("embeddings", "local layers", "global layers", "norms", "projector")


def unwritten_vision(config: VisionConfig) -> VisionModel:
    """Returns the model of a config with its parameters on the meta device, without values."""
    with WithoutMemory():
        return VisionModel(config)


@functools.lru_cache(maxsize=64)
def param_counts(config: VisionConfig) -> Mapping[str, int]:
    """Returns the number of parameters in each of `PLACES`."""
    model = unwritten_vision(config)
    counts = dict.fromkeys(PLACES, 0)
    for place, parameters in _parts(model):
        counts[place] += sum(parameter.numel() for parameter in parameters)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters()), "a part is missing"
    return MappingProxyType(counts)


def _parts(model: VisionModel) -> Iterator[tuple[str, Iterator[nn.Parameter]]]:
    """Yields (place, parameters) for every part that has parameters."""
    encoder = model.encoder
    yield "embeddings", iter([encoder.class_token])
    for part in (encoder.patch_embedding, encoder.tiles_before, encoder.positions,
                 encoder.tiles_after):
        yield "embeddings", part.parameters()
    yield "local layers", encoder.local_layers.parameters()
    yield "global layers", encoder.global_layers.parameters()
    yield "norms", encoder.norm_before.parameters()
    yield "norms", encoder.norm_after.parameters()
    yield "projector", model.projector.parameters()


# --- a text model that sees ---------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def seeing_param_counts(config: VisionLlamaConfig) -> Mapping[str, int]:
    """Returns the number of parameters in each place of the text model, and in four more.

    "image embeddings", "cross-attention" (whole blocks, with their feed-forward), "encoder" and
    "projector".
    """
    counts = dict(costs.param_counts(config.text))
    counts["image embeddings"] = config.n_image_ids * config.dim
    counts["cross-attention"] = sum(parameter.numel() for block in _crosses(config)
                                    for parameter in block.parameters())
    seeing = dict(param_counts(config.vision))
    counts["projector"] = seeing.pop("projector")
    counts["encoder"] = sum(seeing.values())
    model = _asked(config)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters()), "a part is missing"
    return MappingProxyType(counts)


def flops_per_token(config: VisionLlamaConfig, *, context: int, image_tokens: int) -> int:
    """Returns the operations for one decoded token, as `model.costs.flops_per_token` does.

    A token that sees `image_tokens` tokens of images goes through the blocks of cross-attention
    too; 0 skips them.
    """
    of_text = costs.flops_per_token(config.text, context=context)
    if not image_tokens:
        return of_text
    return of_text + sum(matmul_flops(block, image_tokens) for block in _crosses(config))


@matmul_flops.register
def _(attention: CrossAttention, image_tokens: int) -> int:
    """Keys and values are not counted: they are computed once per image and kept."""
    n_products = matmul_flops(attention.wq, 0) + matmul_flops(attention.wo, 0)
    return n_products + 4 * attention.wq.out_features * image_tokens


@functools.lru_cache(maxsize=64)
def image_flops(config: VisionLlamaConfig) -> Mapping[str, int]:
    """Returns the operations for an image that uses all tiles, by stage.

    The stages are "encoder", "projector", and "keys and values". The encoder also computes the
    padding of each tile, and does nearly as much for an image with fewer tiles. The projector, and
    the keys and values of every block, are without the padding.
    """
    vision, J = config.vision, config.vision.max_tiles
    model = unwritten_vision(vision)
    n_empty = J * (-vision.n_tokens % TOKEN_MULTIPLE)
    T = config.image_tokens + n_empty
    layers = [*model.encoder.local_layers, *model.encoder.global_layers]
    per_token = sum(matmul_flops(layer, 0) for layer in layers)
    # Every token sees every token, except that empty ones do not see each other.
    attention = 4 * vision.dim * (T**2 - n_empty**2) * len(layers)
    patches = matmul_flops(model.encoder.patch_embedding, 0) * J * vision.n_patches
    keys_and_values = sum(matmul_flops(w, 0) for block in _crosses(config)
                          for w in (block.attention.wk, block.attention.wv))
    return MappingProxyType({
        "encoder": patches + T * per_token + attention,
        "projector": config.image_tokens * matmul_flops(model.projector, 0),
        "keys and values": config.image_tokens * keys_and_values})


def kv_values_per_image(config: VisionLlamaConfig) -> int:
    """Returns how many numbers the cache keeps of one image, summed over the blocks."""
    widths = [block.attention.wk.out_features + block.attention.wv.out_features
              for block in _crosses(config)]
    return config.image_tokens * sum(widths)


def _crosses(config: VisionLlamaConfig) -> list[CrossBlock]:
    return _asked(config).cross_blocks


@functools.lru_cache(maxsize=8)
def _asked(config: VisionLlamaConfig) -> VisionLlama:
    return unwritten(config)

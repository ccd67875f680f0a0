"""What a vision config costs: its parameters by place, counted on a model without memory.

Notebook 21.
"""

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import nn

from llama_from_scratch.config import VisionConfig
from llama_from_scratch.model.unwritten import WithoutMemory
from llama_from_scratch.vision.encoder import VisionModel

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

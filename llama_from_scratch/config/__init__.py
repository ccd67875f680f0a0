"""What a Llama is, as data: frozen records that refuse unknown keys and shapes that cannot work.

record       the decorator of all records, and the checks of their values
layers       LayerSpec, one per layer: what that layer is made of
text         LlamaConfig: the sizes that all layers share
vision       VisionLlamaConfig: a text model that looks at images through cross-attention
fusion       FusionLlamaConfig: a text model that reads images as tokens of its text

Notebook 15.
"""

from llama_from_scratch.config.fusion import FusionLlamaConfig, ImageIds, TileEncoderConfig
from llama_from_scratch.config.layers import (
    Dense,
    Experts,
    FeedForwardSpec,
    LayerSpec,
    RopeScaling,
    TemperatureTuning,
)
from llama_from_scratch.config.record import LARGEST, nearest, record
from llama_from_scratch.config.text import LlamaConfig
from llama_from_scratch.config.vision import VisionConfig, VisionLlamaConfig

__all__ = ["LARGEST", "Dense", "Experts", "FeedForwardSpec", "FusionLlamaConfig", "ImageIds",
           "LayerSpec", "LlamaConfig", "RopeScaling", "TemperatureTuning", "TileEncoderConfig",
           "VisionConfig", "VisionLlamaConfig", "nearest", "record"]

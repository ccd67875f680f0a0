"""What a model that sees through cross-attention is, as data: Llama 3.2 Vision.

Notebook 21 walks through the fields of the encoder. Notebook 22 walks through the rest.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config.record import check_number, is_int, json_object, record, short
from llama_from_scratch.config.text import LlamaConfig


@record
class VisionConfig:
    """Everything that decides the shape and the arithmetic of a vision encoder and its projector.

    An image is cut into at most `max_tiles` square tiles with edges of `tile_px` pixels, and each
    tile into patches with edges of `patch_px` pixels. `aspect_ratios`: the supported canvases as
    (rows, columns) of tiles. An image's aspect ratio id is its canvas's place here, counted from 1;
    id 0 is an image of padding. `dim`: W, the width of the encoder. `n_local_layers` come first and
    have no gates; `n_global_layers` follow and are gated. `intermediate_layers`: the state that
    enters each of these local layers, counted from 0, becomes part of the encoder's result.
    `output_dim`: D, the width that the projector gives, which is the text model's.
    """

    dim: int
    n_heads: int
    ffn_dim: int
    n_local_layers: int
    n_global_layers: int
    intermediate_layers: tuple[int, ...]
    tile_px: int
    patch_px: int
    max_tiles: int
    aspect_ratios: tuple[tuple[int, int], ...]
    norm_eps: float
    output_dim: int

    def __post_init__(self) -> None:
        for name in ("dim", "n_heads", "ffn_dim", "n_local_layers", "n_global_layers", "tile_px",
                     "patch_px", "max_tiles", "output_dim"):
            check_number(self, name, int)
        check_number(self, "norm_eps", float, below=1.0)
        if self.dim % self.n_heads:
            raise ValueError("the heads share dim equally, so n_heads must divide it; "
                             f"got dim={self.dim}, n_heads={self.n_heads}")
        if self.tile_px % self.patch_px:
            raise ValueError("a tile is cut into whole patches, so patch_px must divide tile_px; "
                             f"got tile_px={self.tile_px}, patch_px={self.patch_px}")
        self._check_intermediate_layers()
        self._check_aspect_ratios()

    def _check_intermediate_layers(self) -> None:
        layers = self.intermediate_layers
        if (not isinstance(layers, tuple) or not layers or not all(map(is_int, layers))
                or list(layers) != sorted(set(layers))
                or not 0 <= layers[0] <= layers[-1] < self.n_local_layers):
            raise ValueError("VisionConfig.intermediate_layers must be a tuple of ascending "
                             f"numbers of local layers, from 0 to {self.n_local_layers - 1}, "
                             f"with at least one; got {short(layers)}")

    def _check_aspect_ratios(self) -> None:
        ratios = self.aspect_ratios
        if not isinstance(ratios, tuple) or not ratios or not all(map(_is_canvas, ratios)):
            raise ValueError("VisionConfig.aspect_ratios must be a tuple with (rows, columns) of "
                             f"each canvas, such as ((1, 1), (1, 2)); got {short(ratios)}")
        if len(set(ratios)) < len(ratios):
            raise ValueError("each of VisionConfig.aspect_ratios must be given once, because its "
                             f"place is its id; got {short(ratios)}")
        if large := [ratio for ratio in ratios if ratio[0] * ratio[1] > self.max_tiles]:
            raise ValueError("no canvas of VisionConfig.aspect_ratios may have more than "
                             f"max_tiles={self.max_tiles} tiles; got {short(large[0])}")

    @property
    def head_dim(self) -> int:
        """K, the width of a head: an equal share of dim."""
        return self.dim // self.n_heads

    @property
    def n_patches(self) -> int:
        """P, the patches of one tile."""
        return (self.tile_px // self.patch_px) ** 2

    @property
    def n_tokens(self) -> int:
        """The tokens of one tile: its class token and its patches."""
        return self.n_patches + 1

    @property
    def n_features(self) -> int:
        """The width of the encoder's result: the last state and each intermediate state."""
        return self.dim * (1 + len(self.intermediate_layers))

    @property
    def n_tiles(self) -> tuple[int, ...]:
        """How many tiles an image of each aspect ratio id has; an image of padding has one."""
        return 1, *(rows * columns for rows, columns in self.aspect_ratios)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; the values sum to `n_params`. See `vision.costs`."""
        return dict(_vision_costs().param_counts(self))

    @property
    def n_params(self) -> int:
        return sum(self.param_counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain lists and numbers, ready for JSON."""
        return dataclasses.asdict(self) | {
            "intermediate_layers": list(self.intermediate_layers),
            "aspect_ratios": [list(ratio) for ratio in self.aspect_ratios]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "VisionConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        for name in ("intermediate_layers", "aspect_ratios"):
            if isinstance(values.get(name), list):
                values[name] = tuple(tuple(entry) if isinstance(entry, list) else entry
                                     for entry in values[name])
        return cls(**values)


@record
class VisionLlamaConfig(LlamaConfig):
    """A `LlamaConfig` with eyes: a text model to which a vision encoder is attached.

    `vision`: the encoder. `cross_layers`: the text layers, counted from 0, that have a
    cross-attention block before them. `image_id`: the id that stands for an image in the text.
    `n_image_ids`: how many ids the model can read after its vocabulary. They have embeddings of
    their own and no logits. Only `image_id` is used; the released models have 8.
    """

    vision: VisionConfig
    cross_layers: tuple[int, ...]
    image_id: int
    n_image_ids: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.vision, VisionConfig):
            raise ValueError("VisionLlamaConfig.vision must be a VisionConfig; got "
                             f"{short(self.vision)}")
        if self.vision.output_dim != self.dim:
            raise ValueError("the encoder's projector must give vectors as wide as the text "
                             f"model's, so vision.output_dim must be {self.dim}; got "
                             f"{self.vision.output_dim}")
        layers = self.cross_layers
        if (not isinstance(layers, tuple) or not layers or not all(map(is_int, layers))
                or list(layers) != sorted(set(layers))
                or not 0 <= layers[0] <= layers[-1] < self.n_layers):
            raise ValueError("VisionLlamaConfig.cross_layers must be a tuple of ascending numbers "
                             f"of text layers, from 0 to {self.n_layers - 1}, with at least one; "
                             f"got {short(layers)}")
        check_number(self, "n_image_ids", int)
        if not is_int(self.image_id) or not self.vocab_size <= self.image_id < self.n_ids:
            raise ValueError("VisionLlamaConfig.image_id must be one of the ids after the "
                             f"vocabulary, from {self.vocab_size} to {self.n_ids - 1}; got "
                             f"{short(self.image_id)}")

    @classmethod
    def seeing(cls, text: LlamaConfig, **fields: Any) -> "VisionLlamaConfig":
        """Returns the config of `text` with eyes; `fields` are those that a text model lacks."""
        return cls(**{name: getattr(text, name) for name in LlamaConfig.__dataclass_fields__},
                   **fields)

    @property
    def text(self) -> LlamaConfig:
        """The config of the text model alone."""
        return LlamaConfig(**{name: getattr(self, name)
                              for name in LlamaConfig.__dataclass_fields__})

    @property
    def n_ids(self) -> int:
        """How many ids the model can read: its vocabulary and the ids for images."""
        return self.vocab_size + self.n_image_ids

    def new_model(self) -> Any:
        """Returns the `VisionLlama` of this config, with fresh weights."""
        return _adapter().VisionLlama(self.text.new_model(), self)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; see `vision.costs.seeing_param_counts`."""
        return dict(_vision_costs().seeing_param_counts(self))

    @property
    def image_tokens(self) -> int:
        """The image tokens that cross-attention sees of an image with `max_tiles` tiles."""
        return self.vision.max_tiles * self.vision.n_tokens

    def flops_per_token(self, context: int, image_tokens: int = 0) -> int:
        """Returns the operations for one decoded token that sees `context` tokens.

        `image_tokens`: how many tokens of images it sees. Without any, the blocks of
        cross-attention are skipped. The images themselves are computed once; see `image_flops`.
        """
        return _vision_costs().flops_per_token(self, context=context, image_tokens=image_tokens)

    @property
    def image_flops(self) -> dict[str, int]:
        """The operations until an image with `max_tiles` tiles is in the cache, by stage."""
        return dict(_vision_costs().image_flops(self))

    def kv_bytes_per_image(self, bytes_per_value: int) -> int:
        """Returns the bytes that the cache keeps of one image, in addition to the text.

        They are the same for every image, as if it had `max_tiles` tiles.
        """
        return _vision_costs().kv_values_per_image(self) * bytes_per_value

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain dicts, lists and numbers, ready for JSON."""
        return super().to_dict() | {
            "vision": self.vision.to_dict(), "cross_layers": list(self.cross_layers)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "VisionLlamaConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if "vision" in values:
            values["vision"] = VisionConfig.from_dict(
                json_object(values["vision"], "VisionLlamaConfig.vision"))
        if isinstance(values.get("cross_layers"), list):
            values["cross_layers"] = tuple(values["cross_layers"])
        return super().from_dict(values)


def _is_canvas(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2 and all(map(is_int, value))
            and min(value) > 0)


def _adapter():
    """Returns `vision.adapter`, imported late for the same reason."""
    from llama_from_scratch.vision import adapter

    return adapter


def _vision_costs():
    """Returns `vision.costs`, imported late for the same reason."""
    from llama_from_scratch.vision import costs

    return costs

"""What a model that reads images as tokens of its text is, as data: Llama 4.

The encoder turns each tile of an image into vectors as wide as the text model. They take the places
of a special token in the text, so the text model needs no new part, and its layers do not know
which tokens were an image.

Notebook 24. Sources: llama-models, models/llama4/args.py and models/llama4/vision.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_from_scratch.config.record import check_number, is_int, json_object, record, short
from llama_from_scratch.config.text import LlamaConfig


@record
class TileEncoderConfig:
    """Everything that decides the shape and the arithmetic of Llama 4's encoder and its projector.

    An image is cut into at most `max_tiles` square tiles with edges of `tile_px` pixels. If it has
    more than one, a further tile shows the whole image. Each tile is cut into patches with edges of
    `patch_px` pixels. `dim`: W, the width of the encoder. `shuffle`: squares with an edge of this
    many patches become one token at the end. `adapter_dim`: the width of the two layers after that.
    `output_dim`: D, the width that the projector gives, which is the text model's. `rope_theta`: of
    the rotation by place in the tile.
    """

    dim: int
    n_heads: int
    ffn_dim: int
    n_layers: int
    tile_px: int
    patch_px: int
    max_tiles: int
    adapter_dim: int
    output_dim: int
    norm_eps: float
    shuffle: int = 2
    rope_theta: float = 1e4

    def __post_init__(self) -> None:
        for name in ("dim", "n_heads", "ffn_dim", "n_layers", "tile_px", "patch_px", "max_tiles",
                     "adapter_dim", "output_dim", "shuffle"):
            check_number(self, name, int)
        check_number(self, "norm_eps", float, below=1.0)
        check_number(self, "rope_theta", float)
        if self.dim % self.n_heads:
            raise ValueError("the heads share dim equally, so n_heads must divide it; "
                             f"got dim={self.dim}, n_heads={self.n_heads}")
        if self.head_dim % 4:
            raise ValueError("half of the pairs of a head turn by column and half by row, so "
                             f"dim / n_heads must be a multiple of 4; got {self.dim} / "
                             f"{self.n_heads} = {self.head_dim}")
        if self.tile_px % self.patch_px:
            raise ValueError("a tile is cut into whole patches, so patch_px must divide tile_px; "
                             f"got tile_px={self.tile_px}, patch_px={self.patch_px}")
        if self.grid % self.shuffle:
            raise ValueError("squares of patches become one token, so shuffle must divide "
                             f"tile_px / patch_px; got shuffle={self.shuffle}, {self.tile_px} / "
                             f"{self.patch_px} = {self.grid}")

    @property
    def head_dim(self) -> int:
        """K, the width of a head: an equal share of dim."""
        return self.dim // self.n_heads

    @property
    def grid(self) -> int:
        """The patches along an edge of a tile."""
        return self.tile_px // self.patch_px

    @property
    def n_patches(self) -> int:
        """P, the patches of one tile."""
        return self.grid**2

    @property
    def n_tokens(self) -> int:
        """The tokens that a tile takes in the text: its squares of patches."""
        return (self.grid // self.shuffle) ** 2

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; the values sum to `n_params`."""
        return dict(_fusion_costs().tile_param_counts(self))

    @property
    def n_params(self) -> int:
        return sum(self.param_counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "TileEncoderConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        return cls(**plain)


@record
class ImageIds:
    """The ids that write an image into a text, by the names of the special tokens.

    `patch`: a vector of the encoder takes its place. `image_start`, `image_end`: around an image.
    `image`: comes before the patches of the last tile, which shows the whole image.
    `tile_x_separator`: between two tiles of a row. `tile_y_separator`: after each row of tiles.
    """

    image_start: int
    image_end: int
    image: int
    patch: int
    tile_x_separator: int
    tile_y_separator: int

    def __post_init__(self) -> None:
        ids = dataclasses.asdict(self)
        for name, number in ids.items():
            if not is_int(number) or number < 1:
                raise ValueError(f"ImageIds.{name} must be an int above 0, because id 0 fills up "
                                 f"the rows of a batch; got {short(number)}")
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"each of the ImageIds must be another id; got {ids}")


@record
class FusionLlamaConfig(LlamaConfig):
    """A `LlamaConfig` with eyes: a text model that reads images as tokens of its text.

    `vision`: the encoder. `image_ids`: the ids that write an image; they belong to the vocabulary.
    """

    vision: TileEncoderConfig
    image_ids: ImageIds

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("vision", TileEncoderConfig), ("image_ids", ImageIds)):
            if not isinstance(value := getattr(self, name), kind):
                raise ValueError(f"FusionLlamaConfig.{name} must be {_a(kind)}; got {short(value)}")
        if self.vision.output_dim != self.dim:
            raise ValueError("the encoder's projector must give vectors as wide as the text "
                             f"model's, so vision.output_dim must be {self.dim}; got "
                             f"{self.vision.output_dim}")
        largest = max(dataclasses.astuple(self.image_ids))
        if largest >= self.vocab_size:
            raise ValueError("the ids that write an image belong to the vocabulary, from 0 to "
                             f"{self.vocab_size - 1}; got {largest}")

    @classmethod
    def seeing(cls, text: LlamaConfig, **fields: Any) -> "FusionLlamaConfig":
        """Returns the config of `text` with eyes; `fields` are those that a text model lacks."""
        return cls(**{name: getattr(text, name) for name in LlamaConfig.__dataclass_fields__},
                   **fields)

    @property
    def text(self) -> LlamaConfig:
        """The config of the text model alone."""
        return LlamaConfig(**{name: getattr(self, name)
                              for name in LlamaConfig.__dataclass_fields__})

    @property
    def image_id(self) -> int:
        """The id that stands for a whole image in a prompt."""
        return self.image_ids.image

    def new_model(self) -> Any:
        """Returns the `FusionLlama` of this config, with fresh weights."""
        return _early_fusion().FusionLlama(self.text.new_model(), self)

    @property
    def param_counts(self) -> dict[str, int]:
        """The number of parameters by place; see `vision.fusion_costs.fusing_param_counts`."""
        return dict(_fusion_costs().fusing_param_counts(self))

    @property
    def n_active_params(self) -> int:
        """The parameters that take part in the computation of one token of text."""
        return self.text.n_active_params

    @property
    def image_tokens(self) -> int:
        """The most places that one image takes in the text, with its separators and marks."""
        return _fusion_costs().image_tokens(self)

    @property
    def image_flops(self) -> dict[str, int]:
        """The operations until an image with most tiles is in the cache, by stage."""
        return dict(_fusion_costs().image_flops(self))

    def kv_bytes_per_image(self, bytes_per_value: int) -> int:
        """Returns the bytes that the KV cache keeps of an image with most tokens.

        They are part of the text's: each token of an image takes as many as a token of text.
        """
        return self.kv_bytes_per_token(bytes_per_value) * self.image_tokens

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain dicts, lists and numbers, ready for JSON."""
        return super().to_dict() | {"vision": self.vision.to_dict(),
                                    "image_ids": dataclasses.asdict(self.image_ids)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "FusionLlamaConfig":
        """Returns the config that `to_dict` wrote. Raises ValueError for other or missing keys."""
        values = dict(plain)
        if "vision" in values:
            values["vision"] = TileEncoderConfig.from_dict(
                json_object(values["vision"], "FusionLlamaConfig.vision"))
        if "image_ids" in values:
            values["image_ids"] = ImageIds(
                **json_object(values["image_ids"], "FusionLlamaConfig.image_ids"))
        return super().from_dict(values)


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _early_fusion():
    """Returns `vision.early_fusion`, imported late because it is built on this module."""
    from llama_from_scratch.vision import early_fusion

    return early_fusion


def _fusion_costs():
    """Returns `vision.fusion_costs`, imported late for the same reason."""
    from llama_from_scratch.vision import fusion_costs

    return fusion_costs
